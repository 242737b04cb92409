"""What the rows say against a model before anything is estimated: notes made while tabulating."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pymc_mte.coefficients import free_coefficients
from pymc_mte.covariates import MAX_COVARIATE_LEVELS
from pymc_mte.model import CausalModel
from pymc_mte.status import Note, Status
from pymc_mte.variable import Level

Array = NDArray[np.float64]
Columns = Mapping[str, NDArray[Any]]
Levels = Mapping[str, tuple[Level, ...]]

ARM_GIVEN = 0.95
"""R^2 of an arm given the covariates above which they leave no overlap.

1 - R^2 is the mean of e(1 - e) over p(1 - p), for chances e of the arm given the covariates and their mean p.
So above 0.95 that mean is below 1/80: as if everybody had one arm or the other with a chance of 1.3%.
"""

MIN_ARM = 8
"""Arms of fewer rows may lie beyond a threshold of some covariate by chance."""

PROXY_GIVEN = 0.999
"""R^2 of a proxy given the covariates above which what is left counts as rounding: 3% of its deviation."""

HEAP = 0.05
"""Share of the rows with one and the same number above which a class may shrink to it."""

COLLINEAR = 1e-10
"""Eigenvalues of the covariates' correlations below this share of the largest count as zero."""

ROWS_AT_ONCE = 2**16
"""Rows that are multiplied at once, so that no copy of all columns is made."""

MIN_GROUPS = 3
"""Two groups have one difference, which tells next to nothing of a spread."""


def data_findings(columns: Columns, counts: Array, levels: Levels, model: CausalModel) -> list[Note]:
    """Say what the columns of a model lack.

    Parameters
    ----------
    columns : mapping of str to ndarray of shape (patterns,)
        Columns of the model and its covariates.
    counts : ndarray of shape (patterns,)
        Rows of every pattern.
    levels : mapping of str to tuple
        Levels of the discrete columns.
    model : CausalModel
        The model, with the values of its text covariates filled in.
    """
    notes = []
    for name in model.variables:
        seen = columns[name][~is_missing(columns[name])]
        if np.ptp(seen) == 0 and name != model.treatment:
            status = Status.CONSTANT_OUTCOME if name == model.outcome else Status.CONSTANT_COLUMN
            notes.append(Note(status, name, f"{counts.sum():g} rows with one value"))
    if model.treatment is not None:
        arms = levels[model.treatment]
        per_arm = np.bincount(columns[model.treatment], weights=counts, minlength=len(arms))
        empty = [arm for arm, number in zip(arms, per_arm, strict=True) if number == 0]
        notes += [Note(Status.EMPTY_ARM, f"{model.treatment} = {arm}", "0 rows") for arm in empty]
    notes += _heaps(columns, counts, model)
    notes += _linear_notes(columns, counts, levels, model)
    notes += _given_covariates(columns, counts, levels, model)
    return notes + _too_few_rows(counts, model)


def group_findings(group: NDArray[np.int64], counts: Array) -> list[Note]:
    """Say where groups are too few, or too small, for class weights of their own.

    Parameters
    ----------
    group : ndarray of int, shape (patterns,)
        Number of the group of every pattern.
    counts : ndarray of shape (patterns,)
        Rows of every pattern.
    """
    rows = np.bincount(group, weights=counts)
    rows = rows[rows > 0]
    notes = []
    if len(rows) < MIN_GROUPS:
        notes.append(Note(Status.FEW_GROUPS, "groups", f"{len(rows)} group{'s' * (len(rows) > 1)}"))
    single = int((rows == 1).sum())
    if are_rows(counts) and 2 * single > len(rows):
        notes.append(Note(Status.SINGLE_ROW_GROUPS, "groups", f"{single} of {len(rows)} have one row"))
    return notes


