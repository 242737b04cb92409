"""Moments against the posterior, and models against models."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.alignment import match_classes, take_classes
from pymc_mte.bayes.groups import pattern_log_likelihood
from pymc_mte.data import canonical_order
from pymc_mte.errors import DataError
from pymc_mte.functionals import functionals
from pymc_mte.hierarchy import hierarchy
from pymc_mte.moments.bootstrap import replicate, robust_se
from pymc_mte.moments.likelihood import fit_likelihood, refit
from pymc_mte.moments.methods import Values, bridge_values, spectral_values
from pymc_mte.moments.positivity import PER_ARM, arm_support, failing_arms, refused_mask
from pymc_mte.moments.problem import Problem, problem_of
from pymc_mte.results import INTERVAL, dims_of, identified_functionals, labels, model_of

Array = NDArray[np.float64]

TAIL = (1 - INTERVAL) / 2
Z_LIMIT = 2.6
"""A difference beyond this many standard errors has a two-sided p-value of 0.009."""

COMPARED = ("ate", "att", "effect_sd", "effect", "class_weight", "potential_outcome")
"""Functionals in the table, label-free ones first."""

NOT_SMOOTH = frozenset({"effect_sd"})
"""Functionals whose sampling error is not normal near equal effects: shown, not tested."""

CLASS_AXES = {"class_weight": 1, "effect": 1, "potential_outcome": 1}


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
    bootstrap: in every resample the moment estimate and the maximum-likelihood fit of the
    posterior's graph are computed together.

    Parameters
    ----------
    posterior : DataTree
        From `sample`.
    estimate : DataTree
        From `estimate`, on the same data.
    n_boot : int
        Paired resamples.
    rng : int or numpy.random.Generator
        Source of the resamples.

    Returns
    -------
    pandas.DataFrame
        One row per functional: posterior ``mean``, ``sd``, ``lower``, ``upper`` (90% equal-tailed);
        ``spectral`` and ``bridge`` with standard errors; ``ml`` (maximum likelihood), ``z`` (moment
        minus ml in standard errors of that difference), ``prior_pull`` (posterior mean minus ml, in
        posterior SDs; never a test), ``identified`` and a ``verdict`` in words. Bridge and spectral
        values are computed anew, whatever the method of ``estimate``.

    Raises
    ------
    DataError
        If the two results come from different models or data.
    """
    model = model_of(posterior)
    _check_same(posterior, estimate)
    table = posterior["observed_data"].to_dataset()
    problem = problem_of(model, table, interactions=bool(estimate.attrs.get("interactions", False)))
    draws = posterior["posterior"].to_dataset()
    identified = identified_functionals(posterior)
    statistic = _Both(problem, draws)
    point = statistic(problem.counts[None])
    reps = replicate(problem.sampling, n_boot, np.random.default_rng(rng), statistic)
    rows = []
    for name in (n for n in COMPARED if n in draws):
        refused = _refused_entries(problem, name)
        for label, index in labels(model, name):
            row = _posterior_part(draws[name].values[(..., *index)])
            row |= _moment_part(name, index, point, reps, refused(index))
            row |= _given_errors(estimate, name, index, row)
            row["prior_pull"] = (row["mean"] - row["ml"]) / row["sd"] if row["sd"] > 0 else np.nan
            row["identified"] = identified.get(name, True) and not refused(index)
            row["verdict"] = _verdict(name, row)
            rows.append({"functional": label, **row})
    return pd.DataFrame(rows).set_index("functional")


class _Both:
    """Moment estimates and the maximum-likelihood fit of the same resamples, aligned to the posterior."""

    def __init__(self, problem: Problem, draws: xr.Dataset) -> None:
        self.problem, self.model = problem, problem.model
        self.level = hierarchy(problem.model).level
        self.usable = min(problem.z.values.shape[1], problem.x.values.shape[1]) >= problem.model.classes
        weight = draws["class_weight"].mean(("chain", "draw")).values
        outcome = draws["potential_outcome"].mean(("chain", "draw")).values
        self.pivot = self._profile(weight[None], outcome[None])[0]
        self.ml = fit_likelihood(problem)[0]

    def __call__(self, counts: Array) -> Values:
        """Compute all estimates: names prefixed by ``spectral_``, ``bridge_`` or ``ml_``."""
        out: Values = {}
        fitted = refit(self.problem, counts, self.ml).parameters
        likelihood = {"class_weight": fitted["class_weight"], **functionals(self.model, fitted)}
        out |= {f"ml_{n}": v for n, v in self._aligned(likelihood).items() if n in COMPARED}
        if self.usable and self.level in ("mixture", "MTE"):
            values = self._aligned(spectral_values(self.problem, counts))
            out |= {f"spectral_{n}": v for n, v in values.items() if n in COMPARED}
        if self.usable and self.level in ("mixture", "MTE", "ATE"):
            values = bridge_values(self.problem, counts)
            out |= {f"bridge_{n}": v for n, v in values.items() if n in COMPARED}
        return out

    def _profile(self, weight: Array, outcome: Array) -> Array:
        return np.concatenate([weight[..., None], outcome / self.problem.outcome_sd], axis=-1)

    def _aligned(self, values: Values) -> Values:
        order, _ = match_classes(
            self._profile(values["class_weight"], values["potential_outcome"]), self.pivot
        )
        return {n: take_classes(v, order, CLASS_AXES[n]) if n in CLASS_AXES else v for n, v in values.items()}


