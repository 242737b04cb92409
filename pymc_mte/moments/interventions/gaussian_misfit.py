"""Does the graph of a linear Gaussian network lack an edge? Likelihood ratios over all rows."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pymc_mte.moments.interventions.gaussian import LinearMixture, LinearRows, refit
from pymc_mte.moments.interventions.gaussian_errors import left_over, scores

Array = NDArray[np.float64]

STEPS = 24
"""EM steps with an edge added; stopping early makes the test conservative."""


@dataclass(frozen=True, kw_only=True)
class AbsentEdge:
    """The edge that would add most to the fit.

    Attributes
    ----------
    earlier, later : int
        Its nodes; -1 where no edge could be tried.
    p_value : float
        Corrected for all edges tried (Bonferroni).
    """

    earlier: int = -1
    later: int = -1
    p_value: float = 1.0


def absent_edge(data: LinearRows, mixture: LinearMixture) -> AbsentEdge:
    """Test every equation for other earlier nodes and, where it is known, for other slopes.

    Where the equations are learnt, each edge is added in turn and the likelihood of untouched rows
    and mixture is compared with the fit's. Where they are known a score test is used, which allows for
    the fitted shares and values.
    """
    network = mixture.network
    pairs = [
        (j, i)
        for i, above in enumerate(network.parents)
        for j in range(i)
        if data.base is None or j not in above
    ]
    if not pairs:
        return AbsentEdge()
    if data.base is None:
        p_values = _by_scores(data, mixture, pairs)
    else:
        before = refit(data, mixture, STEPS).log_likelihood
        gain = np.array([_with_edge(data, mixture, *pair).log_likelihood - before for pair in pairs])
        p_values = stats.chi2.sf(2 * np.maximum(gain, 0.0), 1)
    worst = int(np.argmin(p_values))
    earlier, later = pairs[worst]
    return AbsentEdge(earlier=earlier, later=later, p_value=min(1.0, float(p_values[worst]) * len(pairs)))


def _with_edge(data: LinearRows, mixture: LinearMixture, earlier: int, later: int) -> LinearMixture:
    parents = list(mixture.network.parents)
    parents[later] = (*parents[later], earlier)
    return refit(data, replace(mixture, network=replace(mixture.network, parents=tuple(parents))), STEPS)


def _by_scores(data: LinearRows, mixture: LinearMixture, pairs: list[tuple[int, int]]) -> Array:
    """Score tests: errors times the earlier node, cleared of the scores of what was fitted."""
    root = np.sqrt(data.counts)[:, None]
    fitted = scores(data, mixture) * root
    errors = left_over(data, mixture)
    side = np.stack([errors[:, i] * data.rows[:, j] for j, i in pairs], axis=1) * root
    clear = side - fitted @ np.linalg.lstsq(fitted, side)[0]
    z = (clear * root).sum(axis=0) / np.sqrt(np.maximum((clear**2).sum(axis=0), 1e-300))
    return np.asarray(2 * stats.norm.sf(np.abs(z)))
