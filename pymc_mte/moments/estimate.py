"""`estimate`: moment estimates with bootstrap uncertainty, labelled like a posterior."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.data import data_notes, fingerprint, resolve
from pymc_mte.errors import ModelError, RefusedError
from pymc_mte.functionals import effect_grid
from pymc_mte.hierarchy import MEANING, REACHED, hierarchy
from pymc_mte.model import CausalModel
from pymc_mte.moments.averages import BRIDGES, Bridge, average_errors, average_values, robust_set
from pymc_mte.moments.bootstrap import replicate, robust_se
from pymc_mte.moments.groups import causal_groups, equal_effects
from pymc_mte.moments.interventions.estimate import estimate_targets
from pymc_mte.moments.methods import METHODS, QUANTILES, Values, align_values, bridge_values
from pymc_mte.moments.positivity import PER_ARM, ArmSupport, arm_support, failing_arms, refused_mask
from pymc_mte.moments.problem import Problem, problem_of
from pymc_mte.moments.strength import proxy_strength, strength_notes
from pymc_mte.results import class_order, dataset, dims_of, provenance
from pymc_mte.status import Note, Status, dump_notes

Array = NDArray[np.float64]

MAX_POLISHED_CELLS = 100_000
"""`auto` polishes when all variables are discrete and their table is no larger."""

N_CHAINS = 4
"""Replicates are laid out in this many chains, as draws are."""


def estimate(
    model: CausalModel,
    data: Any = None,
    *,
    method: str = "auto",
    bridge: Bridge = "outcome",
    base: Any = None,
    n_boot: int = 400,
    rng: int | np.random.Generator = 0,
) -> xr.DataTree:
    """Estimate the mixture of treatment effects, or average effects, from moments.

    For a model with interventions: the targets and their shares, see
    `pymc_mte.moments.interventions.estimate.estimate_targets`.

    Parameters
    ----------
    model : CausalModel
        A model that names treatment, outcome and (for more than one class) proxies on both sides.
    data : tabulated Dataset, dataframe, mapping or path, optional
        The rows; the model's own data file by default.
    method : {"auto", "bridge", "pencil", "prony", "spectral", "polished"}
        ``bridge`` gives averages only; ``pencil`` and ``prony`` are the papers'; ``spectral`` truncates
        to the rank K first; ``polished`` climbs the graph's likelihood from there. ``auto`` takes
        the bridge when the graph reaches averages only or an arm lacks positivity, ``polished``
        when all variables are discrete (or there is one class), else ``spectral``.
    bridge : {"outcome", "treatment", "both"}
        For ``method="bridge"``: the outcome bridge, the treatment bridge, or the doubly robust
        combination. The last two give no effect on the treated.
    base : tabulated Dataset, dataframe, mapping or path, optional
        For a model with interventions: rows of the untouched network.
    n_boot : int
        Bootstrap replicates, a multiple of 4; 0 for none.
    rng : int or numpy.random.Generator
        Source of the resamples.

    Returns
    -------
    xarray.DataTree
        Group ``estimate``: point values, ``se_*`` (robust bootstrap standard errors) and, for the
        bridge, ``se_delta_*``; the attribute ``ate_robust_set`` holds its 90% confidence set that
        weak proxies do not spoil (two classes and arms; intervals as JSON, ends may be infinite). Group
        ``posterior``: replicates (chain, draw), aligned to the point. Attributes: ``method``,
        ``notes`` (statuses with advice, as JSON), shares of replicates that failed.

    Raises
    ------
    RefusedError
        If the graph does not carry the method.

    Examples
    --------
    >>> from pymc_mte import load_model, simulate
    >>> model = load_model("gallery:level3")
    >>> answer = estimate(model, simulate(model, 5_000, rng=1), method="spectral", n_boot=40)
    >>> bool(abs(answer["estimate"]["ate"]) < 0.1)
    True
    """
    if not isinstance(n_boot, int) or n_boot < 0 or n_boot % N_CHAINS:
        raise ModelError(f"n_boot must be a multiple of {N_CHAINS} (or 0), got {n_boot}")
    if model.interventions is not None:
        return estimate_targets(model, data, base=base, method=method, n_boot=n_boot, rng=rng)
    if base is not None:
        raise ModelError("base: only a model with interventions has base rows; leave it out")
    choose_method(model, method)
    model, table = resolve(model, data)
    generator = np.random.default_rng(rng)
    problem = problem_of(model, table, seed=int(generator.integers(2**31)))
    support = arm_support(model, problem.columns, problem.counts)
    chosen = choose_method(model, method, all(arm.holds for arm in support))
    if bridge not in BRIDGES or (bridge != "outcome" and chosen != "bridge"):
        raise ModelError(f"bridge {bridge!r} goes with method='bridge' and is one of {', '.join(BRIDGES)}")
    notes = [*data_notes(table), *problem.z.notes, *problem.x.notes]
    if n_boot and table["count"].dtype.kind != "i":
        n_boot = 0
        notes.append(Note(Status.SHARES_ONLY, "count"))
    method_values = partial(average_values, bridge=bridge) if chosen == "bridge" else METHODS[chosen]
    values, draws, more = _compute(problem, chosen, method_values, n_boot, generator, notes)
    errors: dict[str, Values] = {"se_": {name: robust_se(value) for name, value in draws.items()}}
    plain = (
        problem.sampling.simple and table["count"].dtype.kind == "i" and len(problem.arms) == len(model.arms)
    )
    if chosen == "bridge" and plain and np.isfinite(values["arm_mean"]).all():
        errors["se_delta_"] = average_errors(problem, bridge)
    notes += _refuse_unsupported(model, support, [values, draws, *errors.values()])
    notes += _check_ranges(problem, values, draws)
    more |= _add_groups(model, values, draws)
    said = _robust_set(problem, notes) if "se_delta_" in errors and np.isfinite(values["ate"]).all() else {}
    attrs = provenance(
        model,
        method=chosen,
        n=float(problem.sampling.counts.sum()),
        n_boot=n_boot,
        fingerprint=fingerprint(model, table),
        notes=dump_notes(notes),
        **more,
        **said,
    )
    return _tree(model, values, draws, errors, _coords(problem), attrs)


def _robust_set(problem: Problem, notes: list[Note]) -> dict[str, str]:
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


def _add_groups(model: CausalModel, values: Values, draws: Values) -> dict[str, float]:
    """Merge classes with equal effects, and test whether all are equal."""
    if "effect" not in values or model.classes == 1 or not np.isfinite(values["effect"]).all():
        return {}
    effect = values["effect"].reshape(model.classes, -1)
    replicates = draws["effect"].reshape(-1, *effect.shape) if draws else np.zeros((0, *effect.shape))
    values["causal_groups"] = causal_groups(effect[:, 0], replicates[..., 0]).astype(float)
    test = equal_effects(effect, replicates)
    return {
        "equal_effects_statistic": test.statistic,
        "equal_effects_df": test.df,
        "equal_effects_p": test.p_value,
    }


def choose_method(model: CausalModel, method: str, positive: bool = True) -> str:
    """Resolve ``auto`` and refuse what the graph does not carry."""
    if method not in ("auto", *METHODS):
        raise ModelError(f"method {method!r} is unknown; choose auto, {', '.join(METHODS)}")
    if model.treatment is None:
        raise ModelError("roles: `estimate` needs a treatment and an outcome; name both in the model")
    found = hierarchy(model)
    if found.level == "HTE":
        if method in ("auto", "polished"):
            return "polished"
        raise RefusedError(
            f"method {method!r} uses proxies of a latent class, and this model has classes = 1; "
            "use method='polished', which averages over the observed variables"
        )
    if method == "auto":
        if found.level == "ATE" or (found.level != "none" and not positive):
            return "bridge"
        small = not model.continuous_variables and model.n_cells <= MAX_POLISHED_CELLS
        method = "polished" if small and found.level != "none" else "spectral"
    if method == "polished" or (method == "bridge" and found.level != "none"):
        return method
    if not REACHED[found.level] >= {"effect"}:
        failing = "; ".join(str(item) for item in found.needed if not item.holds)
        edges = ", ".join(f"{a} -> {b}" for a, b in found.costing)
        raise RefusedError(
            f"method {method!r} is refused: the graph reaches {MEANING[found.level]}. "
            + (f"It lacks: {failing}. " if failing else "It lacks proxies on both sides of the class. ")
            + (f"Without the edge {edges} it would reach more. " if edges else "")
            + (
                "Use method='bridge' for averages."
                if found.level == "ATE"
                else "Change the roles or add proxies."
            )
        )
    return method


def _compute(
    problem: Problem,
    method: str,
    method_values: Callable[[Problem, Array], Values],
    n_boot: int,
    rng: np.random.Generator,
    notes: list[Note],
) -> tuple[Values, Values, dict[str, float]]:
    """Point values and aligned replicates of a method, the bridge's averages beside them."""
    model, k = problem.model, problem.model.classes
    narrow = min(problem.z.values.shape[1], problem.x.values.shape[1])
    level = hierarchy(model).level
    with_bridge = level not in ("HTE", "none")
    if (narrow < k and with_bridge) or len(problem.arms) < 2:
        if narrow < k:
            notes.append(
                Note(
                    Status.TOO_FEW_FEATURES,
                    "proxies",
                    f"{narrow} features on one side for {k} classes",
                )
            )
        return _empty(model, method), {}, {}
    if level == "none":
        notes.append(Note(Status.NO_MOMENT_METHOD, "graph"))
    if with_bridge and problem.counts.sum() > 1:
        notes += strength_notes(problem, proxy_strength(problem, 0, rng))

    def statistic(counts: Array) -> Values:
        values = method_values(problem, counts)
        if with_bridge and method != "bridge":
            bridge = bridge_values(problem, counts)
            values |= {"ate_bridge": bridge["ate"], "att_bridge": bridge["att"], "bridge": bridge["bridge"]}
        vanished = (problem.arm_counts(counts) == 0).any(axis=1)
        for name in dims_of(model).keys() & values.keys():
            values[name][vanished] = np.nan
        return values

    point = statistic(problem.counts[None])
    axes = {n: 1 for n, d in dims_of(model).items() if d[:1] == ("class",)} | {"profile": 1}
    if "profile" in point:
        bare = {n: v[0] for n, v in point.items() if n in dims_of(model)}
        order = class_order(model, bare)[None]
        point = {n: np.take(v, order[0], axis=1) if n in axes else v for n, v in point.items()}
    draws: Values = {}
    shares: dict[str, float] = {}
    if n_boot:
        draws = replicate(problem.sampling, n_boot, rng, statistic)
        if "profile" in draws:
            draws, shares["ambiguous_share"] = align_values(model, draws, point["profile"][0], axes)
    shares |= _judge_replicates(method, point, draws, shares, notes)
    known = dims_of(model)
    answered = [
        n for n in ("ate", "att", "effect", "class_weight") if n in draws and np.isfinite(point[n]).all()
    ]
    core = [draws[n] for n in answered]
    undefined = [np.isnan(v).reshape(len(v), -1).any(axis=1) for v in core]
    failed = float(np.any(undefined, axis=0).mean()) if undefined else 0.0
    if failed > 0:
        shares["failed_share"] = failed
        notes.append(Note(Status.REPLICATES_FAILED, method, f"{failed:.1%} of the replicates"))
    return (
        {n: np.array(v[0]) for n, v in point.items() if n in known},
        {n: v for n, v in draws.items() if n in known},
        shares,
    )


