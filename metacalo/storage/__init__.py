"""What is on disk is complete or absent: documents, atomic writing, locks, checkpoints, and where results come from."""
