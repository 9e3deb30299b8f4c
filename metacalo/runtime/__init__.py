"""A run: its bars, its end by signals, its threads and processes, its log, its words and pictures."""