def is_missing(column: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a column of values or level numbers has no value."""
    return np.asarray(np.isnan(column) if column.dtype.kind == "f" else column < 0)


def are_rows(counts: Array) -> bool:
    """Whether the counts are rows; else they are shares, and no number of rows is known."""
    return bool((counts == np.round(counts)).all())


def n_parameters(model: CausalModel) -> int:
    """Count the free parameters of a posterior: class weights, tables, and coefficients of all kinds."""
    tables = sum(int(np.prod(model.free_shape(name))) for name in model.dims)
    classes = (model.classes - 1) * len(model.covariate_columns)
    return tables + classes + sum(free_coefficients(model, name) for name in model.regressed)


def explained(
    given: Sequence[NDArray[Any]], targets: Sequence[NDArray[Any]], weight: Array, n: float
) -> tuple[Array, NDArray[np.int64]]:
    """Regress each target on all given columns and a constant by least squares: adjusted R^2.

    Parameters
    ----------
    given, targets : sequences of ndarrays of shape (patterns,)
        Columns without missing values.
    weight : ndarray of shape (patterns,)
        Weights, in any unit.
    n : float
        Rows behind them; infinite for a population.

    Returns
    -------
    r2 : ndarray of shape (targets,)
        0 or less for a constant target; not a number where the rows are no more than the terms.
    nearest : ndarray of int, shape (targets,)
        Given column with the largest correlation.

    Notes
    -----
    One pass over the rows; all the rest is done on their correlations.

    Examples
    --------
    >>> a, b = np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, -1.0, 1.0, -1.0])
    >>> explained([a], [3 - 2 * a, b], np.ones(4), np.inf)[0].round(3).tolist()
    [1.0, 0.2]
    """
    columns, share = [*given, *targets], weight / weight.sum()
    means, root = [float(np.einsum("i,i->", column, share)) for column in columns], np.sqrt(share)
    product = np.zeros((len(columns), len(columns)))
    for start in range(0, len(share), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        moved = [(column[part] - mean) * root[part] for column, mean in zip(columns, means, strict=True)]
        beside = np.stack(moved)
        product += beside @ beside.T
    sd = np.sqrt(np.diagonal(product))
    sd = np.where(sd > COLLINEAR * np.abs(means), sd, np.inf)  # constants keep rounding errors of their mean
    known = len(given)
    correlation = product / np.outer(sd, sd)
    value, vector = np.linalg.eigh(correlation[:known, :known])
    kept = value > COLLINEAR * value[-1]
    along = vector[:, kept].T @ correlation[:known, known:]
    left = 1 - (along**2 / value[kept, None]).sum(axis=0)
    if np.isfinite(n):
        spare = n - 1 - kept.sum()
        left = left * (n - 1) / spare if spare > 0 else np.full(len(targets), np.nan)
    return 1 - left, np.abs(correlation[:known, known:]).argmax(axis=0)


def by_threshold(
    given: Sequence[NDArray[Any]], targets: Sequence[NDArray[Any]], weight: Array
) -> tuple[Array, NDArray[np.int64]]:
    """Explain each target by the one threshold of a given column that explains most: R^2.

    Parameters
    ----------
    given, targets : sequences of ndarrays of shape (patterns,)
        Columns without missing values.
    weight : ndarray of shape (patterns,)
        Weights, in any unit.

    Returns
    -------
    r2 : ndarray of shape (targets,)
        0 for a constant target.
    which : ndarray of int, shape (targets,)
        Given column whose threshold it is.

    Examples
    --------
    >>> age = np.array([20.0, 30.0, 40.0, 90.0])
    >>> by_threshold([age], [(age > 35).astype(float)], np.ones(4))
    (array([1.]), array([0]))
    """
    share, found = weight / weight.sum(), np.zeros((len(given), len(targets)))
    moved = [target - share @ target for target in targets]
    varies = [np.ptp(target) > 0 for target in targets]
    variance = [share @ target**2 for target in moved]
    for i, column in enumerate(given):
        order = np.argsort(column, kind="stable")
        ends = np.flatnonzero(np.diff(column[order]))  # between different values only
        below = np.cumsum(share[order])[ends]
        for j in np.flatnonzero(varies):
            sums = np.cumsum((share * moved[j])[order])[ends]
            apart = np.divide(sums**2, below * (1 - below), where=below < 1, out=np.zeros(len(ends)))
            found[i, j] = apart.max(initial=0.0) / variance[j]
    return np.minimum(found.max(axis=0), 1.0), found.argmax(axis=0)


def _heaps(columns: Columns, counts: Array, model: CausalModel) -> list[Note]:
    """Say which numbers are so frequent that a class could shrink to them."""
    notes = []
    for name in model.continuous_variables if model.classes > 1 else ():
        spec = model.variables[name].spec
        if "sd" not in spec.parameters:
            continue
        column = columns[name]
        kept = ~is_missing(column) & ((column > 0) | (not spec.zeros_apart))
        values, place = np.unique(column[kept], return_inverse=True)
        rows = np.bincount(place.ravel(), weights=counts[kept])
        if len(values) > 1 and rows.max() > max(2, HEAP * counts.sum()):
            share = rows.max() / counts.sum()
            notes.append(Note(Status.HEAP, name, f"{values[rows.argmax()]:g} in {share:.0%} of the rows"))
    return notes


def _too_few_rows(counts: Array, model: CausalModel) -> list[Note]:
    """Say that rows are fewer than parameters, of models with a treatment.

    Without one, rows are long: many items or draws each, whose parameters a few rows can carry.
    """
    if model.treatment is None or model.interventions is not None or not are_rows(counts):
        return []
    rows, free = float(counts.sum()), n_parameters(model)
    if rows >= free:
        return []
    return [Note(Status.FEWER_ROWS_THAN_PARAMETERS, "all rows", f"{rows:g} rows, {free} free parameters")]


def _given_covariates(columns: Columns, counts: Array, levels: Levels, model: CausalModel) -> list[Note]:
    """Say which arms and proxies follow from the covariates."""
    given, proxies = model.covariate_columns, (*model.treatment_proxies, *model.outcome_proxies)
    if not given or model.treatment is None:
        return []
    asked = [model.treatment, *(proxies if model.classes > 1 else ())]
    gaps = {name for name in asked if is_missing(columns[name]).any()}
    notes = []
    for names in ([name for name in asked if name not in gaps], *([name] for name in asked if name in gaps)):
        seen = ~is_missing(columns[names[0]]) if names[0] in gaps else slice(None)
        targets = {name: _targets(columns[name][seen], name, levels, model) for name in names}
        n = float(counts[seen].sum()) if are_rows(counts) else np.inf
        flat = [target for own in targets.values() for target in own]
        known = [columns[name][seen] for name in given]
        r2, nearest = explained(known, flat, counts[seen], n)
        for name, own in targets.items():
            share, most = r2[: len(own)], [given[i] for i in nearest[: len(own)]]
            if name == model.treatment:
                at_step, by = _explained_by_threshold(known, own, counts[seen], n)
                steps = [given[i] for i in by]
                notes += _no_overlap(np.nan_to_num(share), most, at_step, steps, levels, model)
            else:
                notes += _followed(name, share, most)
            r2, nearest = r2[len(own) :], nearest[len(own) :]
    return notes


def _targets(column: NDArray[Any], name: str, levels: Levels, model: CausalModel) -> list[NDArray[Any]]:
    """Columns to be regressed: indicators of the arms; a proxy's number, then indicators of its levels."""
    if name not in levels:
        return [column]
    labels = levels[name]
    hit = [(column == level).astype(float) for level in range(len(labels))] if len(labels) > 2 else []
    if name == model.treatment:
        return hit or [column]
    numbers = all(isinstance(label, int | float) for label in labels)
    value = np.array(labels if numbers else range(len(labels)), dtype=float)
    # no text covariate has more levels, so none can give more indicators
    return [value[column], *(hit if len(labels) <= MAX_COVARIATE_LEVELS else [])]


