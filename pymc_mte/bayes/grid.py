"""Rounded continuous variables: the exact likelihood of a bin, once per bin, class and parents' levels."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.bayes.densities import LOG_DENSITY
from pymc_mte.bayes.layout import ROUNDED
from pymc_mte.bayes.priors import Tensor
from pymc_mte.data import columns_of
from pymc_mte.errors import ModelError
from pymc_mte.model import CausalModel
from pymc_mte.moments.likelihood import fit_likelihood
from pymc_mte.moments.problem import make_problem

Array = NDArray[np.float64]
Grid = float | str | Mapping[str, float]
"""Width of the bins in the variable's units: one for all, by variable, or ``"auto"``."""

AUTO = 0.1
"""``"auto"`` is this share of the smallest standard deviation within a class."""

COARSE, FINEST = 0.1, 1e-3
"""Shares of the pooled standard deviation: the first grid behind ``"auto"``, and its lower bound."""

GRID_FAMILIES = ("normal", "student_t")

ROOT_2 = float(np.sqrt(2.0))

NODES = 24
"""Gauss-Legendre nodes in a bin of a student_t variable: errors of the log-probability are below 1e-10 up to
bins ten scales wide, and below 1e-3 up to a hundred."""


def on_grid(model: CausalModel, table: xr.Dataset, grid: Grid) -> xr.Dataset:
    """Round the continuous variables of a table to bins, and add up what becomes equal.

    Parameters
    ----------
    model : CausalModel
        The graph, its levels resolved.
    table : xarray.Dataset
        Tabulated data.
    grid : float, mapping or "auto"
        Widths of the bins.

    Returns
    -------
    xarray.Dataset
        A table with fewer patterns. Values are the middles of their bins, multiples of the width, which
        is kept in the column's attribute ``grid``.
    """
    if not model.continuous_variables:
        raise ModelError("grid: this model has no continuous variable; leave it out")
    for name in model.continuous_variables:
        if (family := model.variables[name].family) not in GRID_FAMILIES:
            raise ModelError(
                f"grid: {name!r} is {family}; only {' and '.join(GRID_FAMILIES)} variables can be rounded"
            )
    widths = _auto(model, table) if grid == "auto" else _given(model, table, grid)
    return _rounded(model, table, widths)


def widths_of(model: CausalModel, table: xr.Dataset) -> dict[str, float]:
    """Widths of the bins of a table, by variable; empty if nothing was rounded."""
    return {
        n: float(table[n].attrs[ROUNDED]) for n in model.continuous_variables if ROUNDED in table[n].attrs
    }


def _given(model: CausalModel, table: xr.Dataset, grid: Any) -> dict[str, float]:
    names = model.continuous_variables
    widths = dict(grid) if isinstance(grid, Mapping) else dict.fromkeys(names, grid)
    if set(widths) != set(names) or not all(_positive(width) for width in widths.values()):
        raise ModelError(
            f"grid: give a positive width in the variable's units, one of each of {list(names)} "
            f'({{name: width}}), or "auto"; got {grid!r}'
        )
    counts = table["count"].values.astype(float)
    for name, width in widths.items():
        if width > (sd := _sd(table[name].values, counts)):
            raise ModelError(
                f"grid: bins {width:g} wide hide how {name!r} varies (standard deviation {sd:.3g}); "
                'give a tenth of that, or "auto"'
            )
    return {name: float(width) for name, width in widths.items()}


def _positive(width: object) -> bool:
    return isinstance(width, (int, float)) and not isinstance(width, bool) and 0 < width < np.inf


def _auto(model: CausalModel, table: xr.Dataset) -> dict[str, float]:
    """Find the smallest standard deviation in a class by maximum likelihood on a coarse grid."""
    counts = table["count"].values.astype(float)
    pooled = {n: _sd(table[n].values, counts) for n in model.continuous_variables}
    coarse = _rounded(model, table, {n: COARSE * sd for n, sd in pooled.items()})
    columns = columns_of(coarse, model)
    problem = make_problem(model, columns, coarse["count"].values.astype(float), seed=0)
    fitted, _ = fit_likelihood(problem, penalty=1.0)
    return {n: AUTO * max(float(fitted[f"sd_{n}"].min()), FINEST * sd) for n, sd in pooled.items()}


