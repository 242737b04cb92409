"""What the data say about a model: positivity, proxy strength, assumptions, plans, other roles."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from pymc_mte.errors import ModelError
from pymc_mte.hierarchy import hierarchy
from pymc_mte.identify.assumptions import assumption_lines, assumption_notes, assumption_rows
from pymc_mte.identify.jacobian import Jacobian, n_free
from pymc_mte.identify.likelihood import few_features
from pymc_mte.identify.planning import class_gaps, plan_errors
from pymc_mte.identify.ranges import open_ranges
from pymc_mte.identify.splits import MAX_WORK, n_splits, split_notes, splits_table
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.likelihood import ordered_fit
from pymc_mte.moments.positivity import (
    MIN_PROPENSITY,
    PER_ARM,
    ArmSupport,
    empty_arms,
    failing_arms,
    refused_mask,
)
from pymc_mte.moments.problem import Problem
from pymc_mte.moments.rank import N_BOOT, measure_ranks
from pymc_mte.moments.rank_report import rank_notes, rank_rows
from pymc_mte.moments.refusals import too_few_rows
from pymc_mte.moments.strata import Stratum, support_by_stratum
from pymc_mte.status import Note, Status

SplitForm = Literal["bridge", "two-stage", "none"]

MAX_FIT = 1_000_000
"""Rows times parameters times classes up to which `identify` fits the likelihood: seconds."""


@dataclass(kw_only=True)
class Findings:
    """What was found so far.

    Attributes
    ----------
    identified : dict of str to bool
        What can be answered; the data may take answers back.
    partly : dict of str to str
        Answers that exist for some arms or contrasts only, and for which they do not.
    rows : list of dict
        Rows of the checks table.
    notes : list of Note
        Statuses.
    tested : list of str
        What the tests of the assumptions say together.
    supported : int or None
        Classes that the proxies support.
    splits, planning, ranges : DataFrame or None
        Tables of `splits_table`, `plan_errors` and `functional_ranges`.
    """

    identified: dict[str, bool]
    partly: dict[str, str] = field(default_factory=dict)
    rows: list[dict[str, object]] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    tested: list[str] = field(default_factory=list)
    supported: int | None = None
    splits: pd.DataFrame | None = None
    planning: pd.DataFrame | None = None
    ranges: pd.DataFrame | None = None


def judge_data(
    out: Findings,
    problem: Problem,
    strata: tuple[Stratum, ...],
    likelihood: Jacobian | None,
    rng: np.random.Generator,
    splits: SplitForm | None,
) -> None:
    """Add what the data say to what the graph says.

    Parameters
    ----------
    out : Findings
        Changed in place.
    problem : Problem
        The data of a model with a treatment.
    strata : tuple of Stratum
        Its strata, if any.
    likelihood : Jacobian or None
        What the likelihood identifies, if that was judged.
    rng : numpy.random.Generator
        Source of resamples.
    splits : {"bridge", "two-stage", "none"}, optional
        Form of the table of role splits; by the bridge where that is quick, by default.
    """
    if splits not in (None, "bridge", "two-stage", "none"):
        raise ModelError(f"splits={splits!r} is unknown; choose bridge, two-stage or none")
    model, n = problem.model, float(problem.counts.sum())
    _positivity(out, model, support_by_stratum(problem, strata))
    parts = [(s.problem, s.label) for s in strata] or [(problem, "")]
    rows = [too_few_rows(part, label) for part, label in parts]
    out.notes += [note for notes, _ in rows for note in notes]
    incomplete = any(len(s.problem.arms) < len(problem.arms) for s in strata)
    if incomplete or any(short for _, short in rows) or np.ptp(problem.outcome) == 0:
        out.identified |= dict.fromkeys(out.identified, False)
        out.tested = ["The data were not tested further: see what to doubt."]
        return
    if model.classes == 1 or hierarchy(model).level == "none":
        return
    out.notes += [*problem.z.notes, *problem.x.notes]
    out.supported = _strength(out, problem, strata, rng)
    point = _quick_fit(problem, likelihood, strata)
    out.tested = _test_assumptions(out, problem, strata, out.supported, rng, point)
    if point is not None:
        fitted = {name: value[0] for name, value in point.items()}
        if not model.censored:  # plans do not know when rows to come would be censored
            out.planning = plan_errors(model, fitted, n)
            out.planning.attrs["simple"] = problem.sampling.simple
            if problem.sampling.simple:
                out.rows += class_gaps(model, fitted, n)
        if likelihood is not None and likelihood.missing:
            out.ranges, why = open_ranges(problem, likelihood, point)
            out.tested += [why] * bool(why)
    _other_roles(out, problem, strata, splits)


def _other_roles(
    out: Findings, problem: Problem, strata: tuple[Stratum, ...], splits: SplitForm | None
) -> None:
    """Add the table of role splits, or say why there is none."""
    if splits == "none" or problem.model.censored:
        return
    work = n_splits(problem.model) * len(problem.counts) * problem.n_given
    if strata:
        out.tested.append(
            "Other roles of the proxies were not tried: role_splits does not look inside strata."
        )
    elif splits is None and work > MAX_WORK:
        out.tested.append(
            "Other roles of the proxies were not tried, because that takes a while here; role_splits(model, "
            "data) or identify(..., splits='bridge') does it."
        )
    else:
        out.splits = splits_table(problem, splits or "bridge")
        out.notes += split_notes(out.splits)


def _quick_fit(
    problem: Problem, likelihood: Jacobian | None, strata: tuple[Stratum, ...]
) -> Parameters | None:
    """Fit the likelihood where that takes seconds and means something; for planning and score tests."""
    model = problem.model
    work = len(problem.counts) * n_free(model) * model.classes
    whole = likelihood is not None and not strata and len(problem.arms) == len(model.arms)
    if (
        not whole
        or model.linear_edges
        or model.moments_only is not None
        or problem.sampling.exact
        or work > MAX_FIT
    ):
        return None
    return ordered_fit(problem)


def _test_assumptions(
    out: Findings,
    problem: Problem,
    strata: tuple[Stratum, ...],
    supported: int,
    rng: np.random.Generator,
    point: Parameters | None,
) -> list[str]:
    """Add a row per testable consequence of the graph; return what they say together."""
    if problem.counts.sum() <= 1 or len(problem.arms) < 2:
        return []
    if problem.model.censored:
        return ["The assumptions were not tested: the tests need means of the outcome, which is censored."]
    if problem.covariates is not None:
        return ["The assumptions were not tested: the tests take no covariates yet."]
    if supported < problem.model.classes:
        return ["The assumptions were not tested: the tests need proxies that support the model's classes."]
    found = []
    for part, label in [(s.problem, s.label) for s in strata] or [(problem, "")]:
        if len(part.anchors) > 1:
            found += assumption_rows(part, N_BOOT, rng, point, label)
    out.rows += found
    out.notes += assumption_notes(found)
    return assumption_lines(found)


def _positivity(out: Findings, model: CausalModel, support: tuple[ArmSupport, ...]) -> None:
    """Add the rows of positivity; take back what an arm without it costs."""
    failing = failing_arms(model, support)
    for arm in support:
        label = f"{model.treatment} = {model.arms[arm.arm]}"
        label += f", {arm.stratum}" if arm.stratum else ""
        status = Status.OK if arm.holds else Status.POSITIVITY if arm.share > 0 else Status.EMPTY_ARM
        row: dict[str, object] = {"check": "share of arm", "where": label, "value": arm.share}
        row |= {
            "verdict": "ok" if arm.share > 0 else "fail",
            "advice": "" if arm.share > 0 else status.value,
        }
        out.rows.append(row)
        if arm.share == 0 and arm.stratum:
            out.notes.append(Note(Status.EMPTY_ARM_IN_STRATUM, label, "0 rows"))
        if arm.share > 0 and model.classes > 1:
            row = {
                "check": "rarest use of arm",
                "where": f"{label}, {arm.where}",
                "value": arm.lowest,
            }
            row |= {
                "verdict": "ok" if arm.holds else "fail",
                "advice": "" if arm.holds else status.value,
            }
            out.rows.append(row)
        if arm.arm in failing and arm.share > 0 and not arm.holds:
            detail = f"only {arm.lowest:.2%} of the rows with {arm.where} have it, below {MIN_PROPENSITY:.0%}"
            out.notes.append(Note(status, label, detail))
    empty = empty_arms(support)
    for name in out.identified:
        mask = refused_mask(model, name, failing, empty)
        if mask.all():
            out.identified[name] = False
        elif mask.any():
            labels = model.coords["treatment" if name in PER_ARM else "contrast"]
            gone = [str(label) for label, lost in zip(labels, mask, strict=True) if lost]
            out.partly[name] = f"not for {', '.join(gone)}"


def _strength(out: Findings, problem: Problem, strata: tuple[Stratum, ...], rng: np.random.Generator) -> int:
    """Add the rank rows, per stratum; return the number of classes that the proxies support."""
    model = problem.model
    k = model.classes
    narrow = min(problem.z.values.shape[1], problem.x.values.shape[1])
    if narrow < k:
        out.notes.append(
            Note(Status.TOO_FEW_FEATURES, "proxies", f"{narrow} features on one side for {k} classes")
        )
        if not few_features(model):  # the graph has enough: the data lack them
            out.identified |= dict.fromkeys(out.identified, False)
    if narrow < 2:
        return 1
    supported = []
    for part, label in [(s.problem, s.label) for s in strata] or [(problem, "")]:
        ranks = measure_ranks(part, N_BOOT, rng)
        suffix = f", {label}" if label else ""
        out.rows += [row | {"where": f"{row['where']}{suffix}"} for row in rank_rows(part, ranks)]
        out.notes += [note.within(label) for note in rank_notes(part, ranks)]
        supported.append(ranks.supported)
    return min(supported)