def _judge_replicates(
    method: str, point: Values, draws: Values, shares: dict[str, float], notes: list[Note]
) -> dict[str, float]:
    """Count failures of the point estimate and its replicates, and say so."""
    found: dict[str, float] = {}
    for flag, status in (
        ("complex_roots", Status.COMPLEX_ROOTS),
        ("singular", Status.SINGULAR),
        ("not_converged", Status.NOT_CONVERGED),
    ):
        if flag in point:
            found[f"{flag}_share"] = float(draws[flag].mean()) if draws else float(point[flag][0])
            if point[flag][0]:
                notes.append(Note(status, method, "in the point estimate"))
            elif found[f"{flag}_share"] > 0.05:
                notes.append(Note(status, method, f"in {found[f'{flag}_share']:.0%} of the replicates"))
    if shares.get("ambiguous_share", 0.0) > 0.05:
        detail = f"in {shares['ambiguous_share']:.0%} of the replicates two labellings fit alike"
        notes.append(Note(Status.AMBIGUOUS_CLASSES, method, detail))
    return found


def _empty(model: CausalModel, method: str) -> Values:
    names = ["arm_mean", "ate", "att"]
    if method != "bridge":
        names += ["class_weight", "potential_outcome", "effect", "effect_sd", "weight_harmed"]
    coords, dims = model.coords, dims_of(model)
    return {n: np.full(tuple(len(coords[d]) for d in dims[n]), np.nan) for n in names}


