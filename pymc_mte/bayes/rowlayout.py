"""The data as the row-wise likelihood takes them: a matrix of features and what does not fit into it."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.bayes.layout import pooled_moments
from pymc_mte.coefficients import with_linear_parents
from pymc_mte.data import effective_weights, is_missing
from pymc_mte.model import CausalModel
from pymc_mte.regression import centred_covariates, regressors

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_CELLS = 32
"""Tables of up to this many cells become features, as indicators; larger ones are looked up."""

MAX_FEATURES = 256
"""Largest number of features."""

RANK_TOLERANCE = 1e-8
"""Directions of the covariates below this share of the largest singular value are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orthogonal:
    """Covariates turned into uncorrelated directions of mean 0 and variance 1 over the rows.

    Attributes
    ----------
    values : ndarray of shape (row, direction)
        The directions.
    to_covariates : ndarray of shape (covariate, direction)
        Turns coefficients of the directions into coefficients of the covariates.
    from_covariates : ndarray of shape (direction, covariate)
        Turns them back.
    """

    values: Array
    to_covariates: Array
    from_covariates: Array


def orthogonalise(covariates: Array, share: Array) -> Orthogonal:
    """Turn covariates into uncorrelated directions; collinear ones lose the surplus.

    Parameters
    ----------
    covariates : ndarray of shape (row, covariate)
        Deviations from the weighted means, or terms with their own zero: the directions keep that zero.
    share : ndarray of shape (row,)
        Share of every row, summing to 1.
    """
    centred = covariates - np.where(np.ptp(covariates, axis=0) == 0, covariates[:1], share @ covariates)
    scale = np.sqrt(share @ centred**2)
    scale = np.where(scale > 0, scale, 1.0)
    _, s, v = np.linalg.svd(np.sqrt(share)[:, None] * centred / scale, full_matrices=False)
    kept = s > RANK_TOLERANCE * s.max(initial=1e-300)
    forward = (v[kept] / s[kept, None]).T / scale[:, None]
    return Orthogonal(
        values=covariates @ forward,
        to_covariates=forward,
        from_covariates=s[kept, None] * v[kept] * scale,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RowLayout:
    """Rows laid out for the likelihood.

    Attributes
    ----------
    weight : ndarray of shape (row,)
        How often every row counts.
    features : ndarray of shape (row, feature)
        Indicators of the cells of small tables, powers of normal values.
    tables, normals : dict of str to bool
        Variables among the features, and whether some of their values are missing.
    own_cell : dict of str to ndarray of shape (row,)
        Cell (parents' levels and own) of the discrete variables that are looked up.
    parent_cell : dict of str to ndarray of shape (row,)
        Cell of the parents' levels, of all other variables.
    value : ndarray of shape (row, variable)
        Level numbers and values; 0 or the pooled mean where missing.
    seen : dict of str to ndarray of shape (row,)
        1 where a variable outside the features has a value, of those with missing values.
    pooled : dict of str to (mean, standard deviation)
        Of the continuous variables.
    covariates : Orthogonal or None
        The covariates' directions.
    centred : ndarray of shape (row, covariate), optional
        The covariates' deviations from their means.
    linear : dict of str to Orthogonal
        Directions of the variables that have linear parents.
    """

    weight: Array
    features: Array
    tables: dict[str, bool]
    normals: dict[str, bool]
    own_cell: dict[str, Ints]
    parent_cell: dict[str, Ints]
    value: Array
    seen: dict[str, Array]
    pooled: dict[str, tuple[float, float]]
    covariates: Orthogonal | None
    centred: Array | None
    linear: dict[str, Orthogonal]

    def directions(self, name: str) -> Orthogonal:
        """Directions that shift a variable, or membership (``class``)."""
        found = self.linear.get(name, self.covariates)
        assert found is not None
        return found


def row_layout(model: CausalModel, table: xr.Dataset) -> RowLayout:
    """Lay a tabulated data set out, row by row.

    Parameters
    ----------
    model : CausalModel
        The graph, its levels resolved.
    table : xarray.Dataset
        Tabulated data; missing values are level number -1 or NaN.
    """
    weight = effective_weights(table)
    columns = {name: table[name].values for name in model.variables}
    seen = {name: ~is_missing(column) for name, column in columns.items()}
    pooled = {
        v: pooled_moments(model.variables[v].spec, columns[v][seen[v]], weight[seen[v]])
        for v in model.continuous_variables
    }
    of_tables: list[Array] = []
    of_normals: list[Array] = []
    tables: dict[str, bool] = {}
    normals: dict[str, bool] = {}
    for name, var in model.variables.items():
        gaps = not seen[name].all()
        width = int(np.prod([model.size(v) for v in (*var.parents, name)])) if var.discrete else 3
        used = sum(map(len, of_tables + of_normals))
        if name in model.regressed or width > MAX_CELLS or used + width > MAX_FEATURES:
            continue
        if var.discrete:
            cell = _cell(model, columns, (*var.parents, name))
            first = 0 if gaps or var.parents else 1  # the first level's share is a constant
            of_tables.append(np.stack([(cell == i) & seen[name] for i in range(first, width)]).astype(float))
            tables[name] = gaps
        elif var.family == "normal" and not var.parents:
            z = np.where(seen[name], (columns[name] - pooled[name][0]) / pooled[name][1], 0.0)
            of_normals.append(np.stack([z, z * z, seen[name].astype(float)][: 3 if gaps else 2]))
            normals[name] = gaps
    others = [name for name in model.variables if name not in {*tables, *normals}]
    given = centred_covariates(table)
    share = weight / weight.sum()
    parents = {p: np.where(seen[p], columns[p], 0) for p in {p for p, _ in model.linear_edges}}
    blocks = [f.T for f in of_tables + of_normals]
    filled = [
        np.where(seen[name], column, pooled[name][0] if name in pooled else 0)
        for name, column in columns.items()
    ]
    return RowLayout(
        weight=weight,
        features=np.column_stack(blocks) if blocks else np.zeros((len(weight), 0)),
        tables=tables,
        normals=normals,
        own_cell={
            name: np.where(seen[name], _cell(model, columns, (*model.variables[name].parents, name)), 0)
            for name in others
            if model.variables[name].discrete
        },
        parent_cell={name: _cell(model, columns, model.variables[name].parents) for name in others},
        value=np.column_stack(filled).astype(float),
        seen={name: seen[name].astype(float) for name in others if not seen[name].all()},
        pooled=pooled,
        covariates=None if given is None else orthogonalise(given, share),
        centred=given,
        linear={
            name: orthogonalise(terms, share)
            for name, terms in regressors(model, parents, given, with_linear_parents(model)).items()
        },
    )


def _cell(model: CausalModel, columns: dict[str, Array], names: tuple[str, ...]) -> Ints:
    """Joint level number of some variables, last one fastest; meaningless where one is missing."""
    cell = np.zeros(len(next(iter(columns.values()))), dtype=np.int64)
    for name in names:
        cell = cell * model.size(name) + columns[name].astype(np.int64)
    return cell
