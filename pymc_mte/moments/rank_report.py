"""What the two ranks say about a model: notes and attributes. NumPy only."""

import json

import numpy as np

from pymc_mte.moments.problem import Problem
from pymc_mte.moments.rank import LEVEL, Evidence, Ranks
from pymc_mte.status import Note, Status

COPIES = 0.99
"""Beyond this canonical correlation two proxies are taken for copies of each other."""

CORRELATION = "canonical correlation"
NOISE = "noise level of correlation"
"""Names of the rows that a figure reads, each followed by the number of the correlation."""

SOURCE: dict[Evidence, str] = {
    "bootstrap": "bootstrap",
    "bartlett": "Bartlett's approximation, nothing resampled",
    "exact": "shares without sampling error",
}
"""Where the p-values come from, in words."""


def rank_notes(
    problem: Problem, ranks: Ranks, groups: int | None = None, needed: int | None = None
) -> list[Note]:
    """Alarms where the ranks disagree with the model's classes, or with the causal groups.

    Arms that lack positivity have their own alarm and are left out here.

    Parameters
    ----------
    problem : Problem
        The data set.
    ranks : Ranks
        As from `measure_ranks`.
    groups : int, optional
        Number of causal groups that the estimated class effects were merged into.
    needed : int, optional
        Directions that the answer uses, the constant counted; the number of classes by default.
    """
    model, notes = problem.model, []
    needed = model.classes if needed is None else needed
    source, last = SOURCE[ranks.evidence], needed - 2
    for i in ranks.anchors:
        arm = ranks.arms[i]
        label = f"{model.treatment} = {model.arms[arm.arm]}"
        if 0 <= last < len(arm.correlation) and not arm.supported >= needed:
            value, p = arm.correlation[last], arm.p_value[last]
            detail = f"canonical correlation {last + 1} is {value:.3f} (p = {p:.2g}, {source})"
            notes.append(Note(Status.WEAK_PROXIES, label, detail))
        if len(arm.correlation) and arm.correlation[0] > COPIES:
            notes.append(
                Note(Status.DIRECT_DEPENDENCE, label, f"canonical correlation 1 is {arm.correlation[0]:.3f}")
            )
    if ranks.supported > needed:
        largest = max(ranks.arms[i].p_value[model.classes - 1] for i in ranks.anchors)
        detail = (
            f"{ranks.supported} classes supported in every arm, {model.classes} assumed "
            f"(at most {model.classes}: p = {largest:.2g}, {source})"
        )
        notes.append(Note(Status.MORE_DIRECTIONS, "proxies", detail))
    return notes + _effect_notes(problem, ranks, groups)


def _effect_notes(problem: Problem, ranks: Ranks, groups: int | None) -> list[Note]:
    effects, model, notes = ranks.effects, problem.model, []
    if effects is None:
        return []
    b, a = effects.contrast
    where = f"{model.treatment}: {model.arms[b]} against {model.arms[a]}"
    found = (
        f"{_count(effects.distinct, 'distinct effect')}, "
        f"{_count(ranks.supported, 'class', 'es')} supported by the proxies"
    )
    if effects.distinct < model.classes:
        p = effects.p_value[effects.distinct - 1]
        evidence = f"(at most {effects.distinct}: p = {p:.2g}, {SOURCE[ranks.evidence]})"
        notes.append(
            Note(Status.FEWER_EFFECTS, where, f"{found}, {model.classes} classes assumed {evidence}")
        )
    if groups is not None and groups != effects.distinct:
        notes.append(Note(Status.GROUPS_DIFFER, where, f"{found}, {_count(groups, 'causal group')}"))
    return notes


def rank_attrs(problem: Problem, ranks: Ranks) -> dict[str, str | int]:
    """Both ranks and all p-values, as attributes of a result."""
    model = problem.model
    p_values = {f"{model.treatment} = {model.arms[arm.arm]}": arm.p_value for arm in ranks.arms}
    out: dict[str, str | int] = {"supported_classes": ranks.supported, "rank_evidence": ranks.evidence}
    if ranks.effects is not None:
        out["distinct_effects"] = ranks.effects.distinct
        p_values["effects"] = ranks.effects.p_value
    return out | {"rank_p": json.dumps({k: np.asarray(v).tolist() for k, v in p_values.items()})}


def rank_rows(problem: Problem, ranks: Ranks) -> list[dict[str, object]]:
    """Rows for a table of checks: canonical correlations and their noise per arm, then the effects.

    A noise level is a number to hold the correlation against, without a verdict of its own. The p-value
    of correlation r is that of "at most r classes"; directions that the model needs must stand out,
    further ones hint at more classes.
    """
    model = problem.model
    k, rows = model.classes, []
    for arm in ranks.arms:
        where = f"{model.treatment} = {model.arms[arm.arm]}"
        for i, value in enumerate(arm.correlation[: max(k, 2)]):
            strong = arm.p_value[i] < LEVEL
            status = Status.OK
            if i < k - 1 and not strong:
                status = Status.WEAK_PROXIES
            elif i >= k - 1 and strong:
                status = Status.MORE_DIRECTIONS
            rows.append(
                _row(f"{CORRELATION} {i + 1}", where, float(value), arm.se[i], arm.p_value[i], status)
            )
            rows.append(_row(f"{NOISE} {i + 1}", where, arm.noise[i]) | {"verdict": ""})
    status = Status.OK
    if ranks.supported != k:
        status = Status.WEAK_PROXIES if ranks.supported < k else Status.MORE_DIRECTIONS
    rows.append(
        _row("classes supported", f"all arms, {SOURCE[ranks.evidence]}", ranks.supported, status=status)
    )
    if ranks.effects is not None:
        effects = ranks.effects
        b, a = effects.contrast
        where = f"{model.arms[b]} against {model.arms[a]}"
        for r, p in enumerate(effects.p_value, start=1):
            check = f"at most {_count(r, 'distinct effect')}"
            status = Status.OK if p < LEVEL else Status.FEWER_EFFECTS
            rows.append(_row(check, where, effects.statistic[r - 1], p=p, status=status))
        status = Status.OK if effects.distinct == k else Status.FEWER_EFFECTS
        rows.append(_row("distinct effects", where, effects.distinct, status=status))
    return rows


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number} {noun}{plural * (number != 1)}"


def _row(
    check: str, where: str, value: float, se: float = np.nan, p: float = np.nan, status: Status = Status.OK
) -> dict[str, object]:
    good = status is Status.OK
    return {
        "check": check,
        "where": where,
        "value": value,
        "se": se,
        "p": p,
        "verdict": "ok" if good else "doubt",
        "advice": "" if good else status.value,
    }