def _refuse_unsupported(
    model: CausalModel, support: tuple[ArmSupport, ...], groups: list[Values]
) -> list[Note]:
    """Blank whatever extrapolates an arm to a class that (almost) never gets it."""
    failing = failing_arms(model, support)
    notes = []
    for arm in support:
        if arm.arm in failing and arm.share > 0:
            detail = f"only {arm.lowest:.2%} of the rows with {arm.where} have it"
            notes.append(Note(Status.POSITIVITY, f"{model.treatment} = {model.arms[arm.arm]}", detail))
    if failing:
        for group in groups:
            for name in group:
                group[name] = _blanked(model, name, group[name], failing)
    return notes


def _blanked(model: CausalModel, name: str, value: Array, failing: set[int]) -> Array:
    """Put NaN where `refused_mask` says so, along the axis that the mask belongs to."""
    mask, dims = refused_mask(model, name, failing), dims_of(model)[name]
    axis = "treatment" if name in PER_ARM else "contrast"
    if mask.ndim and axis in dims:
        after = len(dims) - dims.index(axis) - 1
        mask = mask.reshape(-1, *(1,) * after)
    elif mask.ndim:
        mask = np.asarray(mask.any())
    return np.where(mask, np.nan, value)


def _check_ranges(problem: Problem, values: Values, draws: Values) -> list[Note]:
    notes = []
    if "class_weight" in values:
        weight = values["class_weight"]
        if (weight < -1e-9).any() or (weight > 1 + 1e-9).any():
            notes.append(Note(Status.WEIGHT_OUTSIDE, "class_weight", f"{np.round(weight, 3).tolist()}"))
    if "potential_outcome" in values:
        low, high = problem.outcome.min(), problem.outcome.max()
        mean = values["potential_outcome"]
        slack = 1e-9 * max(abs(low), abs(high), 1.0)
        if (mean < low - slack).any() or (mean > high + slack).any():
            detail = f"{np.round(mean, 3).tolist()} against [{low:.4g}, {high:.4g}]"
            notes.append(Note(Status.EFFECT_OUTSIDE, "potential_outcome", detail))
    if "effect" in draws and problem.model.classes > 1:
        effect = draws["effect"].reshape(len(draws["effect"]), problem.model.classes, -1)[:, :, 0]
        point = np.asarray(values["effect"]).reshape(problem.model.classes, -1)[:, 0]
        gaps, se = np.diff(point), robust_se(np.diff(effect, axis=1))
        if np.isfinite(gaps).all() and (gaps < 2 * se).any():
            pair = int(np.argmin(gaps / se))
            detail = f"gap {gaps[pair]:.3g}, standard error {se[pair]:.3g}"
            notes.append(Note(Status.CLASSES_TIED, f"classes {pair} and {pair + 1}", detail))
    return notes


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