def _check_same(posterior: xr.DataTree, estimate: xr.DataTree) -> None:
    if posterior.attrs.get("model") != estimate.attrs.get("model"):
        raise DataError("the two results come from different models; estimate and sample the same one")
    if posterior.attrs.get("fingerprint") != estimate.attrs.get("fingerprint"):
        raise DataError(
            f"the two results come from different data ({posterior.attrs.get('n'):g} and "
            f"{estimate.attrs.get('n'):g} rows); use the same rows for both"
        )


def _refused_entries(problem: Problem, name: str) -> Callable[[tuple[Any, ...]], bool]:
    """Say per entry whether positivity forbids it (see `pymc_mte.moments.positivity`)."""
    model = problem.model
    mask = refused_mask(model, name, failing_arms(model, arm_support(model, problem.columns, problem.counts)))
    axis, dims = "treatment" if name in PER_ARM else "contrast", dims_of(model)[name]
    if mask.ndim and axis in dims:
        place = dims.index(axis)
        return lambda index: bool(mask[index[place]])
    return lambda index: bool(mask.any())


def _posterior_part(values: Array) -> dict[str, Any]:
    low, high = np.quantile(values, [TAIL, 1 - TAIL])
    return {"mean": values.mean(), "sd": values.std(ddof=1), "lower": low, "upper": high}


def _moment_part(
    name: str, index: tuple[Any, ...], point: Values, reps: Values, refused: bool
) -> dict[str, Any]:
    """Moment columns of one row; the spectral estimate is tested where there is one, else the bridge."""
    out: dict[str, Any] = {}
    for method in ("spectral", "bridge"):
        key = f"{method}_{name}"
        known = key in point and not refused
        out[method] = float(point[key][(0, *index)]) if known else np.nan
        out[f"{method}_se"] = float(robust_se(reps[key][(slice(None), *index)])) if known else np.nan
    out["ml"] = float(point[f"ml_{name}"][(0, *index)])
    out["z"] = np.nan
    for method in ("spectral", "bridge"):
        if np.isfinite(out[method]) and name not in NOT_SMOOTH:
            gap = reps[f"{method}_{name}"] - reps[f"ml_{name}"]
            se = float(robust_se(gap[(slice(None), *index)]))
            scale = max(abs(out["ml"]), out[f"{method}_se"], 1e-300)
            out["z"] = (out[method] - out["ml"]) / se if se > 1e-7 * scale else np.nan
            break
    return out


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


def _verdict(name: str, row: dict[str, Any]) -> str:
    if not row["identified"]:
        return "not identified: the prior decides"
    if not np.isfinite(row["spectral"]) and not np.isfinite(row["bridge"]):
        return "no moment estimate to test"
    if name in NOT_SMOOTH:
        return "not tested"
    if not np.isfinite(row["z"]):
        return "no test possible: both coincide"
    return "agree" if abs(row["z"]) <= Z_LIMIT else "differ: an assumption behind one of them fails"


def loo(posterior: xr.DataTree) -> Any:
    """Leave-one-row-out predictive accuracy, computed per pattern and weighted by counts.

    Parameters
    ----------
    posterior : DataTree
        From `sample`.

    Returns
    -------
    arviz ELPDData
        Equal to row-wise PSIS-LOO, at the memory of patterns.
    """
    model, table = model_of(posterior), posterior["observed_data"].to_dataset()
    draws = posterior["posterior"].to_dataset()
    if "log_likelihood_pattern" in posterior:
        log_p = posterior["log_likelihood_pattern"].to_dataset()["log_p"]
    else:
        log_p = pattern_log_likelihood(model, draws, table)
    order = canonical_order(model, table)
    log_p, count = log_p.isel(pattern=order), table["count"].values[order].astype(int)
    log_p, count = log_p.isel(pattern=count > 0), count[count > 0]
    small = xr.DataTree.from_dict(
        {
            "posterior": draws[["class_weight" if "class_weight" in draws else "target_weight"]],
            "log_likelihood": xr.Dataset({"row": log_p.astype(float)}),
        }
    )
    per_pattern = az.loo(small, pointwise=True)
    flat = log_p.values.reshape(-1, len(count))
    lpd = np.logaddexp.reduce(flat, axis=0) - np.log(len(flat))
    each = np.repeat(per_pattern.elpd_i.values, count)
    return dataclasses.replace(
        per_pattern,
        elpd=each.sum(),
        se=np.sqrt(len(each) * each.var(ddof=1)),
        p=(count * (lpd - per_pattern.elpd_i.values)).sum(),
        n_data_points=len(each),
        elpd_i=xr.DataArray(each, dims="row"),
        pareto_k=xr.DataArray(np.repeat(per_pattern.pareto_k.values, count), dims="row"),
    )


def compare_models(posteriors: Mapping[str, xr.DataTree]) -> pd.DataFrame:
    """Rank models by leave-one-row-out predictive accuracy, through ArviZ.

    Parameters
    ----------
    posteriors : mapping of str to DataTree
        Results of `sample` on the same rows, by name.

    Returns
    -------
    pandas.DataFrame
        As from `arviz.compare`: rank, elpd, differences with standard errors, stacking weights.
    """
    if len({tree.attrs.get("fingerprint") for tree in posteriors.values()}) > 1:
        sizes = {name: tree.attrs.get("n") for name, tree in posteriors.items()}
        raise DataError(
            f"models can be compared on the same rows and columns only; these saw {sizes} rows of "
            "different data, columns or levels"
        )
    table: pd.DataFrame = az.compare({name: loo(tree) for name, tree in posteriors.items()})
    return table
