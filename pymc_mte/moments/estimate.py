"""`estimate`: moment estimates with bootstrap uncertainty, labelled like a posterior."""

import json
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.data import data_notes, fingerprint, resolve
from pymc_mte.errors import ModelError, whole_number
from pymc_mte.functionals import effect_grid
from pymc_mte.hierarchy import hierarchy
from pymc_mte.model import CausalModel
from pymc_mte.modelfile import need_model
from pymc_mte.moments.answers import class_answers
from pymc_mte.moments.averages import BRIDGES, Bridge, average_errors, average_values, robust_set
from pymc_mte.moments.bootstrap import RESAMPLES, Resample, robust_se
from pymc_mte.moments.checks import Check
from pymc_mte.moments.choice import choose_method
from pymc_mte.moments.classes import choose_class_method, lacks_proxies
from pymc_mte.moments.groups import LEVEL, causal_groups, equal_effects
from pymc_mte.moments.interventions.estimate import estimate_targets
from pymc_mte.moments.interventions.linear_estimate import estimate_linear
from pymc_mte.moments.joint import Proxies, with_proxies
from pymc_mte.moments.methods import METHODS, QUANTILES, Values
from pymc_mte.moments.problem import Problem, problem_of
from pymc_mte.moments.rank import measure_ranks
from pymc_mte.moments.rank_report import rank_attrs, rank_notes
from pymc_mte.moments.refusals import check_ranges, refuse_unsupported
from pymc_mte.moments.replicates import point_and_replicates
from pymc_mte.moments.strata import Stratum, split, support_by_stratum
from pymc_mte.randomness import as_generator
from pymc_mte.results import dataset, provenance
from pymc_mte.status import Note, Status, dump_notes

Array = NDArray[np.float64]

N_CHAINS = 4
"""Replicates are laid out in this many chains, as draws are."""


