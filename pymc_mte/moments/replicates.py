"""Point values of a moment method and its aligned replicates, with what went wrong counted."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pymc_mte.hierarchy import hierarchy
from pymc_mte.model import CausalModel
from pymc_mte.moments.bootstrap import replicate
from pymc_mte.moments.methods import Values, align_values, bridge_values
from pymc_mte.moments.problem import Problem
from pymc_mte.moments.refusals import too_few_rows
from pymc_mte.moments.strata import Stratified, Stratum
from pymc_mte.results import class_order, dims_of
from pymc_mte.status import Note, Status

Array = NDArray[np.float64]
Method = Callable[[Problem, Array], Values]


def point_and_replicates(
    problem: Problem,
    strata: tuple[Stratum, ...],
    method: str,
    method_values: Method,
    n_boot: int,
    rng: np.random.Generator,
    notes: list[Note],
) -> tuple[Values, Values, dict[str, float]]:
    """Point values and aligned replicates of a method, the bridge's averages beside them.

    Returns
    -------
    point, draws : dict of str to ndarray
        Values, and values with the replicates as first axis (empty without resamples).
    shares : dict of str to float
        Shares of the replicates that failed, by the way they did.
    """
    model, known = problem.model, dims_of(problem.model)
    level = hierarchy(model).level
    with_bridge = level not in ("HTE", "none")
    if _unanswerable(problem, strata, with_bridge, notes):
        return _empty(model, method), {}, {}
    if level == "none":
        notes.append(Note(Status.NO_MOMENT_METHOD, "graph"))
    plain = partial(_values, method_values, with_bridge and method != "bridge")
    statistic = Stratified(problem, strata, plain, _order) if strata else partial(plain, problem)
    point = statistic(problem.counts[None])
    axes = {n: 1 for n, d in known.items() if d[:1] == ("class",)} | {"profile": 1}
    if "profile" in point:
        order = _order(model, point)
        point = {n: np.take(v, order, axis=1) if n in axes else v for n, v in point.items()}
    draws: Values = {}
    shares: dict[str, float] = {}
    if n_boot:
        draws = replicate(problem.sampling, n_boot, rng, statistic)
        if "profile" in draws:
            draws, shares["ambiguous_share"] = align_values(model, draws, point["profile"][0], axes)
    shares |= _judge_replicates(method, point, draws, shares, notes)
    for place, stratum in enumerate(strata):
        if not np.isfinite(point["stratum_ate"][0, place]).all():
            notes.append(Note(Status.SINGULAR, stratum.label, "the stratum's equations have no solution"))
    shares |= _failed(method, point, draws, notes)
    return (
        {n: np.array(v[0]) for n, v in point.items() if n in known},
        {n: v for n, v in draws.items() if n in known},
        shares,
    )


def _values(method_values: Method, with_bridge: bool, problem: Problem, counts: Array) -> Values:
    """Values of a method, the bridge's averages beside them; not a number where an arm vanished."""
    values = method_values(problem, counts)
    if with_bridge:
        bridge = bridge_values(problem, counts)
        values |= {"ate_bridge": bridge["ate"], "att_bridge": bridge["att"], "bridge": bridge["bridge"]}
    vanished = (problem.arm_counts(counts) == 0).any(axis=1)
    for name in dims_of(problem.model).keys() & values.keys():
        values[name][vanished] = np.nan
    return values


def _order(model: CausalModel, point: Values) -> NDArray[np.int64]:
    """Order of the classes of a point estimate (a batch of one)."""
    return class_order(model, {n: v[0] for n, v in point.items() if n in dims_of(model)})


def _unanswerable(
    problem: Problem, strata: tuple[Stratum, ...], with_bridge: bool, notes: list[Note]
) -> bool:
    """Whether features or arms are too few for any estimate; said in a note unless it was before."""
    k = problem.model.classes
    narrow = min(problem.z.values.shape[1], problem.x.values.shape[1])
    if narrow < k:
        detail = f"{narrow} features on one side for {k} classes"
        notes.append(Note(Status.TOO_FEW_FEATURES, "proxies", detail))
    incomplete = any(len(s.problem.arms) < len(problem.arms) for s in strata)
    short = False
    for part, label in [(s.problem, s.label) for s in strata] or [(problem, "")]:
        said, too_few = too_few_rows(part, label)
        notes += said
        short |= too_few
    return (narrow < k and with_bridge) or len(problem.arms) < 2 or incomplete or short


def _failed(method: str, point: Values, draws: Values, notes: list[Note]) -> dict[str, float]:
    """Count the replicates without an answer where the point estimate has one."""
    names = ("ate", "att", "effect", "class_weight")
    core = [draws[n] for n in names if n in draws and np.isfinite(point[n]).all()]
    undefined = [np.isnan(v).reshape(len(v), -1).any(axis=1) for v in core]
    share = float(np.any(undefined, axis=0).mean()) if undefined else 0.0
    if share == 0:
        return {}
    notes.append(Note(Status.REPLICATES_FAILED, method, f"{share:.1%} of the replicates"))
    return {"failed_share": share}


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
