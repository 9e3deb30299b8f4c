"""Meta-learning over tasks: episodes, inner loops, outer-loop algorithms."""
