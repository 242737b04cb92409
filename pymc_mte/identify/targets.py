"""What can be learnt about a mixture of interventions, in words and as a rank."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pymc_mte.identify.findings import Findings
from pymc_mte.model import CausalModel
from pymc_mte.moments.interventions.checks import RARE_ROWS, smallest_base
from pymc_mte.moments.interventions.network import Network, components
from pymc_mte.moments.interventions.rows import TargetProblem, known_network, listed_targets
from pymc_mte.status import Note, Status

Ints = NDArray[np.int64]

MAX_CELLS = 4_096
"""Largest number of configurations over which candidates are told apart; beyond, the seen ones are used."""

RELATIVE = 1e-10
"""Singular values below this, relative to the largest, are zero."""


@dataclass(frozen=True, kw_only=True)
class Separation:
    """Which shares the law of the rows decides.

    Attributes
    ----------
    rank : int
        Dimensions that the candidates' distributions span.
    decided : ndarray of bool, shape (candidates,)
        Whether the share of each candidate is fixed by the law of the rows.
    """

    rank: int
    decided: NDArray[np.bool_]


def separation(network: Network, candidates: Ints, rows: Ints | None = None) -> Separation:
    """Tell which shares differ whenever the law of the rows does, by the rank of the candidates.

    Parameters
    ----------
    network : Network
        The untouched network.
    candidates : ndarray of int, shape (candidates, nodes)
        Possible targets.
    rows : ndarray of int, shape (patterns, nodes), optional
        Rows to look at where the network has too many configurations to look at all.

    Examples
    --------
    A single coin: leaving it alone looks like a mixture of both forced values.

    >>> coin = Network(parents=((),), tables=(np.array([0.5, 0.5]),))
    >>> separation(coin, np.array([[-1], [0], [1]])).rank
    2
    """
    sizes = network.sizes
    if rows is None or np.prod([float(size) for size in sizes]) <= MAX_CELLS:
        rows = np.indices(sizes).reshape(len(sizes), -1).T
    matrix = components(network, rows, candidates).toarray()
    scale = np.linalg.norm(matrix, axis=0)
    _, values, right = np.linalg.svd(matrix / np.where(scale > 0, scale, 1.0), full_matrices=False)
    space = right[values > RELATIVE * values[0]]
    return Separation(rank=len(space), decided=(space**2).sum(axis=0) > 1 - 1e-6)


def judge_targets(model: CausalModel, problem: TargetProblem | None) -> Findings:
    """Say what a model with interventions can answer; with data, what its base rows allow."""
    found = Findings(identified={"target_weight": True})
    said = [
        f"A mixture of interventions on a known network of {len(model.variables)} variables: each class "
        'forces some variables to a value (its "target", {} for none) and leaves the others alone.',
        "Asked: which targets occur, and the share of each.",
    ]
    network = problem.network if problem is not None else known_network(model)
    candidates = listed_targets(model)
    if candidates is None:
        said += _without_candidates(model, found)
    else:
        said += _with_candidates(network, candidates, found, problem)
    said.append(_base_line(model, problem))
    if problem is not None:
        node, entry, fewest = smallest_base(problem.network)
        low = entry <= 0 or fewest < RARE_ROWS
        row = {"check": "positivity of the base", "where": problem.order[node], "value": entry}
        row |= {"se": np.nan, "p": np.nan, "verdict": "doubt" if low else "ok"}
        found.rows.append({**row, "advice": Status.RARE_BASE.value if low else ""})
        if low:
            detail = f"smallest probability {entry:.2g}, fewest rows for given parents {fewest:.0f}"
            found.notes.append(Note(Status.RARE_BASE, problem.order[node], detail))
    found.tested = said
    return found


def _without_candidates(model: CausalModel, found: Findings) -> list[str]:
    every = float(np.prod([float(model.size(name) + 1) for name in model.variables]))
    found.notes.append(Note(Status.EXCLUSION_ASSUMED, "targets"))
    return [
        f"Any of {every:,.0f} targets may occur, and {model.n_cells:,} configurations cannot tell the "
        "shares of so many apart: untouched rows look like a mixture of all forced values of a variable.",
        "So exclusion is assumed: each variable has a value that no target forces; which one is found "
        "from the data. With it, and a base in which everything occurs, targets and shares are decided.",
        "No data can confirm exclusion; a perfect fit is no evidence for it. The estimate therefore bounds "
        "each share without it too: a target whose lower bound is positive is established without it.",
        "If you know which targets are possible, list them in interventions.targets: intervals hold the "
        "targets as found, and those of searched ones are too short.",
    ]


def _with_candidates(
    network: Network | None, candidates: Ints, found: Findings, problem: TargetProblem | None
) -> list[str]:
    first = f"Only the {len(candidates)} listed targets are taken to be possible."
    if network is None:
        return [first]
    apart = separation(network, candidates, None if problem is None else problem.rows)
    lost = int((~apart.decided).sum())
    if not lost:
        return [first, "Their distributions are linearly independent: the rows decide every share."]
    found.identified["target_weight"] = False
    detail = f"rank {apart.rank} for {len(candidates)} candidates"
    found.notes.append(Note(Status.NOT_SEPARABLE, "targets", detail))
    return [
        first,
        f"Their distributions span only {apart.rank} dimensions, so the rows do not decide the share "
        f"of {lost} of them, however many rows there are. The estimate bounds them; a prior chooses between.",
    ]


def _base_line(model: CausalModel, problem: TargetProblem | None) -> str:
    stated = model.interventions
    assert stated is not None
    if problem is not None and problem.base is not None:
        return f"The untouched network is learnt from {problem.base[1].sum():,.0f} rows of its own."
    if stated.base is not None:
        return "The untouched network is taken as known."
    return (
        "The untouched network is learnt from rows of its own, which `estimate` and `sample` take as `base`."
    )
