"""`predict`: classes and effects of new people, per draw, missing values summed out."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.columns import allowed_values, event_signs, level_codes, number_column
from pymc_mte.covariates import new_covariates
from pymc_mte.data import is_missing
from pymc_mte.errors import DataError, RefusedError, whole_number
from pymc_mte.identify.identification import identify
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.readers import open_frame
from pymc_mte.regression import log_joint_given
from pymc_mte.results import identified_functionals, model_of
from pymc_mte.sites import SHIFT
from pymc_mte.summary import carried, weakly_identified
from pymc_mte.unit_outcomes import Gaps, TableOutcomes, UnitOutcomes, combinations, gaps_of

Array = NDArray[np.float64]
Columns = dict[str, NDArray[Any]]

DRAWS = 400
"""Draws that are kept by default: intervals of 90% are then off by a few percent of their length."""

BLOCK = 4_000_000
"""Numbers that are held at once, roughly: draws x classes x rows x arms."""

NO_INDIVIDUAL = (
    "A unit's effect is the mean effect among people of its class with its values of what precedes the "
    "treatment, averaged over the classes it may belong to. It is not what the treatment would do to this "
    "individual: inside a class people still differ, and no data can show both outcomes of one person."
)

NO_EFFECTS = (
    "The graph and the rows that were learnt from do not identify the effects: different ones fit alike, so "
    "these numbers follow from the prior (in an estimate, from where its search began)."
)
AVERAGES_ONLY = (
    "The graph and the rows that were learnt from identify average effects, not the classes: class "
    "probabilities, effects that differ between rows and rules that use them follow from the prior (in an "
    "estimate, from where its search began)."
)
NO_CLASSES = (
    "The graph and the rows that were learnt from do not identify the classes: different ones fit alike, so "
    "class probabilities follow from the prior (in an estimate, from where its search began)."
)
LABELS_SWITCH = (
    "Classes change places inside chains, so their labels switch: class probabilities and class effects mean "
    "nothing. Averages over the classes stand: effects of rows, values of rules."
)


ROUNDING = 1e-9
"""Share of a covariate's range that a row may lie outside of it by rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Predictions for some of the distinct rows.

    Attributes
    ----------
    rows : ndarray of int, shape (rows,)
        Positions among the distinct rows.
    class_probability : ndarray of shape (draws, rows, classes)
        Given what is observed of each row.
    outcome : ndarray of shape (draws, rows, arms) or None
        Mean potential outcomes; None without a treatment.
    """

    rows: NDArray[np.int64]
    class_probability: Array
    outcome: Array | None


def predict(post: xr.DataTree, new_rows: Any, *, draws: int = DRAWS) -> xr.Dataset:
    """Predict classes and effects of new rows, for every draw of a result.

    Parameters
    ----------
    post : DataTree
        From `sample`, or from an `estimate` whose method gives the tables of the network (``polished``).
        Where class weights were pooled over groups, their average is used.
    new_rows : dataframe, mapping of arrays, xarray.Dataset, str or Path
        One person per row. Columns may be absent and values missing, the outcome's and the treatment's
        too: what is missing is summed out (exactly; it is taken to be missing at random). What is there
        is used, an observed outcome as well. Covariates must all be there: they have no distribution to
        be summed over. So must a number that is a linear parent of something observed; where nothing
        observed depends on it, outcomes are averaged over it. Columns that the model does not know are
        ignored.
    draws : int
        At most so many draws are used, evenly thinned; chains are left out where there are more of them.

    Returns
    -------
    xarray.Dataset
        ``class_probability`` (chain, draw, row, class) and, with treatment and outcome,
        ``unit_potential_outcome`` (chain, draw, row, treatment) and ``unit_effect`` (chain, draw,
        row[, contrast]): means among people of the same class and with the same values of what
        precedes the treatment, averaged over the classes that the row may belong to. They are no
        individual effects: the attribute ``text`` says why. The attribute ``identified`` is 0 where graph
        and rows leave any of this open, ``weakly_identified`` is 1 where class labels switch; ``text`` then
        says what that means. With covariates all of this is given the row's own, and ``extrapolated`` (row)
        is 1 where one of them lies outside the values that the result was learnt from. Numbers that outcomes
        are averaged over (missing ones, and those between treatment and outcome) are stood for by 512
        quasi-random values, which is exact where normal numbers enter linearly; else the error is about
        0.001 SD of averaged probabilities, 0.01 SD of exponentials.

    Raises
    ------
    RefusedError
        If the result holds no tables, or a row misses too many variables with observed children, or a
        number with an observed child.
    DataError
        If a value is no level of its variable, or a covariate is missing or has a new text value.

    Examples
    --------
    >>> from pymc_mte import estimate, load_model, population
    >>> model = load_model("gallery:level3")
    >>> found = predict(estimate(model, population(model)), {"z": [0, 1], "x": [0, 1]})
    >>> found["class_probability"].mean(("chain", "draw")).values.round(2).tolist()
    [[0.9, 0.1], [0.1, 0.9]]
    """
    model, lead, parameters = thinned_draws(post, draws)
    columns, place = distinct(read_rows(new_rows, model, covariate_means_of(model, post)))
    n_draws, n = len(parameters["class_weight"]), len(place)
    shares = np.empty((n_draws, len(next(iter(columns.values()))), model.classes))
    outcome = None if model.treatment is None else np.empty((*shares.shape[:2], len(model.arms)))
    for block in blocks(model, parameters, columns):
        shares[:, block.rows] = block.class_probability
        if outcome is not None:
            outcome[:, block.rows] = block.outcome
    dims = ("chain", "draw", "row")
    shape = (*lead, n)
    found: dict[str, Any] = {
        "class_probability": ((*dims, "class"), shares[:, place].reshape(*shape, model.classes))
    }
    if outcome is not None:
        by_row = outcome[:, place].reshape(*shape, -1)
        effect = np.stack([by_row[..., b] - by_row[..., a] for b, a in model.contrasts], axis=-1)
        found["unit_potential_outcome"] = ((*dims, "treatment"), by_row)
        many = len(model.contrasts) > 1
        found["unit_effect"] = ((*dims, "contrast"), effect) if many else (dims, effect[..., 0])
    used = {d for names, _ in found.values() for d in names}
    coords = {d: c for d, c in model.coords.items() if d in used} | {"row": np.arange(n)}
    far, by_name = outside(model, post, columns, place)
    if "covariate_ranges" in post.attrs:  # results of older versions do not know
        found["extrapolated"] = ("row", far.astype("int8"))
    out = xr.Dataset(found, coords)
    flags, doubt = doubts(post, model)
    said = (NO_INDIVIDUAL if outcome is not None else "", doubt, extrapolation(far, by_name))
    text = " ".join(part for part in said if part)
    return out.assign_attrs(flags | ({"text": text} if text else {}))


def doubts(post: xr.DataTree, model: CausalModel) -> tuple[dict[str, int], str]:
    """Attributes that say what of a result is identified, and the sentences they call for, if any.

    A result without an identification report is judged by its graph if it is an estimate.
    """
    known = identified_functionals(post)
    if not known and "estimate" in post:
        known = identify(model).identified
    averages = model.treatment is None or carried(known, "arm_mean")
    by_class = ("class_weight", "potential_outcome", "effect", *model.posterior_dims)
    classes, weak = all(carried(known, name) for name in by_class), weakly_identified(post)
    said = [NO_EFFECTS] if not averages else []
    if averages and not classes:
        said.append(NO_CLASSES if model.treatment is None else AVERAGES_ONLY)
    said += [LABELS_SWITCH] if weak else []
    return {"identified": int(averages and classes), "weakly_identified": int(weak)}, " ".join(said)


def outside(
    model: CausalModel, post: xr.DataTree, columns: Columns, place: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Which rows have covariates beyond those that a result was learnt from, and how many by covariate.

    Parameters
    ----------
    model : CausalModel
        The graph.
    post : DataTree
        The result. Without the attribute ``covariate_ranges`` no row counts as outside.
    columns, place : from `read_rows` and `distinct`
        Distinct rows, covariates as deviations from their means, and where among them every row is.
    """
    ranges = json.loads(str(post.attrs.get("covariate_ranges", "{}")))
    means, far, by_name = covariate_means_of(model, post), np.zeros(len(place), dtype=bool), {}
    for name, (low, high) in ranges.items():
        value, slack = columns[name][place] + means[name], ROUNDING * (high - low)
        if (beyond := (value < low - slack) | (value > high + slack)).any():
            by_name[name], far = int(beyond.sum()), far | beyond
    return far, by_name


