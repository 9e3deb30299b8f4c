"""`metacalo inspect`: what a shower file is, and what is wrong with it."""
