"""Moments against the posterior."""

from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.alignment import match_classes
from pymc_mte.data import has_missing
from pymc_mte.errors import DataError, RefusedError, whole_number
from pymc_mte.ladder import LEAST_BOOT, joint_tests, verdict
from pymc_mte.model import CausalModel
from pymc_mte.moments.ladder import Ladder, class_profile, climb_ladder, refused_entries
from pymc_mte.moments.problem import Problem, problem_of
from pymc_mte.randomness import as_generator
from pymc_mte.results import INTERVAL, identified_functionals, labels, model_of
from pymc_mte.summary import BY_CLASS

Array = NDArray[np.float64]

TAIL = (1 - INTERVAL) / 2
COMPARED = ("ate", "att", "effect_sd", "effect", "class_weight", "potential_outcome")
"""Functionals in the table, label-free ones first."""

PROFILE = ("class_weight", "potential_outcome")
"""What classes of the posterior and of the rungs are matched by."""

NOT_SMOOTH = frozenset({"effect_sd"})
"""Functionals whose sampling error is not normal near equal effects: shown, not tested."""


def compare(
    posterior: xr.DataTree,
    estimate: xr.DataTree,
    *,
    n_boot: int = 100,
    rng: int | np.random.Generator = 0,
) -> pd.DataFrame:
    """Put posterior and moment estimates side by side and test their difference.

    The moment side is the bridge and the spectral estimate, never a likelihood fit of the same
    graph. All answers use the same rows, so the standard error of a difference comes from a paired
    bootstrap: in every replicate the moment estimates and the maximum-likelihood fit of the
    posterior's graph see the same counts (see `pymc_mte.moments.ladder.climb_ladder`).

    Parameters
    ----------
    posterior : DataTree
        From `sample`.
    estimate : DataTree
        From `estimate`, on the same data.
    n_boot : int
        Paired replicates, at least 20.
    rng : int or numpy.random.Generator
        Source of the resamples.

    Returns
    -------
    pandas.DataFrame
        One row per functional: posterior ``mean``, ``sd``, ``lower``, ``upper`` (90% equal-tailed);
        ``spectral`` and ``bridge`` with standard errors; ``ml`` (maximum likelihood), ``z`` (moment
        minus ml in standard errors of that difference), ``z_bridge_spectral``, ``z_bridge_ml`` (the
        other pairs of rungs), ``prior_pull`` (influence of the prior: posterior mean minus ml, in
        posterior SDs; never a test), ``contraction`` (share of the prior's variance that the data
        removed), ``identified`` and a ``verdict`` in words. Bridge and spectral values are computed
        anew, whatever the method of ``estimate``. ``attrs["tests"]`` and ``attrs["says"]``: one joint
        Hausman-type test per pair of rungs, as records and in sentences, see `pymc_mte.ladder`. With
        covariates or linear parents there is no test: the values of ``estimate`` stand beside the posterior.

    Raises
    ------
    DataError
        If the two results come from different models or data.
    RefusedError
        Where missing values were summed out, or times are censored.
    """
    n_boot = whole_number("n_boot", n_boot, LEAST_BOOT)
    model, generator = model_of(posterior), as_generator(rng)
    _check_same(posterior, estimate)
    if "observed_data" not in posterior:
        raise RefusedError("compare needs a posterior with its rows given first; this result has none")
    table = posterior["observed_data"].to_dataset()
    if reason := why_not_comparable(model, table):
        raise RefusedError(reason)
    draws = posterior["posterior"].to_dataset()
    identified, contraction = identified_functionals(posterior), _contractions(posterior)
    problem = problem_of(model, table, interactions=bool(estimate.attrs.get("interactions", False)))
    mean = {n: draws[n].mean(("chain", "draw")).values[None] for n in PROFILE}
    pivot = class_profile(problem, mean)[0]
    if model.covariates or model.linear_edges:
        found = _given(estimate)
    else:
        found = climb_ladder(problem, n_boot, generator, pivot=pivot)
    own = _own_classes(problem, estimate, pivot)
    tests = joint_tests(problem, found)
    blind = {test["rungs"] for test in tests["tests"] if test["verdict"] == "no power here"}
    rows = []
    for name in (n for n in COMPARED if n in draws):
        refused = refused_entries(problem, name)
        for label, index in labels(model, name):
            row = _posterior_part(draws[name].values[(..., *index)])
            row |= _moment_part(name, label, index, found, refused(index))
            theirs = (own[index[0]], *index[1:]) if name in BY_CLASS else index
            row |= _given_errors(estimate, name, theirs, row)
            row["prior_pull"] = (row["mean"] - row["ml"]) / row["sd"] if row["sd"] > 0 else np.nan
            row["contraction"] = contraction.get(label, np.nan)
            row["identified"] = identified.get(name, True) and not refused(index)
            rung = "spectral" if np.isfinite(row["spectral"]) else "bridge"
            row["verdict"] = _verdict(name, row, f"{rung} - ml" in blind)
            rows.append({"functional": label, **row})
    out = pd.DataFrame(rows).set_index("functional")
    out.attrs.update(tests)
    return out


