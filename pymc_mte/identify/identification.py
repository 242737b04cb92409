"""`identify`: what a model and its data can answer, said before any estimate."""

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from pymc_mte.data import complete_rows, data_notes, resolve
from pymc_mte.errors import ModelError
from pymc_mte.hierarchy import MEANING, Hierarchy, hierarchy
from pymc_mte.identify.findings import Findings, SplitForm, judge_data
from pymc_mte.identify.jacobian import Jacobian, jacobian, n_free
from pymc_mte.identify.likelihood import CLASS_LEVEL, answer_lines, answerable, few_features, likelihood_lines
from pymc_mte.identify.linear_targets import judge_linear
from pymc_mte.identify.mixtures import judge_mixture, moment_route
from pymc_mte.identify.planning import helpful_proxies, plan_lines
from pymc_mte.identify.ranges import range_lines
from pymc_mte.identify.splits import moves_far, split_lines
from pymc_mte.identify.targets import judge_targets
from pymc_mte.model import CausalModel
from pymc_mte.modelfile import need_model
from pymc_mte.moments.classes import lacks_proxies
from pymc_mte.moments.interventions.linear_rows import LinearProblem, linear_problem
from pymc_mte.moments.interventions.rows import TargetProblem, target_problem
from pymc_mte.moments.problem import problem_of
from pymc_mte.moments.strata import split
from pymc_mte.randomness import as_generator
from pymc_mte.status import Note, Status

