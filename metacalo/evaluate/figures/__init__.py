"""Figures of a comparison: what each shows, drawn in one style, the reference always first."""