def extrapolation(far: NDArray[np.bool_], by_name: Mapping[str, int]) -> str:
    """Sentence on rows outside of what was learnt from; empty if there are none."""
    if not far.any():
        return ""
    listed = ", ".join(f"{name} in {n:,}" for name, n in by_name.items())
    return (
        f"{far.sum():,} of {len(far):,} rows have a covariate outside the values that the result was learnt "
        f"from ({listed}): what is said of them follows from the form of the model, not from data."
    )


def thinned_draws(post: xr.DataTree, draws: int) -> tuple[CausalModel, tuple[int, int], Parameters]:
    """Take the model, the numbers of kept chains and draws, and the tables with one leading axis."""
    draws = whole_number("draws", draws)
    model = model_of(post)
    posterior = post["posterior"].to_dataset()
    if model.interventions is not None:
        raise RefusedError("no predictions for a mixture of interventions: it answers with shares of targets")
    if SHIFT in posterior:
        raise RefusedError(
            "no predictions where groups have effects of their own: a new row's group is not asked for yet; "
            "read group_effect of the result, or sample without group_effect"
        )
    if missing := [name for name in model.posterior_dims if name not in posterior]:
        raise RefusedError(
            f"this result (method {post.attrs.get('method', 'unknown')!r}) holds no {missing[0]!r}; "
            "predictions need the tables of the network, so use a posterior or estimate(method='polished')"
        )
    chains, per_chain = posterior.sizes["chain"], posterior.sizes["draw"]
    used = _spread(chains, draws)
    kept = _spread(per_chain, draws // len(used))
    out = {}
    for name, dims in model.posterior_dims.items():
        value = posterior[name].transpose("chain", "draw", *dims).values[used][:, kept]
        out[name] = value.reshape(-1, *value.shape[2:])
    return model, (len(used), len(kept)), out


def _spread(n: int, most: int) -> NDArray[np.int64]:
    """At most so many of ``n`` positions, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(most, n)).round().astype(np.int64))


def covariate_means_of(model: CausalModel, post: xr.DataTree) -> dict[str, float]:
    """Means of the covariates in the rows that a result was learnt from; empty without covariates."""
    if not model.covariates:
        return {}
    if "covariate_means" not in post.attrs:
        raise DataError(
            "this result lacks the attribute 'covariate_means' that `sample` writes; sample again"
        )
    return dict(json.loads(str(post.attrs["covariate_means"])))


def read_rows(new_rows: Any, model: CausalModel, means: Mapping[str, float]) -> Columns:
    """Read rows that may lack columns and values: level numbers (-1 missing) and values (NaN missing).

    Covariates, which must be there, come as deviations from ``means``.
    """
    frame = open_frame(new_rows)
    names = frame.collect_schema().names()
    events = [var.event for var in model.variables.values() if var.event is not None]
    wanted = dict.fromkeys([*model.variables, *events, *model.covariates])
    known = [name for name in wanted if name in names]
    if not set(known) & {*model.variables, *model.covariates}:
        raise DataError(f"the new rows have none of the model's columns {list(model.variables)}; rename them")
    raw = frame.select(known).collect().to_pandas()
    if raw.empty:
        raise DataError("there are no new rows; give at least one")
    columns: Columns = {}
    for name, var in model.variables.items():
        if name not in raw:
            columns[name] = np.full(len(raw), -1 if var.discrete else np.nan)
        elif var.discrete:
            columns[name] = level_codes(raw[name], name, var.labels)[0]
        else:
            columns[name] = allowed_values(number_column(raw[name], name), name, var.spec.values)
        if var.event is not None and name in raw:
            if var.event not in raw:
                raise DataError(
                    f"the new rows have times {name!r} without their events {var.event!r}; add it"
                )
            columns[name] = columns[name] * event_signs(raw[var.event], var.event)
        if var.discrete:
            columns[name] = columns[name].astype(np.int64)
    return columns | (new_covariates(raw, model, means) if model.covariates else {})


def distinct(columns: Columns) -> tuple[Columns, NDArray[np.int64]]:
    """Take the distinct rows, and where among them every row is."""
    matrix = np.column_stack([column.astype(float) for column in columns.values()])
    rows, place = np.unique(matrix, axis=0, return_inverse=True)
    found = {name: rows[:, i].astype(column.dtype) for i, (name, column) in enumerate(columns.items())}
    return found, place.ravel()


def blocks(model: CausalModel, parameters: Parameters, columns: Columns) -> Iterator[Block]:
    """Predict distinct rows, those that lack the same variables together.

    Parameters
    ----------
    model : CausalModel
        The graph.
    parameters : mapping of str to ndarray
        Parameters with one leading axis, the draws.
    columns : dict of str to ndarray
        Distinct rows, from `read_rows` and `distinct`.
    """
    tables = None if model.treatment is None or model.linear_edges else TableOutcomes(model, parameters)
    lacks = np.column_stack([is_missing(column) for column in columns.values()])
    size = max(1, BLOCK // (len(parameters["class_weight"]) * _width(model)))
    masks, which = np.unique(lacks, axis=0, return_inverse=True)
    for m, mask in enumerate(masks):
        missing = {name for name, gone in zip(columns, mask, strict=True) if gone}
        gaps = gaps_of(model, missing)
        means: TableOutcomes | UnitOutcomes | None = tables
        if model.treatment is not None and model.linear_edges:
            means = UnitOutcomes(model, parameters, gaps.averaged, BLOCK)
        rows = np.flatnonzero(which.ravel() == m)
        for part in np.array_split(rows, -(-len(rows) // size)):
            own = {name: column[part] for name, column in columns.items()}
            given = None
            if model.covariates:
                given = np.column_stack([own[name] for name in model.covariate_columns])
            shares, outcome = _predicted(model, parameters, own, given, gaps, means)
            yield Block(rows=part, class_probability=shares, outcome=outcome)


def _width(model: CausalModel) -> int:
    """Numbers that one row takes per draw: classes and arms, with a linear part tables of its own."""
    arms = 1 if model.treatment is None else len(model.arms)
    tables = [1]
    for name in model.regressed:
        var = model.variables[name]
        tables.append(math.prod(model.size(v) for v in (*var.parents, *([name] if var.discrete else []))))
    return model.classes * max(arms, *tables)


def _predicted(
    model: CausalModel,
    parameters: Parameters,
    columns: Columns,
    covariates: Array | None,
    gaps: Gaps,
    means: TableOutcomes | UnitOutcomes | None,
) -> tuple[Array, Array | None]:
    """Class probabilities (draws, rows, classes) and outcomes (draws, rows, arms), same gaps in all rows.

    Combinations of missing levels are added up one by one, so that memory does not grow with their number.
    """
    draws, n = len(parameters["class_weight"]), len(next(iter(columns.values())))
    top = np.full((draws, 1, n), np.finfo(float).min)
    joint = np.zeros((draws, model.classes, n))
    total = np.zeros((draws, n, len(model.arms))) if means is not None else None
    for at in combinations(model, gaps.enumerated):
        own = _filled(columns, dict(zip(gaps.enumerated, at, strict=True)))
        log_p = log_joint_given(model, parameters, own, covariates, gaps.used)
        higher = np.maximum(top, log_p.max(axis=-2, keepdims=True))
        scale, weight = np.exp(top - higher), np.exp(log_p - higher)
        joint, top = joint * scale + weight, higher
        if means is not None:
            total = total * scale[:, 0, :, None] + (weight[..., None] * means.at(own, covariates)).sum(axis=1)
    whole = joint.sum(axis=-2)
    shares = np.moveaxis(joint / whole[..., None, :], 1, 2)
    return shares, None if total is None else total / whole[..., None]


def _filled(columns: Columns, levels: Mapping[str, int]) -> Columns:
    return columns | {name: np.full_like(columns[name], level) for name, level in levels.items()}
