"""`load` for results and stored runs, and `merge` of results."""

from pathlib import Path

import xarray as xr

from pymc_mte import results
from pymc_mte.errors import DataError


def load(path: str | Path) -> xr.DataTree:
    """Load a result, wholly into memory.

    Parameters
    ----------
    path : str or Path
        A file written by `save`, or the folder that was given as ``store`` to `sample`.

    Returns
    -------
    xarray.DataTree
        Equal to what was saved, in every value and attribute. Of a stored run that was interrupted or
        killed: the draws so far, cut to equal chains, with a note that says how many there are.

    Raises
    ------
    DataError
        If there is no such file or run, or the run has no draw yet.
    """
    if not isinstance(path, (str, Path)):
        raise DataError(f"load: the path of a result is wanted, got {type(path).__name__}")
    if Path(path).is_dir():
        from pymc_mte.bayes.store import read_run

        return read_run(path)
    return results.load(path)