def estimate(
    model: CausalModel,
    data: Any = None,
    *,
    method: str = "auto",
    bridge: Bridge = "outcome",
    interactions: bool = False,
    proxies: Proxies = "independent",
    base: Any = None,
    n_boot: int = 400,
    resample: Resample = "multinomial",
    rng: int | np.random.Generator = 0,
) -> xr.DataTree:
    """Estimate the mixture of treatment effects, average effects, or a mixture without treatment.

    For a model with interventions: the targets and their shares, see
    `pymc_mte.moments.interventions.estimate.estimate_targets` and, for linear Gaussian networks,
    `pymc_mte.moments.interventions.linear_estimate.estimate_linear`.

    Parameters
    ----------
    model : CausalModel
        A model that names treatment, outcome and proxies on both sides; or one without proxies or
        treatment, which is a mixture of repeated draws (one binomial variable), of products (no
        edges) or of networks.
    data : tabulated Dataset, dataframe, mapping or path, optional
        The rows; the model's own data file by default.
    method : {"auto", "bridge", "pencil", "prony", "spectral", "network", "unzip", "polished"}
        ``bridge`` gives averages only; ``pencil`` and ``prony`` are the papers'; ``spectral`` truncates
        to the rank K first; ``polished`` climbs the graph's likelihood from there. ``auto`` takes
        the bridge when the graph reaches averages only or an arm lacks positivity, ``polished``
        when all variables are discrete (or there is one class), else ``spectral``. Without
        proxies: ``pencil`` and ``prony`` for repeated draws, ``spectral`` for products, ``network``
        (total probability) and ``unzip`` for networks, ``polished`` (``auto``) for all.
    bridge : {"outcome", "treatment", "both", "two-stage"}
        For ``method="bridge"``: the outcome bridge, the treatment bridge, the doubly robust
        combination (all at rank K), or two-stage least squares, which assumes one effect for
        everybody and uses every proxy linearly, in all directions. All are linear in covariates. The last
        three give no effect on the treated.
    interactions : bool
        Whether the moments also use products of the features of any two proxies of one side.
    proxies : {"independent", "joint"}
        For ``method="polished"``: discrete proxies of a side are independent given the class (and their
        parents), or have any joint distribution; the attribute ``model`` then has the added edges.
    base : tabulated Dataset, dataframe, mapping or path, optional
        For a model with interventions: rows of the untouched network.
    n_boot : int
        Bootstrap replicates, a multiple of 4; 0 for none.
    resample : {"multinomial", "bayesian"}
        Rows (or whole clusters) redrawn with replacement, or given the Bayesian bootstrap's weights.
    rng : int or numpy.random.Generator
        Source of the resamples.

    Returns
    -------
    xarray.DataTree
        Group ``estimate``: point values, ``se_*`` (robust bootstrap standard errors) and, for the
        bridge, ``se_delta_*``; the attribute ``ate_robust_set`` holds its 90% confidence set that
        weak proxies do not spoil (two classes and arms; intervals as JSON, ends may be infinite). Group
        ``posterior``: replicates (chain, draw), aligned to the point. Attributes: ``method``,
        ``notes`` (statuses with advice, as JSON), shares of replicates that failed, ``feature_maps``
        (how each proxy entered the moments, as JSON). Without proxies the group ``checks`` holds rank,
        runs, fit, optima and information, line by line.

    Raises
    ------
    RefusedError
        If the graph does not carry the method.
    ModelError
        If an option does not go with the method, or makes too many features or cells.

    Examples
    --------
    >>> from pymc_mte import load_model, simulate
    >>> model = load_model("gallery:level3")
    >>> answer = estimate(model, simulate(model, 5_000, rng=1), method="spectral", n_boot=40)
    >>> bool(abs(answer["estimate"]["ate"]) < 0.1)
    True
    """
    need_model("estimate", model)
    if (n_boot := whole_number("n_boot", n_boot, 0)) % N_CHAINS:
        raise ModelError(f"n_boot must be a multiple of {N_CHAINS} (or 0), got {n_boot}")
    if resample not in RESAMPLES:
        raise ModelError(f"resample is one of {', '.join(RESAMPLES)}, got {resample!r}")
    if bridge not in BRIDGES:
        raise ModelError(f"bridge {bridge!r} is unknown; choose one of {', '.join(BRIDGES)}")
    given = {"bridge": bridge != "outcome", "interactions": interactions, "proxies": proxies != "independent"}
    if model.interventions is not None:
        _refuse_options("a model with interventions", given | {"resample": resample != "multinomial"})
        fitted = estimate_linear if model.linear else estimate_targets
        return fitted(model, data, base=base, method=method, n_boot=n_boot, rng=rng)
    if base is not None:
        raise ModelError("base: only a model with interventions has base rows; leave it out")
    (choose_class_method if lacks_proxies(model) else choose_method)(model, method)
    model, table = resolve(model, data)
    generator = as_generator(rng)
    if lacks_proxies(model):
        _refuse_options("a model without proxies", given)
        found = class_answers(model, table, method=method, n_boot=n_boot, resample=resample, rng=generator)
        spread = {name: robust_se(value) for name, value in found.draws.items()}
        tree = _tree(model, found.values, found.draws, {"se_": spread}, {}, found.attrs)
        return tree.assign(checks=_checks(found.checks))
    problem = problem_of(
        model,
        table,
        int(generator.integers(2**31)),
        interactions=interactions,
        linear=bridge == "two-stage",
        resample=resample,
    )
    return _effects(problem, table, method, bridge, proxies, n_boot, generator)


def _refuse_options(kind: str, given: dict[str, bool]) -> None:
    """Refuse options that would do nothing."""
    if idle := [name for name, used in given.items() if used]:
        raise ModelError(f"{', '.join(idle)}: no meaning for {kind}; leave it out")


