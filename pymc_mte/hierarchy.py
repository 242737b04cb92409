"""The hierarchy of what moment methods reach, read off the graph by d-separation."""

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import networkx as nx

from pymc_mte.model import CausalModel

LevelName = Literal["HTE", "mixture", "MTE", "ATE", "none"]

LATENT = "latent class"

LADDER: tuple[LevelName, ...] = ("ATE", "MTE", "mixture", "HTE")
"""The levels, each answering more and resting on more than the one before."""

MEANING: dict[LevelName, str] = {
    "HTE": "effects within observed groups (no latent confounding is assumed)",
    "mixture": "the whole mixture: class weights and every distribution given the class",
    "MTE": "the mixture of treatment effects: class weights, class effects, average effects",
    "ATE": "average effects only; class effects and class weights are out of reach",
    "none": "nothing",
}

REACHED: dict[LevelName, frozenset[str]] = {
    "HTE": frozenset(
        {"class_weight", "effect", "potential_outcome", "ate", "att", "effect_sd", "weight_harmed"}
    ),
    "mixture": frozenset(
        {"class_weight", "effect", "potential_outcome", "ate", "att", "effect_sd", "weight_harmed"}
    ),
    "MTE": frozenset(
        {"class_weight", "effect", "potential_outcome", "ate", "att", "effect_sd", "weight_harmed"}
    ),
    "ATE": frozenset({"ate", "att"}),
    "none": frozenset(),
}
"""Functionals that the moment methods of each level recover."""


@dataclass(frozen=True, slots=True)
class Independence:
    """One conditional independence that a level needs.

    Attributes
    ----------
    left, right, given : frozenset of str
        ``left`` independent of ``right`` given ``given``.
    holds : bool
        Whether the graph implies it.
    """

    left: frozenset[str]
    right: frozenset[str]
    given: frozenset[str]
    holds: bool

    def __str__(self) -> str:
        """Return the independence in words."""
        left, right, given = (", ".join(sorted(s)) for s in (self.left, self.right, self.given))
        return f"{left} independent of {right} given {given}"


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """The level that the graph reaches, why, and what costs the next one.

    Attributes
    ----------
    level : str
        ``HTE``, ``mixture``, ``MTE``, ``ATE`` or ``none``.
    needed : tuple of Independence
        The independences that the level rests on.
    costing : tuple of (str, str)
        Observed edges whose removal would reach a higher level.
    without : str
        The level without these edges; the same as ``level`` where none is named.
    """

    level: LevelName
    needed: tuple[Independence, ...]
    costing: tuple[tuple[str, str], ...]
    without: LevelName


def hierarchy(model: CausalModel) -> Hierarchy:
    """Find the level of the hierarchy that a model's graph reaches.

    Parameters
    ----------
    model : CausalModel
        A model with treatment and outcome; proxies may be missing.

    Examples
    --------
    >>> from pymc_mte import load_model
    >>> hierarchy(load_model("gallery:level4")).level
    'ATE'
    """
    graph = _with_latent(model)
    level, needed = _level(model, graph)
    ranks: list[LevelName] = ["none", *LADDER]
    costing: tuple[tuple[str, str], ...] = ()
    without = level
    edges = [e for e in model.graph.edges if e != (model.treatment, model.outcome)]
    for size in (1, 2):
        if level in ("HTE", "mixture") or costing:
            break
        for cut in combinations(edges, size):
            smaller = graph.copy()
            smaller.remove_edges_from(cut)
            reached = _level(model, smaller)[0]
            if ranks.index(reached) > ranks.index(level):
                costing, without = cut, reached
                break
    return Hierarchy(level, needed, costing, without)


def _with_latent(model: CausalModel) -> "nx.DiGraph[str]":
    graph = model.graph.copy()
    graph.add_edges_from((LATENT, name) for name, var in model.variables.items() if var.latent)
    graph.add_node(LATENT)
    return graph


def _level(model: CausalModel, graph: "nx.DiGraph[str]") -> tuple[LevelName, tuple[Independence, ...]]:
    if model.treatment is None or model.outcome is None:
        return "none", ()
    if model.classes == 1:
        return "HTE", ()
    if (open_path := _back_door(model, graph)) is not None:
        return "none", (open_path,)
    checked: tuple[Independence, ...] = ()
    for level in ("mixture", "MTE", "ATE"):
        checked = tuple(
            Independence(frozenset(a), frozenset(b), frozenset(c), nx.is_d_separator(graph, a, b, c))
            for a, b, c in _wanted(model, level)
        )
        if checked and all(item.holds for item in checked):
            return level, checked
    return "none", checked


def _back_door(model: CausalModel, graph: "nx.DiGraph[str]") -> Independence | None:
    """Return what an observed common cause of treatment and outcome breaks; None if there is none."""
    t, y = str(model.treatment), str(model.outcome)
    others = graph.copy()
    others.remove_edges_from(list(graph.out_edges(t)))
    if nx.is_d_separator(others, {t}, {y}, {LATENT}):
        return None
    shared = nx.ancestors(others, t) & nx.ancestors(others, y) - {LATENT}
    causes = f" (they share {', '.join(sorted(shared))})" if shared else ""
    return Independence(
        frozenset({t}), frozenset({y + causes}), frozenset({LATENT, "no effect"}), holds=False
    )


def failing(model: CausalModel, level: LevelName) -> tuple[Independence, ...]:
    """Return the parts of the independences of a level that the graph does not imply.

    Parameters
    ----------
    model : CausalModel
        A model with treatment and outcome.
    level : str
        ``mixture``, ``MTE`` or ``ATE``; the others need no independence among observed variables.

    Examples
    --------
    >>> from pymc_mte import load_model
    >>> [str(item) for item in failing(load_model("gallery:level4"), "MTE")]
    ['x independent of y given latent class']
    """
    graph, out = _with_latent(model), []
    if model.treatment is not None and model.outcome is not None:
        out += [item for item in (_back_door(model, graph),) if item is not None]
    for left, right, given in _wanted(model, level):
        tied = [(a, b) for a in left for b in right if not nx.is_d_separator(graph, {a}, {b}, given)]
        if tied:
            sides = (frozenset(a for a, _ in tied), frozenset(b for _, b in tied))
            out.append(Independence(*sides, frozenset(given), holds=False))
    return tuple(out)


def _wanted(model: CausalModel, level: LevelName) -> list[tuple[set[str], set[str], set[str]]]:
    """Independences (left, right, given) of a level; none without treatment or proxies of a side."""
    t, y = model.treatment, model.outcome
    z, x = set(model.treatment_proxies), set(model.outcome_proxies)
    if t is None or y is None or not z or not x:
        return []
    wanted: dict[LevelName, list[tuple[set[str], set[str], set[str]]]] = {
        "mixture": [(z, {t, y}, {LATENT}), (x, {t, y}, {LATENT}), (z, x, {LATENT})],
        "MTE": [(x, {t, y} | z, {LATENT}), (z, {y}, {LATENT, t})],
        "ATE": [(x, {t}, {LATENT}), (z, {y} | x, {LATENT, t})],
    }
    return wanted.get(level, [])
