"""Exceptions: what was wanted, what came, what to do."""


class MTEError(Exception):
    """Base class: catch this to catch everything that is raised on purpose."""


class ModelError(MTEError, ValueError):
    """A model description is incomplete, contradictory or outside what is supported."""


class DataError(MTEError, ValueError):
    """The data do not fit the model that is to describe them."""


class RefusedError(MTEError, RuntimeError):
    """The analysis is refused: the graph or the data cannot carry the answer."""
