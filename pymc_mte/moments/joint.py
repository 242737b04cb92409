"""Proxies of one side tied to each other: any joint distribution given the class. NumPy only."""

from dataclasses import replace
from itertools import accumulate
from typing import Literal

import numpy as np

from pymc_mte.errors import ModelError
from pymc_mte.model import CausalModel
from pymc_mte.moments.problem import Problem

Proxies = Literal["independent", "joint"]

MAX_JOINT_CELLS = 4_096
"""Largest joint table (cells per class) of the proxies of one side."""


def with_proxies(problem: Problem, proxies: str, method: str) -> Problem:
    """Put a data set under the graph whose proxies are tied as asked.

    Parameters
    ----------
    problem : Problem
        The data set.
    proxies : {"independent", "joint"}
        Leave the graph as it is, or tie the proxies of each side (`joint_proxies`).
    method : str
        The method chosen; only ``polished`` uses more of the proxies than their features.
    """
    if proxies not in ("independent", "joint") or (proxies == "joint" and method != "polished"):
        raise ModelError(
            f"proxies {proxies!r} with method {method!r}: use 'independent' with any method, or 'joint' "
            "with method='polished'; for other methods interactions=True does the like"
        )
    if proxies == "independent":
        return problem
    return replace(problem, model=joint_proxies(problem.model), cache={})


def joint_proxies(model: CausalModel) -> CausalModel:
    """Add edges so that the proxies of each side may have any joint distribution given the class.

    Every proxy gets the earlier ones of its side as parents, in the order of the graph. Given the class
    and their other parents, the chain of tables is the full joint table, so that nothing is assumed
    about how they depend on each other; the proxies keep their names, and a stated truth carries over.

    Parameters
    ----------
    model : CausalModel
        A model whose sides with two or more proxies hold only discrete ones that vary with the class.

    Raises
    ------
    ModelError
        If such a side holds another kind of proxy, or its joint table is too large.

    Examples
    --------
    >>> from pymc_mte import load_model
    >>> joint_proxies(load_model("gallery:paper_pair")).dims["p_x1"]
    ('class', 'x0', 'x1')
    """
    added: dict[str, tuple[str, ...]] = {}
    for side in (model.treatment_proxies, model.outcome_proxies):
        ordered = [name for name in model.order if name in side]
        if len(ordered) > 1:
            _check_side(model, ordered)
        for name, earlier in zip(ordered[1:], accumulate([v] for v in ordered), strict=False):
            added[name] = tuple(v for v in earlier if v not in model.variables[name].parents)
    variables = {
        name: var.model_copy(update={"parents": (*var.parents, *added.get(name, ()))})
        for name, var in model.variables.items()
    }
    truth = None if model.truth is None else {**model.truth, **_spread_truth(model, added)}
    return model.with_fields(variables=variables, truth=truth)


def _check_side(model: CausalModel, side: list[str]) -> None:
    for name in side:
        var = model.variables[name]
        if not (var.discrete and var.latent):
            kind = "is continuous" if not var.discrete else "does not vary with the class (latent = false)"
            raise ModelError(
                f"proxies='joint': {name!r} {kind}, and only discrete proxies that vary with the class have "
                "a joint table; cut it into levels, take it out of the roles, or use proxies='independent'"
            )
    cells = int(np.prod([float(model.size(name)) for name in side]))
    if cells > MAX_JOINT_CELLS:
        raise ModelError(
            f"proxies='joint': the joint table of {', '.join(side)} would have {cells} cells per class, more "
            f"than {MAX_JOINT_CELLS}; use fewer proxies or levels on this side, or proxies='independent'"
        )


def _spread_truth(model: CausalModel, added: dict[str, tuple[str, ...]]) -> dict[str, dict[str, object]]:
    """Repeat the true tables over parents that do not matter."""
    known, out = model.true_parameters(), {}
    for name, parents in added.items():
        table = np.moveaxis(known[f"p_{name}"], -1, 0)
        sizes = [model.size(v) for v in parents]
        table = np.broadcast_to(table.reshape(*table.shape, *[1] * len(sizes)), (*table.shape, *sizes))
        bernoulli = model.variables[name].family == "bernoulli"
        out[name] = {"p": (table[1] if bernoulli else np.moveaxis(table, 0, -1)).tolist()}
    return out
