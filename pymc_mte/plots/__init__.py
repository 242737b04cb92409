"""Figures over results: each function returns its figure and shows nothing."""
