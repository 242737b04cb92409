"""What tells two rungs of the ladder apart: the edges that one forbids, and whether a gap would show them.

NumPy, SciPy and NetworkX only.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pymc_mte.model import CausalModel
from pymc_mte.moments.edges import LEVEL, POWERLESS, Edge, law_shifts, noncentralities
from pymc_mte.moments.ladder import Gap, Ladder, Rungs, answers, fitted_table, law_counts, stacked
from pymc_mte.moments.methods import bridge_values, spectral_values
from pymc_mte.moments.problem import Problem
from pymc_mte.moments.scores import Scores, from_free, information, inverse_information, to_free

Array = NDArray[np.float64]

STEP = 0.02
"""Share of a shift that derivatives are taken over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GapPower:
    """Whether the gap between two rungs would show one edge that only the second forbids.

    Attributes
    ----------
    edge : (str, str)
        Parent and child.
    by : str
        ``arms`` or ``classes``: where the shift may differ.
    power : tuple of (float, float, float)
        Probability that the joint test rejects at 5% if the edge shifts its child by half a unit of
        log-odds per standard deviation of the parent: alike everywhere; in one place only, where it is seen
        best; with the other sign in one place, where it is seen worst.
    """

    edge: Edge
    by: str
    power: tuple[float, float, float]

    @property
    def blind(self) -> str:
        """In words, which of these shifts the gap hardly shows; empty if none."""
        alike, apart, against = self.power
        arrow = f"{self.edge[0]} -> {self.edge[1]}"
        if max(self.power) < POWERLESS:
            return arrow
        said = []
        if alike < POWERLESS:
            said.append(f"is alike in all {self.by}")
        if apart < POWERLESS:
            said.append(f"is there in one of the {self.by} only")
        if against < POWERLESS:
            said.append(f"changes its sign between {self.by}")
        return f"{arrow} that {' or '.join(said)}" if said else ""


def freed_edges(model: CausalModel, rungs: tuple[str, str]) -> tuple[Edge, ...]:
    """Edges that the first rung allows and the second one takes for absent.

    Examples
    --------
    >>> from pymc_mte import load_model
    >>> freed_edges(load_model("gallery:level3"), ("bridge", "spectral"))
    (('x', 'y'),)
    """
    z, x = model.treatment_proxies, model.outcome_proxies
    t, y = str(model.treatment), str(model.outcome)
    wanted: list[Edge] = []
    if rungs[0] == "bridge":
        wanted += [(name, y) for name in x]
    if rungs[1] == "ml":
        wanted += [(name, t) for name in z]
        place = {name: i for i, name in enumerate(model.order)}
        for side in (z, x):
            wanted += list(combinations(sorted(side, key=place.__getitem__), 2))
    return tuple(
        (a, b) for a, b in wanted if not model.graph.has_edge(a, b) and not model.graph.has_edge(b, a)
    )


def gap_power(problem: Problem, ladder: Ladder, gap: Gap) -> tuple[GapPower, ...]:
    """Find the power of a gap's joint test against every edge that only its second rung forbids.

    The derivative of the gap in the direction of the edge, at the fitted law: where it vanishes, the two
    rungs agree whether the edge is there or not.

    Parameters
    ----------
    problem : Problem
        The data set.
    ladder : Ladder
        From `pymc_mte.moments.ladder.climb_ladder`.
    gap : Gap
        One of its gaps.

    Returns
    -------
    tuple of GapPower
        Empty where tables cannot be drawn from the fitted graph, or no edge tells the rungs apart.
    """
    edges = freed_edges(problem.model, gap.rungs)
    full = fitted_table(problem, ladder.point) if ladder.simulated and gap.df else None
    if full is None or not edges:
        return ()
    limit = stats.chi2.isf(LEVEL, gap.df)
    out = []
    for edge, shifts in zip(edges, law_shifts(full, ladder.point, edges), strict=True):
        moved = _gap_shifts(full, ladder, gap, shifts) @ gap.root
        size = np.maximum(noncentralities(moved @ moved.T), 1e-12)
        alike, apart, against = (float(p) for p in stats.ncx2.sf(limit, gap.df, size))
        by = "arms" if problem.model.treatment in problem.model.variables[edge[1]].parents else "classes"
        out.append(GapPower(edge=edge, by=by, power=(alike, apart, against)))
    return tuple(out)


def _gap_shifts(full: Problem, ladder: Ladder, gap: Gap, shifts: Array) -> Array:
    """First-order change of a gap's entries when the law of the cells changes: (contexts, entries)."""
    model, point = full.model, ladder.point
    rungs = Rungs(full, point)
    base, n = law_counts(full, point), full.counts.sum()
    score = Scores(model, full.columns).by_pattern(point)
    along = n * shifts @ score @ inverse_information(information(score, base))
    both = []
    for sign in (1.0, -1.0):
        # a likelihood fit moves by one scoring step; iterating it would add the noise of where it stops
        parameters = from_free(model, to_free(model, point) + sign * STEP * along)
        counts = np.maximum(base + sign * STEP * n * shifts, 0.0)
        found = {"ml": rungs.aligned(answers(model, parameters)), "bridge": bridge_values(full, counts)}
        if "spectral" in gap.rungs:
            found["spectral"] = rungs.aligned(spectral_values(full, counts))
        values = {f"{rung}_{name}": found[rung][name] for rung in gap.rungs for name, _, _ in gap.entries}
        both.append(stacked(values, gap.rungs, gap.entries))
    return np.asarray((both[0] - both[1]) / (2 * STEP))
