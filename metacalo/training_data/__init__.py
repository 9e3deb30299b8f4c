"""Showers of many tasks as batches and episodes, in memory or read in portions."""
