"""What adaptation moves, how fast, and what it changed."""
