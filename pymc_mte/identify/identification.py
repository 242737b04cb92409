"""`identify`: what a model and its data can answer, said before any estimate."""

import html
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from pymc_mte.data import data_notes, resolve
from pymc_mte.hierarchy import MEANING, Hierarchy, hierarchy
from pymc_mte.identify.assumptions import assumption_lines, assumption_notes, assumption_rows
from pymc_mte.identify.jacobian import Jacobian, jacobian, n_free
from pymc_mte.identify.likelihood import CLASS_LEVEL, answer_lines, answerable, few_features, likelihood_lines
from pymc_mte.identify.splits import MAX_WORK, moves_far, n_splits, split_lines, split_notes, splits_table
from pymc_mte.model import CausalModel
from pymc_mte.moments.positivity import (
    MIN_PROPENSITY,
    ArmSupport,
    failing_arms,
    refused_mask,
)
from pymc_mte.moments.problem import Problem, problem_of
from pymc_mte.moments.rank import N_BOOT, measure_ranks
from pymc_mte.moments.rank_report import rank_notes, rank_rows
from pymc_mte.moments.strata import Stratum, split, support_by_stratum
from pymc_mte.status import Note, Status


@dataclass(frozen=True, kw_only=True, repr=False)
class Identification:
    """What can be learnt, and on which assumptions it rests.

    Attributes
    ----------
    model : CausalModel
        The model asked about.
    level : str
        ``HTE``, ``mixture``, ``MTE``, ``ATE`` or ``none``: what moment methods reach.
    identified : dict of str to bool
        Per functional and parameter table: whether the likelihood identifies it, locally and at almost
        every parameter, and the data do not refuse it. May differ from ``level``; the report says why.
    checks : pandas.DataFrame
        Columns check, where, value, se, p, verdict (ok, doubt, fail; "no test", "no power") and advice.
    supported : int or None
        Number of classes that the proxies tell from noise in every arm with positivity; None without
        data.
    graph : Hierarchy
        The level with the independences it needs and the edges that cost the next one.
    jacobian : Jacobian or None
        Ranks, residuals and free directions behind ``identified``; None for more than 1,000 parameters
        or with covariates, which no likelihood describes: ``identified`` then follows the level.
    notes : tuple of Note
        Statuses with advice.
    tested : tuple of str
        What the tests of the assumptions found, in sentences.
    splits : pandas.DataFrame or None
        The table of `role_splits`; None without data, or where it was not made.
    """

    model: CausalModel
    level: str
    identified: dict[str, bool]
    checks: pd.DataFrame
    supported: int | None
    graph: Hierarchy
    jacobian: Jacobian | None
    notes: tuple[Note, ...]
    tested: tuple[str, ...] = ()
    splits: pd.DataFrame | None = None

    @property
    def rank(self) -> int | None:
        """Number of parameters that the likelihood fixes."""
        return None if self.jacobian is None else self.jacobian.rank

    @property
    def n_parameters(self) -> int:
        """Number of free parameters, class weights included."""
        return n_free(self.model)

    def lines(self) -> list[str]:
        """Return the report as plain sentences, the most important first."""
        model = self.model
        question = (
            f"Effect of {model.treatment} on {model.outcome}" if model.treatment else "No effect is asked for"
        )
        out = [
            f"{question}, with {model.classes} hidden class{'es' * (model.classes > 1)} assumed.",
            f"By moments, the graph reaches {MEANING[self.graph.level]}.",
        ]
        if model.covariates or model.strata:
            given = ", ".join((*model.covariates[:8], *model.strata))
            more = f" and {len(model.covariates) - 8} more" if len(model.covariates) > 8 else ""
            out.append(f"All of this is meant given {given}{more}.")
        assumed = [str(item) for item in self.graph.needed if item.holds]
        failing = [str(item) for item in self.graph.needed if not item.holds]
        if assumed:
            out.append("This rests on: " + "; ".join(assumed) + ".")
        if failing:
            out.append("Not granted by the graph: " + "; ".join(failing) + ".")
        if self.graph.costing:
            edges = " and ".join(f"{a} -> {b}" for a, b in self.graph.costing)
            out.append(f"The next level would need a graph without {edges}.")
        out += likelihood_lines(model, self.graph, self.jacobian)
        out += answer_lines(model, self.identified)
        if self.supported is not None:
            out.append(
                f"The proxies support {self.supported} class{'es' * (self.supported > 1)} "
                f"(the model has {model.classes})."
            )
        if self.splits is not None:
            place = 1 if moves_far(self.splits) else len(out)
            out[place:place] = split_lines(self.splits)
        return [*out, *self.tested]

    def __str__(self) -> str:
        """Return the report as text."""
        doubts = [f"- {note}" for note in self.notes]
        return "\n".join([*self.lines(), *(["To doubt:", *doubts] if doubts else [])])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        said = "".join(f"<p>{html.escape(line)}</p>" for line in self.lines())
        doubts = "".join(f"<li>{html.escape(str(note))}</li>" for note in self.notes)
        table = self.checks.to_html(index=False, float_format="{:.3g}".format, na_rep="")
        return f"<h3>What can be learnt</h3>{said}<ul>{doubts}</ul>{table}"


