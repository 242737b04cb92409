"""`identify`: what a model and its data can answer, said before any estimate."""

import html
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pymc_mte.data import data_notes, resolve
from pymc_mte.hierarchy import MEANING, REACHED, Hierarchy, hierarchy
from pymc_mte.identify.assumptions import assumption_lines, assumption_notes, assumption_rows
from pymc_mte.identify.splits import MAX_WORK, moves_far, n_splits, split_lines, split_notes, splits_table
from pymc_mte.model import CausalModel
from pymc_mte.moments.positivity import (
    MIN_PROPENSITY,
    ArmSupport,
    arm_support,
    failing_arms,
    refused_mask,
)
from pymc_mte.moments.problem import Problem, problem_of
from pymc_mte.moments.strength import ArmStrength, proxy_strength, strength_notes, supported_classes
from pymc_mte.status import Note, Status

N_BOOT = 200
"""Replicates behind the standard errors of the canonical correlations."""

CLASS_LEVEL = ("class_weight", "potential_outcome", "effect", "effect_sd", "weight_harmed")
AVERAGES = ("ate", "att")


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
        Per functional, whether graph and data carry it.
    checks : pandas.DataFrame
        Columns check, where, value, se, p, verdict (ok, doubt, fail; "no test", "no power") and advice.
    supported : int or None
        Number of classes that the proxies tell from noise in every arm; None without data.
    graph : Hierarchy
        The level with the independences it needs and the edges that cost the next one.
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
    notes: tuple[Note, ...]
    tested: tuple[str, ...] = ()
    splits: pd.DataFrame | None = None

    def lines(self) -> list[str]:
        """Return the report as plain sentences, the most important first."""
        model = self.model
        question = (
            f"Effect of {model.treatment} on {model.outcome}" if model.treatment else "No effect is asked for"
        )
        out = [
            f"{question}, with {model.classes} hidden class{'es' * (model.classes > 1)} assumed.",
            f"The graph reaches {MEANING[self.graph.level]}.",
        ]
        assumed = [str(item) for item in self.graph.needed if item.holds]
        failing = [str(item) for item in self.graph.needed if not item.holds]
        if assumed:
            out.append("This rests on: " + "; ".join(assumed) + ".")
        if failing:
            out.append("Not granted by the graph: " + "; ".join(failing) + ".")
        if self.graph.costing:
            edges = " and ".join(f"{a} -> {b}" for a, b in self.graph.costing)
            out.append(f"The next level would need a graph without {edges}.")
        yes = [name for name, good in self.identified.items() if good]
        no = [name for name, good in self.identified.items() if not good]
        out.append("Can be answered: " + (", ".join(yes) if yes else "nothing") + ".")
        if no:
            out.append("Cannot be answered: " + ", ".join(no) + ".")
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
    rng: int | np.random.Generator = 0,
    splits: bool | None = None,
) -> Identification:
    """Say what a model can answer, from its graph and, if given, from the data.

    Parameters
    ----------
    model : CausalModel
        The model.
    data : tabulated Dataset, dataframe, mapping or path, optional
        Rows for the data checks: positivity per arm, proxy strength per arm, and tests of what the
        independences imply. Without data only the graph is judged.
    rng : int or numpy.random.Generator
        Source of the resamples behind the standard errors.
    splits : bool, optional
        Whether to answer with other roles of the proxies too; by default where that is quick.

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
    names = (*AVERAGES, *CLASS_LEVEL) if model.treatment is not None else ()
    identified = {name: name in REACHED[graph.level] for name in names}
    notes: list[Note] = []
    rows: list[dict[str, object]] = []
    supported = None
    tested: list[str] = []
    table_of_splits = None
    if graph.level == "none" and model.treatment is not None:
        notes.append(Note(Status.NO_MOMENT_METHOD, "graph"))
    elif data is None and graph.level not in ("HTE", "none"):
        _count_features(model, identified, notes)
    if data is not None:
        model, table = resolve(model, data)
        notes += data_notes(table)
        if model.treatment is not None:
            problem = problem_of(model, table)
            support = arm_support(model, problem.columns, problem.counts)
            rows += _positivity(model, support, identified, notes)
            if model.classes > 1 and graph.level != "none":
                notes += [*problem.z.notes, *problem.x.notes]
                generator = np.random.default_rng(rng)
                supported = _strength(problem, generator, rows, notes, identified)
                tested = _test_assumptions(problem, supported, generator, rows, notes)
                if splits or (splits is None and n_splits(model) * len(problem.counts) <= MAX_WORK):
                    table_of_splits = splits_table(problem)
                    notes += split_notes(table_of_splits)
    checks = pd.DataFrame(rows, columns=["check", "where", "value", "se", "p", "verdict", "advice"])
    return Identification(
        model=model,
        level=graph.level,
        identified=identified,
        checks=checks,
        supported=supported,
        graph=graph,
        notes=tuple(notes),
        tested=tuple(tested),
        splits=table_of_splits,
    )


def _test_assumptions(
    problem: Problem,
    supported: int,
    rng: np.random.Generator,
    rows: list[dict[str, object]],
    notes: list[Note],
) -> list[str]:
    """Add a row per testable consequence of the graph; return what they say together."""
    if problem.counts.sum() <= 1 or len(problem.arms) < 2:
        return []
    if supported < problem.model.classes:
        return ["The assumptions were not tested: the tests need proxies that support the model's classes."]
    found = assumption_rows(problem, N_BOOT, rng)
    rows += found
    notes += assumption_notes(found)
    return assumption_lines(found)


def _count_features(model: CausalModel, identified: dict[str, bool], notes: list[Note]) -> None:
    """Refuse more classes than the proxies of a side have distinguishable values."""
    for side in (model.treatment_proxies, model.outcome_proxies):
        found = 1
        for name in side:
            var = model.variables[name]
            if var.latent:
                found += len(var.labels) - 1 if var.discrete else model.classes - 1
        if found < model.classes:
            detail = f"{found} features of {', '.join(side)} for {model.classes} classes"
            notes.append(Note(Status.TOO_FEW_FEATURES, "proxies", detail))
            identified |= dict.fromkeys(identified, False)


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
        status = Status.OK if arm.holds else Status.POSITIVITY if arm.share > 0 else Status.EMPTY_ARM
        row: dict[str, object] = {"check": "share of arm", "where": label, "value": arm.share}
        row |= {
            "verdict": "ok" if arm.share > 0 else "fail",
            "advice": "" if arm.share > 0 else status.value,
        }
        rows.append(row)
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
        if arm.arm in failing and arm.share > 0:
            detail = f"only {arm.lowest:.2%} of the rows with {arm.where} have it, below {MIN_PROPENSITY:.0%}"
            notes.append(Note(status, label, detail))
    for name in identified:
        if refused_mask(model, name, failing).all():
            identified[name] = False
    return rows


def _strength(
    problem: Problem,
    rng: np.random.Generator,
    rows: list[dict[str, object]],
    notes: list[Note],
    identified: dict[str, bool],
) -> int:
    """Add the proxy strength rows; return the number of classes that they support."""
    model = problem.model
    k = model.classes
    narrow = min(problem.z.values.shape[1], problem.x.values.shape[1])
    if narrow < k:
        notes.append(
            Note(Status.TOO_FEW_FEATURES, "proxies", f"{narrow} features on one side for {k} classes")
        )
        for name in identified:
            identified[name] = False
    if narrow < 2:
        return 1
    n_boot = N_BOOT if problem.counts.sum() > 1 else 0
    strength = proxy_strength(problem, n_boot, rng)
    for arm in strength:
        label = f"{model.treatment} = {model.arms[arm.arm]}"
        for i, value in enumerate(arm.correlation[: max(k, 2)]):
            verdict, advice = _verdict(arm, i, k)
            row: dict[str, object] = {
                "check": f"canonical correlation {i + 1}",
                "where": label,
                "value": value,
            }
            rows.append(row | {"se": arm.se[i], "p": arm.p_value[i], "verdict": verdict, "advice": advice})
    notes += strength_notes(problem, strength)
    return supported_classes(strength)


def _verdict(arm: ArmStrength, i: int, classes: int) -> tuple[str, str]:
    """Judge one canonical correlation: needed ones must stand out, further ones hint at more classes."""
    strong = arm.p_value[i] < 0.05
    if i + 1 <= classes - 1:
        return ("ok", "") if strong else ("doubt", Status.WEAK_PROXIES.value)
    if strong:
        return "doubt", Status.MORE_DIRECTIONS.value
    return "ok", ""
