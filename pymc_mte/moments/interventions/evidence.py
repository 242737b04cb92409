"""Which targets the data speak for: relearnt tables, information, and a Bayes factor per target."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

from pymc_mte.moments.interventions.network import (
    PSEUDO,
    UNTOUCHED,
    Network,
    components,
    normalise,
    table_counts,
)
from pymc_mte.moments.interventions.weights import fit_weights

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

ROUNDS = 6
"""Rounds of relearning the tables; more change the weights by far less than their errors."""

SHAPE = 2.0
"""Weights are Dirichlet(2) in the Bayes factor, as in the package's default prior."""

DUST = 1e-7
"""Weights below this are the solver's zeros."""

TRIED = 2
"""Targets tried for removal before the elimination stops."""


@dataclass(frozen=True, kw_only=True)
class Support:
    """Targets with weights, and the tables that go with them.

    Attributes
    ----------
    network : Network
        Untouched network; its tables relearnt if they came from a sample.
    targets : ndarray of int, shape (targets, nodes)
        Forced values, `UNTOUCHED` elsewhere.
    weight : ndarray of shape (targets,)
        Sum 1.
    matrix : sparse array of shape (patterns, targets)
        Probability of every pattern under every target.
    log_likelihood : float
        Of the mixture's rows, in nats.
    """

    network: Network
    targets: Ints
    weight: Array
    matrix: sparse.csc_array
    log_likelihood: float

    def only(self, keep: NDArray[np.bool_], counts: Array, tolerance: float = 1e-6) -> "Support":
        """Keep some targets and fit their weights again."""
        matrix = self.matrix[:, np.flatnonzero(keep)]
        fit = fit_weights(matrix, counts, self.weight[keep], tolerance)
        return replace(
            self,
            targets=self.targets[keep],
            weight=fit.weight,
            matrix=matrix,
            log_likelihood=fit.log_likelihood,
        )


def fit_support(
    network: Network, rows: Ints, counts: Array, targets: Ints, tolerance: float = 1e-6
) -> Support:
    """Fit the weights of given targets; learnt tables are learnt again with the mixture's help.

    The tables then maximise the likelihood of base rows and mixture together (with their prior), by
    alternating: rows of the mixture count for a node's table as far as they left the node alone.
    """
    matrix = components(network, rows, targets)
    fit = fit_weights(matrix, counts, None, tolerance)
    for _ in range(ROUNDS if network.base_counts is not None else 0):
        network = _relearn(network, rows, counts, targets, matrix, fit.weight)
        matrix = components(network, rows, targets)
        fit = fit_weights(matrix, counts, fit.weight, tolerance)
    return Support(
        network=network,
        targets=targets,
        weight=fit.weight,
        matrix=matrix,
        log_likelihood=fit.log_likelihood,
    )


def base_log_likelihood(network: Network) -> float:
    """Log-likelihood of the base rows, with the prior of their tables; 0 where the network is known."""
    if network.base_counts is None:
        return 0.0
    pairs = zip(network.base_counts, network.tables, strict=True)
    return float(sum(((seen + PSEUDO) * np.log(table)).sum() for seen, table in pairs))


def left_alone(targets: Ints, matrix: sparse.csc_array, weight: Array) -> Array:
    """Probability that each node was left alone, given each row: (rows, nodes)."""
    joint = matrix.tocsr() @ ((targets == UNTOUCHED) * weight[:, None])
    mean = matrix @ weight
    return np.asarray(joint / np.where(mean > 0, mean, 1.0)[:, None])


def _relearn(
    network: Network, rows: Ints, counts: Array, targets: Ints, matrix: sparse.csc_array, weight: Array
) -> Network:
    assert network.base_counts is not None
    alone = left_alone(targets, matrix, weight) * counts[:, None]
    seen = table_counts(network, rows, alone)
    pairs = zip(network.base_counts, seen, strict=True)
    return replace(network, tables=tuple(normalise(base + more + PSEUDO) for base, more in pairs))


def standard_errors(matrix: sparse.csc_array, counts: Array, weight: Array) -> Array:
    """Compute standard errors of the weights by the information of the rows, tables held fixed."""
    mean = matrix @ weight
    scaled = sparse.diags_array(np.sqrt(counts) / np.maximum(mean, DUST)) @ matrix.tocsr()
    information = (scaled.T @ scaled).toarray()
    information[np.diag_indices_from(information)] += 1e-9 * np.trace(information) / len(weight)
    return np.asarray(np.sqrt(np.maximum(np.diag(np.linalg.inv(information)), 0.0)))


def log_bayes_factor(gain: Array, weight: Array, se: Array, n_targets: int) -> Array:
    r"""Log Bayes factor of a target being there against its weight being zero.

    By Laplace's method on the weight, truncated at zero:
    :math:`\Delta + \log f(w) + \log(\sqrt{2\pi}\,s\,\Phi(w/s))`, where f is the density of one
    weight out of ``n_targets`` under Dirichlet(2).

    Parameters
    ----------
    gain : ndarray
        Log-likelihood gained by the target, in nats.
    weight, se : ndarray
        Its weight and standard error.
    n_targets : int
        Number of targets in the mixture.
    """
    inside = np.clip(weight, DUST, 1 - DUST)
    slab = stats.beta.logpdf(inside, SHAPE, SHAPE * max(n_targets - 1, 1))
    width = np.log(np.sqrt(2 * np.pi) * se) + stats.norm.logcdf(weight / se)
    return np.asarray(gain + slab + width)


def eliminate(support: Support, counts: Array) -> tuple[NDArray[np.bool_], Array, Array]:
    """Drop targets backwards as long as the data speak against one of them.

    Returns
    -------
    selected : ndarray of bool, shape (targets,)
        Targets whose Bayes factor is above 1 with all others that are left.
    evidence : ndarray of shape (targets,)
        Log Bayes factors in nats: of a dropped target when it was dropped, else at the end.
    weight : ndarray of shape (targets,)
        Weights when only the selected targets are fitted; else 0.
    """
    evidence = np.zeros(len(support.targets))
    left = np.arange(len(support.targets))
    current = support
    while len(left) > 1:
        se = np.maximum(standard_errors(current.matrix, counts, current.weight), DUST)
        rough = log_bayes_factor(0.5 * (current.weight / se) ** 2, current.weight, se, len(left))
        evidence[left] = rough
        dropped = False
        for j in np.argsort(rough)[:TRIED]:
            smaller = current.only(np.arange(len(left)) != j, counts, 1e-2)
            gain = np.asarray(current.log_likelihood - smaller.log_likelihood)
            found = float(log_bayes_factor(gain, current.weight[j], se[j], len(left)))
            evidence[left[j]] = found
            if found <= 0:
                left, current, dropped = np.delete(left, j), smaller, True
                break
        if not dropped:
            break
    weight = np.zeros(len(evidence))
    weight[left] = fit_weights(current.matrix, counts, current.weight).weight
    selected = np.isin(np.arange(len(evidence)), left)
    return selected, evidence, weight
