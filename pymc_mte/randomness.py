"""Randomness as callers give it. NumPy only."""

import numpy as np

from pymc_mte.errors import ModelError


def as_generator(rng: int | np.random.Generator) -> np.random.Generator:
    """Turn what a caller gave as ``rng`` into a generator; one that is given goes on where it is.

    Raises
    ------
    ModelError
        If it is neither a seed nor a generator.
    """
    wanted = f"rng must be a seed (a whole number of at least 0) or a numpy Generator, got {rng!r}"
    if isinstance(rng, (bool, np.bool_)):  # NumPy would take it as 0 or 1
        raise ModelError(wanted)
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as err:
        raise ModelError(f"{wanted} ({err})") from None
