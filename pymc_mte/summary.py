"""Tables of answers: label-free quantities first, 90% intervals throughout."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from pymc_mte.errors import ModelError
from pymc_mte.moments.intervals import bias_corrected_interval, percentile_interval
from pymc_mte.results import INTERVAL, identified_functionals, labels, model_of

LABEL_FREE = ("ate", "att", "ate_bridge", "att_bridge", "arm_mean", "effect_sd")
WORDS = {
    "ate": "average effect",
    "att": "effect on treated",
    "ate_bridge": "average, bridge",
    "att_bridge": "on treated, bridge",
    "arm_mean": "mean under",
    "effect_sd": "effect SD",
    "weight_harmed": "weight harmed",
    "effect": "effect,",
    "class_weight": "weight,",
    "potential_outcome": "mean,",
    "target_weight": "share,",
}
"""Functionals in words, for terminal and figures."""

PRIOR_DRIVEN = (
    "graph and data do not decide this answer (different values fit alike, however many rows there are), "
    "so the prior and the chosen families do"
)
"""What it means that ``identified`` is False."""

MAX_SWITCHING = 0.01
"""Share of draws with other labels than their chain's, above which no class is reported by its label."""

WEAKLY_IDENTIFIED = (
    "classes change places inside chains, so they are weakly identified: only quantities that need no "
    "labels are shown"
)

TARGETS = ("target_weight",)
BY_CLASS = ("class_weight", "effect", "potential_outcome")
TAIL = (1 - INTERVAL) / 2
INTERVALS = ("percentile", "bias_corrected")


def words(label: str) -> str:
    """Turn a label such as ``effect[class 0]`` into a phrase."""
    name, _, inside = label.partition("[")
    return f"{WORDS.get(name, name)} {inside.removesuffix(']')}".strip()


def is_identified(tree: xr.DataTree, label: str) -> bool:
    """Whether likelihood and data carry an entry, by the identification report that is kept with draws."""
    return carried(identified_functionals(tree), label)


def carried(known: Mapping[str, bool], label: str) -> bool:
    """Whether an entry counts as identified, given the flags of the functionals."""
    name = label.partition("[")[0]
    needed = ("arm_mean", "ate") if name == "arm_mean" else (name,)  # an arm without positivity costs the ATE
    return all(known.get(part, True) for part in needed)


def moment_summary(
    tree: xr.DataTree, *, interval: Literal["percentile", "bias_corrected"] = "percentile"
) -> pd.DataFrame:
    """Tabulate a moment estimate: value, robust bootstrap standard error, 90% interval.

    ``weight_harmed`` is left out: with equal effects in all classes it is noise, so read it from the
    results only together with the test of equal effects.

    Parameters
    ----------
    tree : DataTree
        From `estimate`.
    interval : {"percentile", "bias_corrected"}
        Percentiles of the replicates, or Efron's bias-corrected ones. Both cover alike in the
        benchmarks; the first is printed, because it is the simpler.

    Returns
    -------
    pandas.DataFrame
        Columns value, se, lower, upper. For a mixture of interventions also ``selected`` (the data
        speak for the target) and ``at_least``, ``at_most``: bounds that need no excluded values; for a
        linear network ``present``, the probability that the target is there.

    Raises
    ------
    ModelError
        If the interval is unknown.
    """
    if interval not in INTERVALS:
        raise ModelError(f"interval is one of {', '.join(INTERVALS)}, got {interval!r}")
    point, draws = tree["estimate"].to_dataset(), tree["posterior"].to_dataset()
    rows = []
    for name in (*LABEL_FREE, *BY_CLASS, *TARGETS):
        if name not in point:
            continue
        for label, index in _entries(tree, point, name):
            replicates, value = draws[name].values[(..., *index)].ravel(), point[name].values[index]
            if interval == "percentile":
                low, high = percentile_interval(replicates, INTERVAL)
            else:
                low, high = bias_corrected_interval(replicates, value, INTERVAL)
            se = float(point[f"se_{name}"].values[index]) if f"se_{name}" in point else np.nan
            row = {"functional": label, "value": float(value)}
            rows.append(row | {"se": se, "lower": low, "upper": high})
    table = pd.DataFrame(rows).set_index("functional")
    return table if "target" not in point.dims else table.join(_bounded(point, table.index))


def _entries(tree: xr.DataTree, answer: xr.Dataset, name: str) -> list[tuple[str, tuple[Any, ...]]]:
    """Labels and indices of the entries of a functional; targets are labelled by the answer itself."""
    if name not in TARGETS:
        return labels(model_of(tree), name)
    return [(f"{name}[{label}]", (i,)) for i, label in enumerate(answer["target"].values)]


def _bounded(point: xr.Dataset, index: "pd.Index[str]") -> pd.DataFrame:
    """Whether each target is selected, and the bounds of its share without excluded values."""
    if "weight_lower" not in point:
        columns = {"selected": point["selected"].values.astype(bool)}
        columns |= {"present": point["inclusion_probability"].values}
        return pd.DataFrame(columns, index=index)
    bounds = point[["weight_lower", "weight_upper"]].reindex(candidate=point["target"].values)
    columns = {
        "selected": point["selected"].values.astype(bool),
        "at_least": bounds["weight_lower"].values,
        "at_most": bounds["weight_upper"].values,
    }
    return pd.DataFrame(columns, index=index)


