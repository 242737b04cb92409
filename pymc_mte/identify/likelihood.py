"""What the likelihood identifies beside the moment methods: flags, and sentences for the report."""

from collections.abc import Mapping
from itertools import combinations

from pymc_mte.hierarchy import MEANING, REACHED, Hierarchy
from pymc_mte.identify.jacobian import MAX_PARAMETERS, Jacobian, n_free
from pymc_mte.model import CausalModel
from pymc_mte.moments.classes import lacks_proxies
from pymc_mte.status import Note, Status

AVERAGES = ("ate", "att", "arm_mean")
CLASS_LEVEL = ("class_weight", "potential_outcome", "effect", "effect_sd", "weight_harmed")
TABLES = "every parameter table"
_OF_SIDES = "Moments of the two sides need the independences of their level"
_WITHOUT_PROXIES = "Moments need slices of the data that are products of tables"


def answerable(model: CausalModel, graph: Hierarchy, found: Jacobian | None) -> dict[str, bool]:
    """Say per functional and parameter table whether the likelihood identifies it.

    Where it was not judged, what the moment methods reach is said instead, and no table is listed.
    """
    names = (*AVERAGES, *CLASS_LEVEL) if model.treatment is not None else ("class_weight",)
    if found is None:
        reached = REACHED[graph.level]
        return {name: ("ate" if name == "arm_mean" else name) in reached for name in names}
    return {name: found.identified[name] for name in dict.fromkeys((*names, *model.posterior_dims))}


def few_features(model: CausalModel, interactions: bool = False) -> list[Note]:
    """Say where a side's proxies have fewer distinguishable values than the moment methods need."""
    notes: list[Note] = []
    if lacks_proxies(model):
        return notes
    for side in (model.treatment_proxies, model.outcome_proxies):
        used = [model.variables[name] for name in side if model.variables[name].latent]
        sizes = [len(var.labels) - 1 if var.discrete else model.classes - 1 for var in used]
        found = 1 + sum(sizes)
        if interactions:
            found += sum(a * b for a, b in combinations(sizes, 2))
        if found < model.classes:
            detail = f"{found} features of {', '.join(side)} for {model.classes} classes"
            notes.append(Note(Status.TOO_FEW_FEATURES, "proxies", detail))
    return notes


def answer_lines(model: CausalModel, identified: dict[str, bool], partly: Mapping[str, str]) -> list[str]:
    """List what can and what cannot be answered; parameter tables are named only where some are lost."""
    tables = [name for name in identified if name in model.owners]
    whole = bool(tables) and all(identified[name] for name in tables)
    listed = {name: good for name, good in identified.items() if not whole or name not in tables}
    yes = [name + (f" ({partly[name]})" if name in partly else "") for name, good in listed.items() if good]
    yes += [TABLES] * whole
    no = [name for name, good in listed.items() if not good]
    lines = ["Can be answered: " + (", ".join(yes) if yes else "nothing") + "."]
    return lines + (["Cannot be answered: " + ", ".join(no) + "."] if no else [])


def likelihood_lines(model: CausalModel, graph: Hierarchy, found: Jacobian | None) -> list[str]:
    """Sentences on the parameters that the likelihood fixes, and on where it and the moments part."""
    if model.covariates:
        return [
            "The likelihood was not judged: covariates are conditioned on, not modelled. What follows is "
            "what moment methods reach."
        ]
    if found is None:
        return [
            f"The likelihood was not judged: the model has {n_free(model):,} parameters, more than "
            f"{MAX_PARAMETERS:,}. What follows is what moment methods reach."
        ]
    lines = [_counted(model, found)]
    if not found.clear:
        lines.append(
            f"This count is not clear-cut: ranks {', '.join(map(str, found.ranks))} at random parameters, "
            f"smallest gap {found.gap:.0f}. Treat the answers as weakly identified."
        )
    if model.treatment is not None:
        lines += _differences(model, graph, found)
    return lines + _shape(model, found)


def _counted(model: CausalModel, found: Jacobian) -> str:
    counted = f"{found.rank} of {found.n_parameters} parameters"
    if not found.free:
        return f"The likelihood fixes {counted} (class weights included), so with enough rows every answer."
    name = next((n for n in ("effect", "class_weight") if n in found.free), next(iter(found.free)))
    first, *rest = found.free[name]
    traded = f"a change in {first} is made up for by {' and '.join(rest)}" if rest else f"{first} can change"
    moved = "1 direction stays" if found.missing == 1 else f"{found.missing} directions stay"
    return (
        f"The likelihood fixes {counted} (class weights included): {moved} free. For example, {traded}, "
        "and the data look the same, however many rows there are."
    )


def _differences(model: CausalModel, graph: Hierarchy, found: Jacobian) -> list[str]:
    reached = REACHED[graph.level]
    known = {name: good for name, good in found.identified.items() if name in REACHED["HTE"]}
    beyond = [name for name, good in known.items() if good and name not in reached]
    short = [name for name, good in known.items() if not good and name in reached]
    lines = []
    if beyond:
        lines.append(
            f"The likelihood answers more than moment methods: {', '.join(beyond)} too. "
            f"{_WITHOUT_PROXIES if lacks_proxies(model) else _OF_SIDES}; the likelihood uses every cell and "
            "every edge that the graph leaves out."
        )
    elif reached and known["effect"] and few_features(model):
        lines.append(
            f"Moment methods need {model.classes} distinguishable values on each side and lack them; the "
            "likelihood answers from all variables together."
        )
    if short:
        lines.append(
            f"The independences would allow {MEANING[graph.level]}, but the observed variables have too few "
            f"levels for {model.classes} classes, so neither moments nor the likelihood fix "
            f"{', '.join(short)}."
        )
    return lines


def _shape(model: CausalModel, found: Jacobian) -> list[str]:
    if not found.needs_shape:
        return []
    shapes = " and ".join(f"{model.variables[v].family} {v}" for v in model.continuous_variables)
    return [
        f"The class weights are fixed by the assumed shape alone ({shapes}): with levels instead, the same "
        "graph would leave them open. If the shape is wrong, so are the class-level answers."
    ]
