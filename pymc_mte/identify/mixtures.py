"""Mixtures without proxies: what moments reach, on which conditions, and what the data show of it."""

from dataclasses import dataclass
from math import prod

from pymc_mte.hierarchy import Hierarchy, LevelName
from pymc_mte.identify.findings import Findings
from pymc_mte.model import CausalModel
from pymc_mte.moments.checks import RANK_SHOWN, data_checks
from pymc_mte.moments.classes import METHODS_OF, ClassProblem, draws_of, kind_of, separation
from pymc_mte.moments.plan import Family, Plan, plan
from pymc_mte.moments.problem import Problem
from pymc_mte.status import Note, Status

SEPARATION = "separation of the closest classes, by moments"
LIGHTEST = "smallest class weight, by moments"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What moment methods reach without proxies.

    Attributes
    ----------
    graph : Hierarchy
        Its level is ``mixture`` or ``none``.
    sentences : tuple of str
        How they get there, on which conditions, or why they do not.
    notes : tuple of Note
        What to doubt before any data.
    """

    graph: Hierarchy
    sentences: tuple[str, ...]
    notes: tuple[Note, ...] = ()


def moment_route(model: CausalModel) -> Route:
    """Judge by which conditions moments identify a mixture of repeated draws, products or networks.

    Parameters
    ----------
    model : CausalModel
        A model without proxies.

    Examples
    --------
    >>> coins = CausalModel(classes=3, variables={"heads": {"family": "binomial", "trials": 4}})
    >>> moment_route(coins).graph.level
    'none'
    """
    if model.classes == 1:
        return Route(
            graph=_reached(True), sentences=("There is one class, so nothing is to be taken apart.",)
        )
    if kind_of(model) == "coins":
        return _of_coins(model)
    if model.linear_edges:
        said = "Moments without proxies take tables only, and this graph has linear parents."
        return Route(graph=_reached(False), sentences=(said,))
    return _of_network(model, plan(model))


def judge_mixture(out: Findings, problem: Problem, rows: float, route: Route) -> None:
    """Add what the data show without a fit: rank, runs of the plan, separation of the classes by moments.

    Parameters
    ----------
    out : Findings
        Changed in place.
    problem : Problem
        The data of a model without proxies.
    rows : float
        Number of rows; infinite for a population table.
    route : Route
        From `moment_route`.
    """
    model = problem.model
    if model.classes == 1 or model.linear_edges:
        return
    setup = ClassProblem(problem=problem, rows=rows)
    notes: list[Note] = []
    for found in data_checks(setup, notes):
        row: dict[str, object] = {"check": found.check, "where": found.where, "value": found.value}
        out.rows.append(row | {"verdict": found.verdict, "advice": found.advice})
        if found.check == RANK_SHOWN:
            out.supported = int(found.value)
    out.notes += [note for note in notes if note not in out.notes]
    if route.graph.level == "none":
        return
    answer = setup.values(METHODS_OF[setup.kind][0], problem.counts[None])
    tables = {name: value for name, value in answer.items() if name in model.dims}
    told = [(SEPARATION, name, float(gap[0])) for name, gap in separation(model, tables).items()]
    told.append((LIGHTEST, "", float(answer["class_weight"].min())))
    out.rows += [{"check": c, "where": w, "value": v, "verdict": "", "advice": ""} for c, w, v in told]


def _reached(whole: bool) -> Hierarchy:
    level: LevelName = "mixture" if whole else "none"
    return Hierarchy(level, (), (), level)


def _of_coins(model: CausalModel) -> Route:
    """2K moments, the zeroth included, fix K coins; one more tests that K is enough."""
    n, k = draws_of(model), model.classes
    need = 2 * k - 1
    name = next(iter(model.variables))
    notes: tuple[Note, ...] = ()
    if n < need:
        said = f"{name} repeats one mechanism {n} times, and {k} classes need {need} draws per row (2K - 1)."
        notes = (Note(Status.TOO_FEW_DRAWS, name, f"{n} draws for {k} classes"),)
        return Route(graph=_reached(False), sentences=(said,), notes=notes)
    said = f"{name} repeats one mechanism {n} times; {need} draws per row (2K - 1) identify {k} classes."
    if n == need:
        said += f" No draw is left over to test that {k} classes are enough; that takes {need + 1}."
        notes = (Note(Status.WEAK_DESIGN, name, f"{n} draws per row are the least for {k} classes"),)
    return Route(graph=_reached(True), sentences=(said,), notes=notes)


def _of_network(model: CausalModel, found: Plan) -> Route:
    """Slices of the data that are products, and Kruskal's condition in them."""
    if not found.families:
        said = (
            f"Moments need three groups of variables that a few others cut apart within a class, two of them "
            f"with at least {model.classes} joint levels; no choice of variables to condition on leaves such "
            "groups."
        )
        return Route(graph=_reached(False), sentences=(said,), notes=(Note(Status.NO_PLAN, "graph"),))
    first, runs = found.families[0], found.n_runs[0]
    lines = [f"The plan: {first}, in {runs} run{'s' if runs > 1 else ''}."]
    lines += _conditions(found, first)
    if not model.continuous_variables:
        return Route(graph=_reached(True), sentences=tuple(lines))
    lines.append(
        f"The moment methods work on tables and {model.continuous_variables[0]} is continuous, so they start "
        "the likelihood and give no answer of their own."
    )
    notes = (Note(Status.NO_MOMENT_METHOD, "continuous variables"),)
    return Route(graph=_reached(False), sentences=tuple(lines), notes=notes)


def _conditions(found: Plan, family: Family) -> list[str]:
    """Kruskal's condition for the best grouping, and whether there are 2K - 1 independent blocks."""
    model, k = found.model, found.model.classes
    groups = found.groups(family)
    ranks = [min(k, prod(model.size(v) for v in group)) for group in groups]
    names = ["{" + ", ".join(group) + "}" for group in groups]
    lines = [
        f"Kruskal's condition holds for almost every table: {', '.join(names)} have ranks "
        f"{' + '.join(map(str, ranks))} = {sum(ranks)}, and {2 * k + 2} are enough for {k} classes."
    ]
    blocks = sum(any(model.variables[v].latent for v in block) for block in family.blocks)
    need = 2 * k - 1
    if blocks >= need:
        said = (
            f"With {blocks} independent blocks, and {need} (2K - 1) are enough, the answer is unique for "
            "every table in which each block tells all classes apart."
        )
    else:
        said = (
            f"The {blocks} independent blocks are fewer than {need} (2K - 1), so exceptions exist even where "
            "each block tells all classes apart."
        )
    return [*lines, said]
