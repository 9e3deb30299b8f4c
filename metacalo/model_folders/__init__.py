"""The two kinds of model folder: a base, and what adaptation made of it."""
