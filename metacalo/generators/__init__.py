"""Generators of normalised showers, behind one protocol."""
