"""The layout of answers: labelled datasets, order of classes, saving and loading."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.errors import DataError
from pymc_mte.functionals import functional_dims
from pymc_mte.model import CausalModel

Array = NDArray[np.float64]

INTERVAL = 0.9
"""Probability of every interval in tables: equal-tailed."""


def dims_of(model: CausalModel) -> dict[str, tuple[str, ...]]:
    """Axes of every parameter and functional that an answer of this model may hold."""
    functional = functional_dims(model) if model.treatment is not None else {}
    return model.posterior_dims | functional


def dataset(
    model: CausalModel,
    values: Mapping[str, Array],
    lead: tuple[str, ...] = ("chain", "draw"),
    coords: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Label arrays with the axes and coordinates that their names stand for.

    Parameters
    ----------
    model : CausalModel
        Gives axes and coordinates.
    values : mapping of str to ndarray
        Parameters and functionals by result name, with the leading axes ``lead``.
    lead : tuple of str
        Names of the leading axes.
    coords : mapping, optional
        Coordinates that depend on the data: grids and features.
    """
    dims = dims_of(model)
    used = {d for name in values for d in dims[name]}
    known = {**model.coords, **(coords or {})}
    named = {d: c for d, c in known.items() if d in used}
    out = xr.Dataset({name: ((*lead, *dims[name]), np.asarray(v)) for name, v in values.items()}, named)
    for axis in lead:
        if axis in out.sizes:
            out = out.assign_coords({axis: np.arange(out.sizes[axis])})
    return out


def class_order(model: CausalModel, values: Mapping[str, Array]) -> NDArray[np.int64]:
    """Order of the classes: ascending in the first contrast's effect, else in the first variable.

    Leading axes are carried along: (..., class).
    """
    name, at, first = "effect", 0, next(iter(model.variables))
    if name not in values:
        name, at = f"{next(iter(model.variables[first].spec.parameters))}_{first}", -1
    if model.linear:  # classes differ by targets, which keep their order
        return np.arange(model.classes)
    key, dims = np.asarray(values[name]), dims_of(model)[name]
    lead = key.shape[: key.ndim - len(dims)]
    if "class" not in dims:
        return np.broadcast_to(np.arange(model.classes), (*lead, model.classes))
    return np.argsort(key.reshape(*lead, model.classes, -1)[..., at], axis=-1, kind="stable")


def reorder(model: CausalModel, values: Mapping[str, Array], order: NDArray[np.int64]) -> dict[str, Array]:
    """Reorder the class axis of unbatched arrays."""
    dims = dims_of(model)
    return {
        n: np.asarray(v)[order] if dims[n][:1] == ("class",) else np.asarray(v) for n, v in values.items()
    }


def sorted_classes(point: xr.Dataset, model: CausalModel) -> xr.Dataset:
    """Sort the classes of a labelled point estimate."""
    values = {str(name): point[name].values for name in point.data_vars}
    return dataset(model, reorder(model, values, class_order(model, values)), lead=())


def provenance(model: CausalModel, **more: str | int | float) -> dict[str, str | int | float]:
    """Attributes that every result carries: the model, versions and seeds."""
    packages = ("pymc-mte", "pymc", "arviz", "numpy")
    return {
        "model": model.to_toml(),
        "versions": ", ".join(f"{p} {version(p)}" for p in packages),
        **more,
    }


def model_of(tree: xr.DataTree) -> CausalModel:
    """Return the model that a result was computed with."""
    if not isinstance(tree, xr.DataTree):
        raise DataError(f"a result of `sample` or `estimate` is wanted, got {type(tree).__name__}")
    if "model" not in tree.attrs:
        raise DataError("this DataTree holds no model text in its attributes; is it a result of pymc_mte?")
    return CausalModel.from_toml(str(tree.attrs["model"]))


def labels(model: CausalModel, name: str) -> list[tuple[str, tuple[Any, ...]]]:
    """Labels (``effect[class 0]``) and indices of the entries of a functional or parameter."""
    dims = dims_of(model)[name]
    coords = [model.coords[d] for d in dims]
    out = []
    for index in product(*(range(len(c)) for c in coords)):
        inside = ", ".join(f"{d} {c[i]}" for d, c, i in zip(dims, coords, index, strict=True))
        out.append((f"{name}[{inside}]" if inside else name, index))
    return out


def identified_functionals(tree: xr.DataTree) -> dict[str, bool]:
    """Say which functionals graph and data identify, from a result's ``identification`` group."""
    if "identification" not in tree or "identified" not in tree["identification"]:
        return {}
    flags = tree["identification"].to_dataset()["identified"]
    return {
        str(name): bool(flag) for name, flag in zip(flags["functional"].values, flags.values, strict=True)
    }


STORABLE = re.compile(r"[\w\x80-\U0010ffff][^\x00-\x1f\x7f/]*(?<! )")
"""Names that a NetCDF file may hold."""


def save(tree: xr.DataTree, path: str | Path) -> Path:
    """Save a result as NetCDF, complete or not at all.

    Parameters
    ----------
    tree : xarray.DataTree
        A result of `estimate`, `sample` or `fit`.
    path : str or Path
        Where to; written to a temporary name beside it first, then renamed.

    Returns
    -------
    Path
        The file written.

    Examples
    --------
    >>> import tempfile, xarray as xr
    >>> folder = tempfile.mkdtemp()
    >>> tree = xr.DataTree(xr.Dataset({"ate": 0.5}))
    >>> float(load(save(tree, f"{folder}/answer.nc"))["ate"])
    0.5
    """
    if not isinstance(tree, xr.DataTree):
        raise DataError(f"save: a result of `sample` or `estimate` is wanted, got {type(tree).__name__}")
    names = {str(name) for node in tree.subtree for name in (*node.variables, *node.dims)}
    if refused := sorted(name for name in names if not STORABLE.fullmatch(name)):
        raise DataError(
            f"save: NetCDF files cannot hold the names {refused}; begin the names of columns with a letter, "
            "and end none with a space"
        )
    with written_whole(target := Path(path)) as part:
        tree.to_netcdf(part, engine="netcdf4")
    return target


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Give a file to write to, which takes the target's place when it is complete, or not at all."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(target)
    except (
        PermissionError,
        FileExistsError,
        FileNotFoundError,
        IsADirectoryError,
        NotADirectoryError,
    ) as err:
        raise DataError(
            f"{target}: cannot be written ({err.strerror}); name a file in a folder where you may write"
        ) from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def load(path: str | Path) -> xr.DataTree:
    """Load a result saved with `save`, wholly into memory.

    Parameters
    ----------
    path : str or Path
        A NetCDF file.

    Returns
    -------
    xarray.DataTree
        Equal to what was saved, in every value and attribute.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such result file")
    try:
        with xr.open_datatree(path, engine="netcdf4") as tree:
            return tree.load()
    except OSError as err:
        raise DataError(f"{path}: cannot be read as a result; a NetCDF file from `save` is wanted") from err
