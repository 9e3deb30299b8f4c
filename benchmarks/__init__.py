"""Commands that print the figures quoted in README, docs and cards."""