def identify(
    model: CausalModel,
    data: Any = None,
    *,
    interactions: bool = False,
    rng: int | np.random.Generator = 0,
    splits: Literal["bridge", "two-stage", "none"] | None = None,
) -> Identification:
    """Say what a model can answer, from its graph and, if given, from the data.

    Parameters
    ----------
    model : CausalModel
        The model.
    data : tabulated Dataset, dataframe, mapping or path, optional
        Rows for the data checks: positivity per arm, proxy strength per arm, the number of distinct
        effects, and tests of what the independences imply. Without data only the graph is judged.
    interactions : bool
        Whether products of the features of any two proxies of one side count too, as in `estimate`.
    rng : int or numpy.random.Generator
        Source of the resamples behind the standard errors.
    splits : {"bridge", "two-stage", "none"}, optional
        Answer with other roles of the proxies too, in this form of `role_splits`; by default by the
        bridge where that is quick.

    Returns
    -------
    Identification
        Prints as a report; ``level``, ``identified`` and ``checks`` for programs.

    Examples
    --------
    >>> from pymc_mte import load_model
    >>> answer = identify(load_model("gallery:level4"))
    >>> answer.level, answer.identified["ate"], answer.identified["effect"]
    ('ATE', True, False)
    """
    graph = hierarchy(model)
    likelihood = None if model.covariates else jacobian(model)
    identified = answerable(model, graph, likelihood)
    notes: list[Note] = []
    if model.covariates:
        identified |= dict.fromkeys(CLASS_LEVEL, False)
        notes.append(Note(Status.COVARIATES_ADJUSTED, f"{len(model.covariates)} covariates"))
    rows: list[dict[str, object]] = []
    supported = None
    tested: list[str] = []
    table_of_splits = None
    if graph.level == "none" and model.treatment is not None:
        notes.append(Note(Status.NO_MOMENT_METHOD, "graph"))
    elif data is None and graph.level not in ("HTE", "none"):
        notes += few_features(model, interactions)
    if data is not None:
        model, table = resolve(model, data)
        notes += data_notes(table)
        if model.treatment is not None:
            problem = problem_of(model, table, interactions=interactions)
            strata = split(problem, table)
            support = support_by_stratum(problem, strata)
            rows += _positivity(model, support, identified, notes)
            if model.classes > 1 and graph.level != "none":
                notes += [*problem.z.notes, *problem.x.notes]
                generator = np.random.default_rng(rng)
                supported = _strength(problem, strata, generator, rows, notes, identified)
                tested = _test_assumptions(problem, strata, supported, generator, rows, notes)
                quick = n_splits(model) * len(problem.counts) * problem.n_given <= MAX_WORK
                form = splits if splits is not None else "bridge" if quick else "none"
                if not strata and form != "none":
                    table_of_splits = splits_table(problem, form)
                    notes += split_notes(table_of_splits)
    checks = pd.DataFrame(rows, columns=["check", "where", "value", "se", "p", "verdict", "advice"])
    return Identification(
        model=model,
        level=graph.level,
        identified=identified,
        checks=checks,
        supported=supported,
        graph=graph,
        jacobian=likelihood,
        notes=tuple(notes),
        tested=tuple(tested),
        splits=table_of_splits,
    )


def _test_assumptions(
    problem: Problem,
    strata: tuple[Stratum, ...],
    supported: int,
    rng: np.random.Generator,
    rows: list[dict[str, object]],
    notes: list[Note],
) -> list[str]:
    """Add a row per testable consequence of the graph; return what they say together."""
    if problem.counts.sum() <= 1 or len(problem.arms) < 2:
        return []
    if strata or problem.covariates is not None:
        return ["The assumptions were not tested: the tests take no covariates or strata yet."]
    if supported < problem.model.classes:
        return ["The assumptions were not tested: the tests need proxies that support the model's classes."]
    found = assumption_rows(problem, N_BOOT, rng)
    rows += found
    notes += assumption_notes(found)
    return assumption_lines(found)


def _positivity(
    model: CausalModel,
    support: tuple[ArmSupport, ...],
    identified: dict[str, bool],
    notes: list[Note],
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
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
        rows.append(row)
        if arm.share == 0 and arm.stratum:
            notes.append(Note(status, label, "0 rows"))
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
            rows.append(row)
        if arm.arm in failing and arm.share > 0 and not arm.holds:
            detail = f"only {arm.lowest:.2%} of the rows with {arm.where} have it, below {MIN_PROPENSITY:.0%}"
            notes.append(Note(status, label, detail))
    for name in identified:
        if refused_mask(model, name, failing).all():
            identified[name] = False
    return rows


def _strength(
    problem: Problem,
    strata: tuple[Stratum, ...],
    rng: np.random.Generator,
    rows: list[dict[str, object]],
    notes: list[Note],
    identified: dict[str, bool],
) -> int:
    """Add the rank rows, per stratum; return the number of classes that the proxies support."""
    model = problem.model
    k = model.classes
    narrow = min(problem.z.values.shape[1], problem.x.values.shape[1])
    if narrow < k:
        notes.append(
            Note(Status.TOO_FEW_FEATURES, "proxies", f"{narrow} features on one side for {k} classes")
        )
        if not few_features(model):  # the graph has enough: the data lack them
            identified |= dict.fromkeys(identified, False)
    if narrow < 2:
        return 1
    supported = []
    for part, label in [(s.problem, s.label) for s in strata] or [(problem, "")]:
        ranks = measure_ranks(part, N_BOOT, rng)
        suffix = f", {label}" if label else ""
        rows += [row | {"where": f"{row['where']}{suffix}"} for row in rank_rows(part, ranks)]
        notes += [note.within(label) for note in rank_notes(part, ranks)]
        supported.append(ranks.supported)
    return min(supported)