def _explained_by_threshold(
    given: list[NDArray[Any]], arms: list[NDArray[Any]], counts: Array, n: float
) -> tuple[Array, NDArray[np.int64]]:
    """Explain arms by thresholds; 0 for arms of so few rows that chance alone sets them apart."""
    r2, place = by_threshold(given, arms, counts)
    rows = np.array([min(counts @ arm, counts @ (1 - arm)) for arm in arms])
    return np.where((rows < MIN_ARM) & np.isfinite(n), 0.0, r2), place


def _no_overlap(
    r2: Array, nearest: list[str], at_step: Array, steps: list[str], levels: Levels, model: CausalModel
) -> list[Note]:
    """Say which arms the covariates determine: all of them linearly, or a threshold of one."""
    name, notes = str(model.treatment), []
    arms = [f"{name} = {level}" for level in levels[name]] if len(r2) > 1 else [name]
    for i, arm in enumerate(arms):
        if r2[i] > ARM_GIVEN:
            detail = _strength(r2[i], nearest[i])
        elif at_step[i] > ARM_GIVEN:
            detail = f"R^2 {at_step[i]:.4g} by a threshold of {steps[i]}"
        else:
            continue
        notes.append(Note(Status.NO_OVERLAP, f"{arm} given the covariates", detail))
    return notes


def _followed(name: str, r2: Array, nearest: list[str]) -> list[Note]:
    """Say that covariates determine a proxy, from the R^2 of its `_targets`."""
    by_level = r2[1:].min() if len(r2) > 1 else -np.inf
    share = max(r2[0], by_level)
    if not share > PROXY_GIVEN:
        return []
    return [Note(Status.PROXY_FROM_COVARIATES, f"{name} given the covariates", _strength(share, nearest[0]))]


def _strength(share: float, most: str) -> str:
    return f"R^2 {share:.4g}, most by {most}"


def _linear_notes(columns: Columns, counts: Array, levels: Levels, model: CausalModel) -> list[Note]:
    """Say which terms do not vary, and which stated centres lie a standard deviation outside the values."""
    notes = []
    parents = dict.fromkeys(parent for parent, _ in model.linear_edges)
    for name in (*parents, *(name for name in model.covariates if name in columns)):
        column, weight = (v[~is_missing(columns[name])] for v in (columns[name], counts))
        if lost := [str(level) for i, level in enumerate(levels.get(name, ())) if i not in column]:
            notes.append(Note(Status.NO_VARIATION, name, f"no row has {', '.join(lost)}"))
        elif np.ptp(column) == 0:
            notes.append(Note(Status.NO_VARIATION, name, f"{column[0]:g} in all rows"))
        if name in parents and (centre := model.variables[name].centre) is not None:
            sd = np.sqrt(np.average((column - np.average(column, weights=weight)) ** 2, weights=weight))
            if max(column.min() - centre, centre - column.max()) > sd:
                detail = f"{centre:g}, and the values go from {column.min():g} to {column.max():g}"
                notes.append(Note(Status.CENTRE_OUTSIDE, name, detail))
    return notes