def _sd(value: Array, counts: Array) -> float:
    return float(np.sqrt(np.cov(value, fweights=counts.astype(int), ddof=0))) or 1.0


def _rounded(model: CausalModel, table: xr.Dataset, widths: Mapping[str, float]) -> xr.Dataset:
    columns = {str(n): table[n].values for n in table.data_vars if n != "count"}
    for name, width in widths.items():
        columns[name] = np.round(columns[name] / width)
    matrix = np.column_stack([column.astype(float) for column in columns.values()])
    distinct, where = np.unique(matrix, axis=0, return_inverse=True)
    counts = np.zeros(len(distinct), dtype=table["count"].dtype)
    np.add.at(counts, where.ravel(), table["count"].values)
    out = xr.Dataset(
        {
            name: ("pattern", distinct[:, i].astype(table[name].dtype), dict(table[name].attrs))
            for i, name in enumerate(columns)
        }
        | {"count": ("pattern", counts)},
        attrs=table.attrs,
    )
    for name, width in widths.items():
        out[name] = out[name] * width
        out[name].attrs = {**table[name].attrs, ROUNDED: width}
    return out


def log_interval(family: str, low: Array, high: Array, *parameters: Tensor) -> Tensor:
    """Log-probability of an interval, stable in both tails.

    Parameters
    ----------
    family : {"normal", "student_t"}
        The law.
    low, high : ndarray
        Ends, ``low < high``.
    *parameters : tensors
        The family's parameters, in the order of its table row; all broadcast.
    """
    if family == "normal":
        mean, sd = parameters
        return _log_normal_interval((low - mean) / sd, (high - mean) / sd)
    return _log_student_interval(low, high, *parameters)


def _log_student_interval(low: Array, high: Array, mean: Tensor, sd: Tensor, nu: Tensor) -> Tensor:
    """Quadrature on a scale where both a narrow bin and the tails of a wide one are smooth (asinh).

    Held at most at 0: nodes that meet a peak between them must not make a bin more than certain.
    """
    a, b = pt.arcsinh((low - mean) / sd), pt.arcsinh((high - mean) / sd)
    half, middle = (b - a) / 2, (b + a) / 2
    terms = []
    for node, weight in zip(*np.polynomial.legendre.leggauss(NODES), strict=True):
        v = middle + half * node
        log_density = LOG_DENSITY["student_t"](mean + sd * pt.sinh(v), mean, sd, nu)
        terms.append(log_density + pt.log(sd * pt.cosh(v) * half * weight))
    return pt.minimum(pm.math.logsumexp(pt.stack(terms), axis=0), 0.0)


def _log_normal_interval(a: Tensor, b: Tensor) -> Tensor:
    """Log of Phi(b) - Phi(a): mirrored to the left tail, then a difference of scaled erfc."""
    mirrored = a + b > 0
    near = pt.where(mirrored, -a, b)  # the end with the larger probability below it
    far = pt.where(mirrored, -b, a)
    # near may be a little above 0 (the bin then holds the mean), far never is above -near
    tail = near < -1.0
    # the branch that is not taken gets harmless ends: its gradient must be finite too
    x, y = pt.where(tail, -near, 1.0) / ROOT_2, pt.where(tail, -far, 2.0) / ROOT_2
    ratio = pt.exp((x - y) * (x + y)) * pt.erfcx(y) / pt.erfcx(x)
    in_tail = pt.log(0.5 * pt.erfcx(x)) - x**2 + pt.log1p(-ratio)
    x, y = pt.where(tail, 1.0, near) / ROOT_2, pt.where(tail, -1.0, far) / ROOT_2
    return pt.where(tail, in_tail, pt.log(0.5 * (pt.erf(x) - pt.erf(y))))


def bin_table(
    model: CausalModel, name: str, parameters: Mapping[str, Tensor], middle: Tensor, width: float
) -> Tensor:
    """Log-probability of every bin: (classes or 1, levels of each parent or 1, bins)."""
    var = model.variables[name]
    own = []
    for parameter in var.spec.parameters:
        dims = model.dims[f"{parameter}_{name}"]
        axes = [dims.index(d) if d in dims else "x" for d in ("class", *var.parents)]
        own.append(parameters[f"{parameter}_{name}"].dimshuffle([*axes, "x"]))
    return log_interval(var.family, middle - width / 2, middle + width / 2, *own)
