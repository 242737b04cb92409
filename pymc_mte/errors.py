"""Exceptions: what was wanted, what came, what to do."""

from numbers import Integral

import numpy as np


class MTEError(Exception):
    """Base class: catch this to catch everything that is raised on purpose."""


class ModelError(MTEError, ValueError):
    """A model description is incomplete, contradictory or outside what is supported."""


class DataError(MTEError, ValueError):
    """The data do not fit the model that is to describe them."""


class RefusedError(MTEError, RuntimeError):
    """The analysis is refused: the graph or the data cannot carry the answer."""


def whole_number(name: str, value: object, least: int = 1) -> int:
    """Return a whole number as Python's own; NumPy's are taken, truth values are not.

    Raises
    ------
    ModelError
        If it is something else, or smaller than ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ModelError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def truth_value(name: str, value: object) -> bool:
    """Return True or False as Python's own; a word such as "no" would count as True.

    Raises
    ------
    ModelError
        If it is something else.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise ModelError(f"{name} must be True or False, got {value!r}")
    return bool(value)