def _effects(
    problem: Problem,
    table: xr.Dataset,
    method: str,
    bridge: Bridge,
    proxies: Proxies,
    n_boot: int,
    rng: np.random.Generator,
) -> xr.DataTree:
    """Estimate a model with treatment and proxies (or one class)."""
    support = support_by_stratum(problem, split(problem, table))
    chosen = choose_method(problem.model, method, all(arm.holds for arm in support))
    if bridge != "outcome" and chosen != "bridge":
        raise ModelError(f"bridge={bridge!r} has no meaning for method {chosen!r}; pass method='bridge' too")
    problem = with_proxies(problem, proxies, chosen)
    model, strata = problem.model, split(problem, table)
    notes = [*data_notes(table), *problem.z.notes, *problem.x.notes]
    if method == "auto" and chosen != choose_method(model, method):
        notes.append(Note(Status.BRIDGE_INSTEAD, "method"))
    if n_boot and not problem.sampling.whole:
        n_boot = 0
        notes.append(Note(Status.SHARES_ONLY, "count"))
    method_values = partial(average_values, bridge=bridge) if chosen == "bridge" else METHODS[chosen]
    values, draws, shares = point_and_replicates(problem, strata, chosen, method_values, n_boot, rng, notes)
    more: dict[str, str | int | float] = {**shares}
    errors: dict[str, Values] = {"se_": {name: robust_se(value) for name, value in draws.items()}}
    plain = problem.sampling.simple and not strata and problem.sampling.whole
    plain = plain and len(problem.arms) == len(model.arms)
    if chosen == "bridge" and plain and np.isfinite(values["ate"]).all():
        errors["se_delta_"] = average_errors(problem, bridge)
    notes += refuse_unsupported(model, support, [values, draws, *errors.values()])
    notes += check_ranges(problem, values, draws)
    more |= _add_groups(model, values, draws, notes)
    more |= _rank(problem, strata, values, n_boot, notes, bridge == "two-stage")
    if "se_delta_" in errors and bridge != "two-stage" and np.isfinite(values["ate"]).all():
        more |= _robust_set(problem, notes)
    for name, error in errors["se_"].items():
        errors["se_"][name] = np.where(np.isfinite(values[name]), error, np.nan)
    attrs = provenance(
        model,
        method=chosen,
        proxies=proxies,
        interactions=int(bool(problem.interactions)),
        feature_maps=json.dumps({**problem.z.maps, **problem.x.maps}),
        n=float(problem.sampling.counts.sum()),
        n_boot=n_boot,
        resample=problem.sampling.resample,
        fingerprint=fingerprint(model, table),
        notes=dump_notes(notes),
        **more,
    )
    coords = _coords(problem) | {"stratum": [s.label for s in strata]}
    return _tree(model, values, draws, errors, coords, attrs)


def _rank(
    problem: Problem,
    strata: tuple[Stratum, ...],
    values: Values,
    n_boot: int,
    notes: list[Note],
    every_direction: bool,
) -> dict[str, str | int | float]:
    """Count supported classes and distinct effects, and say where they disagree with the model."""
    narrow = min(problem.z.values.shape[1], problem.x.values.shape[1])
    with_proxies = hierarchy(problem.model).level not in ("HTE", "none")
    if not with_proxies or narrow < problem.model.classes or len(problem.arms) < 2:
        return {}
    needed = narrow if every_direction else problem.model.classes
    attrs: dict[str, str | int | float] = {}
    for part, label in [(s.problem, s.label) for s in strata] or [(problem, "")]:
        # a stream of its own, so that the replicates of the estimates do not depend on this test
        ranks = measure_ranks(part, n_boot, np.random.default_rng(problem.seed))
        if strata or "effect" not in values:  # causal groups are of everybody; or averages were asked for
            ranks = replace(ranks, effects=None)
        groups = int(values["causal_groups"].max()) + 1 if "causal_groups" in values and not strata else None
        notes += [note.within(label) for note in rank_notes(part, ranks, groups, needed)]
        if not attrs or ranks.supported < int(attrs["supported_classes"]):
            attrs = {**rank_attrs(part, ranks)}
    return attrs


