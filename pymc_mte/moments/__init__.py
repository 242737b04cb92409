"""Moment estimators: NumPy and SciPy only, labels at the entry function alone."""