def posterior_summary(tree: xr.DataTree) -> pd.DataFrame:
    """Tabulate a posterior: mean, sd, 90% equal-tailed interval, R-hat and effective draws.

    ``weight_harmed`` is left out: with equal effects in all classes it is noise, so read it from the
    results only together with the test of equal effects.

    Parameters
    ----------
    tree : DataTree
        From `sample`.

    Returns
    -------
    pandas.DataFrame
        Columns mean, sd, lower, upper, r_hat, ess (both missing for an approximation) and identified:
        False where likelihood or data do not carry the answer, so that the prior decides it.
        ``contraction`` is the share of the prior's variance that the data removed (0: nothing learnt),
        ``diagnosis`` what ArviZ's power-scaling says: ok, prior-data conflict, strong prior / weak
        likelihood, weak likelihood, or not checked.
        For a mixture of interventions also ``present``: the probability that the target's share is
        above 0.01. Where classes change places inside chains (in more than 1% of the draws) they are
        weakly identified: ``attrs["weakly_identified"]`` says so, and only label-free quantities are
        listed; without a treatment, the class weights by rank, the largest first. Where draws were
        resampled by the weights of separate modes, R-hat is the worst within a mode.
    """
    import arviz as az

    draws, weak = tree["posterior"].to_dataset(), weakly_identified(tree)
    names = [n for n in (*LABEL_FREE, *(() if weak else BY_CLASS)) if n in draws]
    if model_of(tree).treatment is None:
        names = ["class_weight"] if "class_weight" in draws else list(TARGETS)
        draws = _by_rank(draws) if weak else draws
    approximate = tree["posterior"].attrs.get("kind") == "approximation"  # chains cannot disagree
    varying = [n for n in names if np.ptp(draws[n].values) > 0 and not approximate]
    learnt, within = _learnt(tree), _within_modes(tree)
    with np.errstate(invalid="ignore"):  # entries that never vary have no R-hat
        rhat, ess = (az.rhat(draws[varying]), az.ess(draws[varying])) if varying else ({}, {})
    rows = []
    for name in names:
        for label, index in _entries(tree, draws, name):
            values = draws[name].values[(..., *index)]
            low, high = np.quantile(values, [TAIL, 1 - TAIL])
            row: dict[str, object] = {"functional": label, "mean": values.mean(), "sd": values.std(ddof=1)}
            row |= {"lower": low, "upper": high}
            for key, found in (("r_hat", rhat), ("ess", ess)):
                row[key] = float(found[name].values[index]) if name in varying else np.nan
            row |= within.get(label, {})
            row["identified"] = is_identified(tree, label)
            row["contraction"], row["diagnosis"] = learnt.get(label, (np.nan, "not checked"))
            if name in TARGETS:
                known = tree["targets"].to_dataset().isel(target=index[0])
                row["present"] = float(known["inclusion_probability"])
                row["identified"] = bool(known["identified"])
            if weak and name == "class_weight":
                row |= {"functional": f"class_weight[rank {index[0] + 1}]", "contraction": np.nan}
                row["diagnosis"] = "not checked"
            rows.append(row)
    table = pd.DataFrame(rows).set_index("functional")
    if weak:
        table.attrs["weakly_identified"] = WEAKLY_IDENTIFIED
    return table


def weakly_identified(tree: xr.DataTree) -> bool:
    """Whether labels of classes are too unsure to report anything by them."""
    return float(tree.attrs.get("switching_share", 0.0)) > MAX_SWITCHING and model_of(tree).classes > 1


def _by_rank(draws: xr.Dataset) -> xr.Dataset:
    """Sort the class weights of every draw, the largest first."""
    weight = draws["class_weight"]
    return draws[["class_weight"]].assign(class_weight=weight.copy(data=-np.sort(-weight.values, axis=-1)))


def _within_modes(tree: xr.DataTree) -> dict[str, dict[str, object]]:
    """R-hat and effective draws inside the modes, where the draws are a mixture of separate ones."""
    if "modes" not in tree or "r_hat" not in tree["modes"]:
        return {}
    kept = tree["modes"].to_dataset()
    columns = (kept[n].values.tolist() for n in ("entry", "r_hat", "ess"))
    return {label: {"r_hat": rhat, "ess": ess} for label, rhat, ess in zip(*columns, strict=True)}


def _learnt(tree: xr.DataTree) -> dict[str, tuple[float, str]]:
    """Contraction and diagnosis of every entry that `sample` has compared with its prior."""
    if "identification" not in tree or "contraction" not in tree["identification"]:
        return {}
    kept = tree["identification"].to_dataset()
    columns = (kept[n].values.tolist() for n in ("entry", "contraction", "diagnosis"))
    return {label: (removed, said) for label, removed, said in zip(*columns, strict=True)}
