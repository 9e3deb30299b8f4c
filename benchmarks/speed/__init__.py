"""Seconds and memory of evaluating, reading, training, adapting and running exported models."""