CHECKS = ["check", "where", "value", "se", "p", "verdict", "advice"]
"""Columns of the table of checks."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Identification:
    """What can be learnt, and on which assumptions it rests.

    Attributes
    ----------
    model : CausalModel
        The model asked about.
    level : str
        ``HTE``, ``mixture``, ``MTE``, ``ATE`` or ``none``: what moment methods reach; ``targets`` for a
        mixture of interventions.
    identified : dict of str to bool
        Per functional and parameter table: whether the likelihood identifies it, locally and at almost
        every parameter, and the data do not refuse it. May differ from ``level``; the report says why.
    checks : pandas.DataFrame
        Columns check, where, value, se, p, verdict (ok, doubt, fail; "no test", "no power"; empty for a
        mere number) and advice.
    supported : int or None
        Number of classes that the proxies tell from noise in every arm with positivity, or without
        proxies that the moments show at least; None without data.
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
    planning : DataFrame or None
        Standard errors that the likelihood allows at the fitted parameters: now, with more rows, and with
        one more proxy (`plan_errors`); None without data, or where the fit would take long.
    ranges : DataFrame or None
        Where something is open: ``low`` and ``high`` of every open answer over all parameters with the
        fitted law, and ``low_90`` and ``high_90`` with sampling error (`functional_ranges`); None without
        data, or where that would take long.
    helpful : tuple of str
        Which proxies would fix what the likelihood leaves open, in a sentence.
    partly : mapping of str to str
        Answers that the data allow for some arms or contrasts only, and for which not.
    route : tuple of str
        Without proxies: how moments take the mixture apart and on which conditions, in sentences.
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
    planning: pd.DataFrame | None = None
    ranges: pd.DataFrame | None = None
    helpful: tuple[str, ...] = ()
    partly: Mapping[str, str] = field(default_factory=dict)
    route: tuple[str, ...] = ()

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
        if model.interventions is not None:
            return list(self.tested)
        question = (
            f"Effect of {model.treatment} on {model.outcome}" if model.treatment else "No effect is asked for"
        )
        hidden = f"{model.classes} hidden classes" if model.classes > 1 else "no hidden class"
        out = [
            f"{question}, with {hidden} assumed.",
            f"By moments, the graph reaches {MEANING[self.graph.level]}.",
            *self.route,
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
        out += answer_lines(model, self.identified, self.partly)
        if self.ranges is not None:
            out += range_lines(model, self.ranges)
        out += self.helpful
        if self.supported is not None:
            found = "The moments show at least" if self.route else "The proxies support"
            out.append(
                f"{found} {self.supported} class{'es' * (self.supported > 1)} "
                f"(the model has {model.classes})."
                + (" These rows do not carry what needs more." if self.supported < model.classes else "")
            )
        if self.splits is not None:
            place = 1 if moves_far(self.splits) else len(out)
            out[place:place] = split_lines(self.splits)
        if self.planning is not None:
            out += plan_lines(self.planning)
        return [*out, *self.tested]

    def __str__(self) -> str:
        """Return the report as text."""
        doubts = [f"- {note}" for note in self.notes]
        return "\n".join([*self.lines(), *(["To doubt:", *doubts] if doubts else [])])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        said = "".join(f"<p>{html.escape(line)}</p>" for line in self.lines())
        doubts = "".join(f"<li>{html.escape(str(note))}</li>" for note in self.notes)
        out = f"<h3>What can be learnt</h3>{said}<ul>{doubts}</ul>{_table(self.checks)}"
        if self.splits is not None:
            out += f"<h4>Other roles of the proxies</h4>{_table(self.splits)}"
        if self.ranges is not None:
            out += f"<h4>Bounds on what stays open</h4>{_table(self.ranges)}"
        if self.planning is not None:
            out += f"<h4>Standard errors to expect</h4>{_table(self.planning.reset_index())}"
        return out


def _table(frame: pd.DataFrame) -> str:
    return str(frame.to_html(index=False, float_format="{:.3g}".format, na_rep=""))


def identify(
    model: CausalModel,
    data: Any = None,
    *,
    interactions: bool = False,
    base: Any = None,
    rng: int | np.random.Generator = 0,
    splits: SplitForm | None = None,
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
    base : tabulated Dataset, dataframe, mapping or path, optional
        For a model with interventions: rows of the untouched network.
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
    need_model("identify", model)
    generator = as_generator(rng)
    if model.interventions is not None:
        return _identify_targets(model, data, base)
    if base is not None:
        raise ModelError("base: only a model with interventions has base rows; leave it out")
    route = moment_route(model) if lacks_proxies(model) else None
    graph = hierarchy(model) if route is None else route.graph
    likelihood = None if model.covariates else jacobian(model)
    found = Findings(identified=answerable(model, graph, likelihood))
    if model.covariates:
        found.identified |= dict.fromkeys(CLASS_LEVEL if graph.level != "HTE" else found.identified, False)
        found.notes.append(Note(Status.COVARIATES_ADJUSTED, f"{len(model.covariates)} covariates"))
    if route is not None:
        found.notes += route.notes
    elif graph.level == "none" and model.treatment is not None:
        found.notes.append(Note(Status.NO_MOMENT_METHOD, "graph"))
    elif data is None and graph.level not in ("HTE", "none"):
        found.notes += few_features(model, interactions)
    if data is not None:
        model, table = resolve(model, data)
        found.notes += data_notes(table)
        table = complete_rows(model, table)
        usable = table.sizes["pattern"] > 0
        if usable and (model.treatment is not None or route is not None):
            problem = problem_of(model, table, interactions=interactions)
        if usable and route is not None:
            whole = table["count"].dtype.kind == "i"
            judge_mixture(found, problem, float(problem.counts.sum()) if whole else np.inf, route)
        if usable and model.treatment is not None:
            judge_data(found, problem, split(problem, table), likelihood, generator, splits)
    return Identification(
        model=model,
        level=graph.level,
        identified=found.identified,
        checks=pd.DataFrame(found.rows, columns=CHECKS),
        supported=found.supported,
        graph=graph,
        jacobian=likelihood,
        notes=tuple(found.notes),
        tested=tuple(found.tested),
        splits=found.splits,
        planning=found.planning,
        ranges=found.ranges,
        partly=found.partly,
        helpful=tuple(helpful_proxies(model)) if likelihood is not None and likelihood.missing else (),
        route=() if route is None else route.sentences,
    )


def _identify_targets(model: CausalModel, data: Any, base: Any) -> Identification:
    """Report on a mixture of interventions, whose classes share every mechanism."""
    notes = []
    if model.linear:
        linear = None if data is None else linear_problem(model, data, base)
        found = judge_linear(model, linear)
        problem: TargetProblem | LinearProblem | None = linear
    else:
        discrete = None if data is None else target_problem(model, data, base)
        found, problem = judge_targets(discrete.model if discrete else model, discrete), discrete
    if problem is not None:
        model, notes = problem.model, data_notes(problem.table)
    return Identification(
        model=model,
        level="targets",
        identified=found.identified,
        checks=pd.DataFrame(found.rows, columns=CHECKS),
        supported=None,
        graph=hierarchy(model),
        jacobian=None,
        notes=(*notes, *found.notes),
        tested=tuple(found.tested),
    )