def _checks(checks: list[Check]) -> xr.DataTree:
    """Lay the checks of a mixture without proxies out as columns."""
    columns = ("check", "where", "value", "verdict", "advice")
    found = {name: [getattr(line, name) for line in checks] for name in columns}
    kinds = {name: float if name == "value" else str for name in columns}
    return xr.DataTree(xr.Dataset({n: ("line", np.array(v, dtype=kinds[n])) for n, v in found.items()}))


def _robust_set(problem: Problem, notes: list[Note]) -> dict[str, str | int | float]:
    """Write down the confidence set that weak proxies do not spoil, and what it says by its form."""
    found = robust_set(problem)
    if found is None:
        return {}
    said = " and ".join(f"{low:.4g} to {high:.4g}" for low, high in found.intervals)
    if not found.intervals:
        notes.append(Note(Status.MOMENTS_REJECTED, "ate"))
    elif not found.bounded:
        notes.append(Note(Status.UNBOUNDED_SET, "ate", said))
    return {"ate_robust_set": json.dumps(found.intervals)}


def _coords(problem: Problem) -> dict[str, Any]:
    """Coordinates of the answers that depend on the data."""
    return {
        "effect_value": effect_grid(problem.model, problem.outcome_sd),
        "order": np.arange(1, 2 * problem.model.classes),
        "feature": np.array(problem.x.names, dtype=str),
        "outcome_value": problem.cuts,
        "quantile": np.array(QUANTILES),
    }


def _add_groups(
    model: CausalModel, values: Values, draws: Values, notes: list[Note]
) -> dict[str, str | int | float]:
    """Merge classes with equal effects, and test whether all are equal, over strata too."""
    if "effect" not in values or not np.isfinite(values["effect"]).all():
        return {}
    name = "stratum_effect" if model.strata else "effect"
    shape = (*values[name].shape[: 2 if model.strata else 1], len(model.contrasts))
    effect = values[name].reshape(shape)
    replicates = draws[name].reshape(len(draws[name]), *shape) if draws else np.zeros((0, *shape))
    if model.strata:
        p = [equal_effects(effect[:, k], replicates[:, :, k]).p_value for k in range(model.classes)]
        if np.nanmin([*p, 1.0]) * model.classes < LEVEL:
            detail = f"smallest p-value of {model.classes} {min(p):.2g}"
            notes.append(Note(Status.EFFECTS_VARY_WITHIN_CLASSES, "effect", detail))
        effect, replicates = (
            effect.reshape(-1, shape[-1]),
            replicates.reshape(len(replicates), len(effect) * model.classes, shape[-1]),
        )
    elif model.classes == 1:
        return {}
    else:
        values["causal_groups"] = causal_groups(effect[:, 0], replicates[..., 0]).astype(float)
    test = equal_effects(effect, replicates)
    return {
        "equal_effects_statistic": test.statistic,
        "equal_effects_df": test.df,
        "equal_effects_p": test.p_value,
    }


def _tree(
    model: CausalModel,
    values: Values,
    draws: Values,
    errors: dict[str, Values],
    coords: dict[str, Any],
    attrs: dict[str, str | int | float],
) -> xr.DataTree:
    point = dataset(model, values, lead=(), coords=coords)
    for prefix, found in errors.items():
        spread = dataset(model, found, lead=(), coords=coords)
        point = point.assign({f"{prefix}{name}": spread[name] for name in spread.data_vars})
    if draws:
        chained = {n: v.reshape(N_CHAINS, -1, *v.shape[1:]) for n, v in draws.items()}
    else:
        chained = {name: np.asarray(value)[None, None] for name, value in values.items()}
    tree = xr.DataTree.from_dict({"posterior": dataset(model, chained, coords=coords), "estimate": point})
    tree["posterior"].attrs |= {"kind": "bootstrap", "method": attrs["method"]}
    tree["estimate"].attrs |= {"kind": "point", "method": attrs["method"]}
    tree.attrs = attrs
    return tree
