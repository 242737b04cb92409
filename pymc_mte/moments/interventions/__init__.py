"""Mixtures of a known network under unknown do-interventions. NumPy and SciPy only."""