def why_not_comparable(model: CausalModel, table: xr.Dataset) -> str | None:
    """Sentence that says why posterior and moments cannot be set side by side; None if they can."""
    if has_missing(model, table):
        return "compare needs whole rows: moments cannot use the rows whose missing values were summed out"
    if model.censored:
        return f"compare needs means of {model.outcome!r}, and moments cannot see those of censored times"
    return None


def _check_same(posterior: xr.DataTree, estimate: xr.DataTree) -> None:
    if posterior.attrs.get("model") != estimate.attrs.get("model"):
        raise DataError("the two results come from different models; estimate and sample the same one")
    if posterior.attrs.get("fingerprint") != estimate.attrs.get("fingerprint"):
        raise DataError(
            f"the two results come from different data ({posterior.attrs.get('n'):g} and "
            f"{estimate.attrs.get('n'):g} rows); use the same rows for both"
        )


def _given(estimate: xr.DataTree) -> Ladder:
    """Take a moment estimate as it is: no fit without a prior takes covariates or linear parents."""
    point = estimate["estimate"].to_dataset()
    kinds = {"": str(estimate.attrs["method"]), "_bridge": "bridge"}
    values, se = {}, {}
    for name, (ending, method) in product(COMPARED, kinds.items()):
        key = f"{name}{ending}"
        if key in point and method in ("bridge", "spectral"):
            values[f"{method}_{name}"] = np.asarray(point[key].values)[None]
            if f"se_{key}" in point:
                se[f"{method}_{name}"] = np.asarray(point[f"se_{key}"].values)
    return Ladder(values=values, se=se, gaps=(), simulated=False, point={})


def _posterior_part(values: Array) -> dict[str, Any]:
    low, high = np.quantile(values, [TAIL, 1 - TAIL])
    return {"mean": values.mean(), "sd": values.std(ddof=1), "lower": low, "upper": high}


def _moment_part(
    name: str, label: str, index: tuple[Any, ...], found: Ladder, refused: bool
) -> dict[str, Any]:
    """Moment columns of one row; the spectral estimate is tested where there is one, else the bridge."""
    out: dict[str, Any] = {}
    for method in ("spectral", "bridge"):
        key = f"{method}_{name}"
        known = key in found.values and not refused
        out[method] = float(found.values[key][(0, *index)]) if known else np.nan
        out[f"{method}_se"] = float(found.se[key][index]) if known and key in found.se else np.nan
    ml = found.values.get(f"ml_{name}")
    out["ml"] = np.nan if ml is None else float(ml[(0, *index)])
    z = {gap.rungs: gap.z[place] for gap in found.gaps for place in gap.places(label)}
    first = "spectral" if np.isfinite(out["spectral"]) else "bridge"
    out["z"] = z.get((first, "ml"), np.nan)
    out["z_bridge_spectral"] = z.get(("bridge", "spectral"), np.nan)
    out["z_bridge_ml"] = z.get(("bridge", "ml"), np.nan)
    return out


def _own_classes(problem: Problem, estimate: xr.DataTree, pivot: Array) -> list[int]:
    """Which class of the estimate plays each class of the posterior."""
    point = estimate["estimate"].to_dataset()
    if not all(n in point and np.isfinite(point[n].values).all() for n in PROFILE):
        return list(range(len(pivot)))  # no answers by class, so no errors of any
    profile = class_profile(problem, {n: point[n].values[None] for n in PROFILE})
    return [int(k) for k in match_classes(profile, pivot)[0][0]]


def _given_errors(
    estimate: xr.DataTree, name: str, index: tuple[Any, ...], row: dict[str, Any]
) -> dict[str, float]:
    """Take the estimate's own standard errors, from more resamples than the paired ones."""
    point = estimate["estimate"].to_dataset()
    keys = {"spectral_se": f"se_{name}", "bridge_se": f"se_{name}_bridge"}
    if estimate.attrs["method"] != "spectral":
        keys.pop("spectral_se")
    return {
        column: float(point[key].values[index])
        for column, key in keys.items()
        if key in point and np.isfinite(row[column])
    }


def _contractions(posterior: xr.DataTree) -> dict[str, float]:
    """Posterior contraction by entry, where the result carries it."""
    if "identification" not in posterior or "contraction" not in posterior["identification"]:
        return {}
    found = posterior["identification"].to_dataset()["contraction"]
    return {str(name): float(value) for name, value in zip(found["entry"].values, found.values, strict=True)}


def _verdict(name: str, row: dict[str, Any], blind: bool) -> str:
    if not row["identified"]:
        return "not identified: the prior decides"
    if not np.isfinite(row["spectral"]) and not np.isfinite(row["bridge"]):
        return "no moment estimate to test"
    if name in NOT_SMOOTH or not np.isfinite(row["ml"]):
        return "not tested"
    said = verdict(row["z"])
    return "no power here" if said == "agree" and blind else said
