"""Answers for mixtures without proxies: point, aligned replicates, notes and checks. NumPy only."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pymc_mte.data import data_notes, fingerprint
from pymc_mte.model import CausalModel
from pymc_mte.moments.bootstrap import Resample, replicate, robust_se
from pymc_mte.moments.checks import Check, run_checks
from pymc_mte.moments.classes import ClassProblem, choose_class_method
from pymc_mte.moments.methods import Values, align_values
from pymc_mte.moments.problem import problem_of
from pymc_mte.results import class_order, dims_of, provenance
from pymc_mte.status import Note, Status, dump_notes

Array = NDArray[np.float64]

MANY = 0.05
"""Share of replicates from which a failure of theirs is worth a note."""

FLAGS = {
    "complex_roots": Status.COMPLEX_ROOTS,
    "singular": Status.SINGULAR,
    "not_converged": Status.NOT_CONVERGED,
}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a result is made of.

    Attributes
    ----------
    values : dict of str to ndarray
        Point values by result name.
    draws : dict of str to ndarray
        Bootstrap replicates, classes aligned to the point; empty without resamples.
    checks : list of Check
        Rank, runs, fit, optima, information.
    attrs : dict
        Attributes of the result.
    """

    values: Values
    draws: Values
    checks: list[Check]
    attrs: dict[str, str | int | float]


def class_answers(
    model: CausalModel,
    table: Any,
    *,
    method: str,
    n_boot: int,
    resample: Resample = "multinomial",
    rng: np.random.Generator,
) -> Answer:
    """Estimate a mixture of repeated draws, of products or of networks.

    Parameters
    ----------
    model : CausalModel
        The graph, its levels resolved.
    table : tabulated Dataset
        The data.
    method : str
        As `choose_class_method` takes it.
    n_boot : int
        Bootstrap replicates; none for shares.
    resample : {"multinomial", "bayesian"}
        How rows are redrawn.
    rng : numpy.random.Generator
        Source of the resamples.
    """
    chosen = choose_class_method(model, method)
    problem = problem_of(model, table, seed=int(rng.integers(2**31)), resample=resample)
    whole = table["count"].dtype.kind == "i"
    notes = data_notes(table)
    if n_boot and not whole:
        n_boot = 0
        notes.append(Note(Status.SHARES_ONLY, "count"))
    setup = ClassProblem(problem=problem, rows=float(problem.sampling.counts.sum()) if whole else np.inf)
    known = dims_of(model)
    axes = {n: 1 for n, d in known.items() if d[:1] == ("class",)} | {"profile": 1}
    point = setup.values(chosen, problem.counts[None])
    order = class_order(model, {n: v[0] for n, v in point.items() if n in known})
    point = {n: np.take(v, order, axis=1) if n in axes else v for n, v in point.items()}
    draws: Values = {}
    shares: dict[str, float] = {}
    if n_boot:
        draws = replicate(problem.sampling, n_boot, rng, lambda counts: setup.values(chosen, counts))
        draws, shares["ambiguous_share"] = align_values(model, draws, point["profile"][0], axes)
    shares |= _judge(chosen, point, draws, shares, notes)
    values = {n: np.array(v[0]) for n, v in point.items() if n in known}
    replicates = {n: v for n, v in draws.items() if n in known}
    notes += _tied(model, values, replicates)
    checks = run_checks(setup, chosen, values, replicates, notes)
    if setup.plan is not None:
        shares_and_plan: dict[str, str | float] = {**shares, "plan": str(setup.plan)}
    else:
        shares_and_plan = dict(shares)
    attrs = provenance(
        model,
        method=chosen,
        kind=setup.kind,
        n=float(problem.sampling.counts.sum()),
        n_boot=n_boot,
        resample=resample,
        fingerprint=fingerprint(model, table),
        notes=dump_notes(notes),
        **shares_and_plan,
    )
    return Answer(values=values, draws=replicates, checks=checks, attrs=attrs)


def _judge(
    method: str, point: Values, draws: Values, shares: dict[str, float], notes: list[Note]
) -> dict[str, float]:
    """Count what failed in the point estimate and in its replicates, and say so."""
    found: dict[str, float] = {}
    for flag, status in FLAGS.items():
        if flag in point:
            found[f"{flag}_share"] = float(draws[flag].mean()) if draws else float(point[flag][0])
            if point[flag][0]:
                notes.append(Note(status, method, "in the point estimate"))
            elif found[f"{flag}_share"] > MANY:
                notes.append(Note(status, method, f"in {found[f'{flag}_share']:.0%} of the replicates"))
    if shares.get("ambiguous_share", 0.0) > MANY:
        detail = f"in {shares['ambiguous_share']:.0%} of the replicates two labellings fit alike"
        notes.append(Note(Status.AMBIGUOUS_CLASSES, method, detail))
    if draws:
        failed = float(np.isnan(draws["class_weight"]).any(axis=1).mean())
        if failed > 0:
            found["failed_share"] = failed
            notes.append(Note(Status.REPLICATES_FAILED, method, f"{failed:.1%} of the replicates"))
    return found


def _tied(model: CausalModel, values: Values, draws: Values) -> list[Note]:
    """Note that the order of the classes is arbitrary where their key differs by under two errors."""
    if not draws or model.classes == 1:
        return []
    first = next(iter(model.variables))
    name = "effect"
    if name not in values:
        name = f"{next(iter(model.variables[first].spec.parameters))}_{first}"
    if "class" not in dims_of(model)[name]:
        return []
    last = 0 if name == "effect" else -1
    key = values[name].reshape(model.classes, -1)[:, last]
    spread = draws[name].reshape(len(draws[name]), model.classes, -1)[..., last]
    gap, se = np.diff(key), robust_se(np.diff(spread, axis=1))
    if not np.isfinite(gap).all() or not (gap < 2 * se).any():
        return []
    pair = int(np.argmin(gap - 2 * se))
    detail = f"gap {gap[pair]:.3g} in {name}, standard error {se[pair]:.3g}"
    return [Note(Status.CLASSES_TIED, f"classes {pair} and {pair + 1}", detail)]
