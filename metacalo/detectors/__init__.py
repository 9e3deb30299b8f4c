"""A calorimeter described by its physics: materials, stack, mesh, and the ranges of its showers."""
