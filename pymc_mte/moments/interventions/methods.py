"""From rows to targets, weights and checks: the methods by name."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pymc_mte.moments.interventions.checks import Misfit, mechanism_misfit
from pymc_mte.moments.interventions.evidence import Support, eliminate, fit_support
from pymc_mte.moments.interventions.exact import enumerate_exclusions
from pymc_mte.moments.interventions.levels import Found, climb
from pymc_mte.moments.interventions.lifting import EPSILON, EXACT, lift
from pymc_mte.moments.interventions.network import Network, components, is_sample
from pymc_mte.moments.interventions.weights import fit_weights, large

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

Method = Literal["polished", "lifting", "exact"]

SMALLEST = 2e-3
"""Smallest weight that likelihood methods keep by default, if that is two rows at least."""

DUST = 1e-7
"""The same for exact probabilities, before the equations are solved."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Targets of a mixture with their weights, and what speaks for them.

    Attributes
    ----------
    support : Support
        Targets, weights, fitted components and (relearnt) network.
    found : Found
        What the search returned: excluded values and how clear they are.
    selected : ndarray of bool, shape (targets,)
        Targets whose Bayes factor is above 1.
    evidence : ndarray of shape (targets,)
        Log Bayes factors in nats; NaN for exact probabilities and for lifting.
    selected_weight : ndarray of shape (targets,)
        Weights when only the selected targets are fitted.
    misfit : Misfit
        Largest deviation of an untouched mechanism.
    alike : int
        Choices of excluded values that fit alike, where all were tried; else 1.
    """

    support: Support
    found: Found
    selected: NDArray[np.bool_]
    evidence: Array
    selected_weight: Array
    misfit: Misfit
    alike: int = 1


def unmix(
    network: Network,
    rows: Ints,
    counts: Array,
    method: Method = "polished",
    *,
    smallest: float | None = None,
    candidates: Ints | None = None,
) -> Answer:
    """Find targets and weights of a mixture of interventions.

    Parameters
    ----------
    network : Network
        The untouched network, known or learnt.
    rows : ndarray of int, shape (patterns, nodes)
        The mixture's rows, nodes in topological order.
    counts : ndarray of shape (patterns,)
        Rows per pattern, or probabilities.
    method : {"polished", "lifting", "exact"}
        Likelihood of the rows' beginnings, level by level; the paper's algorithm; all choices of
        excluded values of a small network.
    smallest : float, optional
        Smallest weight kept.
    candidates : ndarray of int, shape (candidates, nodes), optional
        The only targets that are possible: nothing is searched, only their weights are fitted.

    Examples
    --------
    >>> from pymc_mte.moments.interventions.design import random_mixture
    >>> mixture = random_mixture(3, 2, np.random.default_rng(1))
    >>> answer = unmix(mixture.network, *mixture.population())
    >>> bool(np.allclose(np.sort(answer.support.weight), np.sort(mixture.weight)))
    True
    """
    sample = is_sample(counts)
    if smallest is None:
        least = smallest_weight(counts) if sample else DUST
        smallest = (EPSILON if sample else EXACT) if method == "lifting" else least
    tolerance = 1e-4 if sample else 1e-15
    alike = 1
    if candidates is not None:
        found = Found(targets=candidates, weight=np.full(len(candidates), 1 / len(candidates)))
    elif method == "lifting":
        found = lift(network, rows, counts, smallest, exact=not sample)
    elif method == "exact":
        found, alike = enumerate_exclusions(network, rows, counts, smallest, tolerance)
    else:
        found = climb(network, rows, counts, smallest, tolerance)
    if method == "lifting":
        support = _as_found(network, rows, found)
    elif sample:
        support = fit_support(network, rows, counts, found.targets)
        keep = large(support.weight, smallest if candidates is None else -1.0)
        support = support if keep.all() else support.only(keep, counts)
    else:
        support = _solve_exactly(fit_support(network, rows, counts, found.targets, tolerance), counts)
    return _judge(network, rows, counts, support, found, alike, scored=sample and method != "lifting")


def smallest_weight(counts: Array) -> float:
    """Smallest weight that likelihood methods keep of a sample by default."""
    return max(SMALLEST, 2.0 / float(counts.sum()))


def _as_found(network: Network, rows: Ints, found: Found) -> Support:
    matrix = components(network, rows, found.targets)
    return Support(
        network=network, targets=found.targets, weight=found.weight, matrix=matrix, log_likelihood=np.nan
    )


def _solve_exactly(support: Support, counts: Array) -> Support:
    """Solve the linear equations on the support; keep the likelihood's answer if they contradict it."""
    share = counts / counts.sum()
    weight = np.linalg.lstsq(support.matrix.toarray(), share)[0]
    keep = weight > EXACT
    if (weight < -EXACT).any() or np.abs(support.matrix @ weight - share).max() > EXACT:
        return support
    smaller = support.only(keep, counts)
    exact = np.linalg.lstsq(smaller.matrix.toarray(), share)[0]
    return Support(
        network=support.network,
        targets=smaller.targets,
        weight=exact,
        matrix=smaller.matrix,
        log_likelihood=smaller.log_likelihood,
    )


def _judge(
    network: Network, rows: Ints, counts: Array, support: Support, found: Found, alike: int, scored: bool
) -> Answer:
    n = len(support.targets)
    selected, evidence, weight = np.ones(n, dtype=bool), np.full(n, np.nan), support.weight
    misfit = Misfit(node=-1, z=0.0, p_value=1.0)
    if scored:
        selected, evidence, weight = eliminate(support, counts)
        matrix = components(network, rows, support.targets)
        fit = fit_weights(matrix, counts, support.weight)
        fixed = Support(
            network=network,
            targets=support.targets,
            weight=fit.weight,
            matrix=matrix,
            log_likelihood=fit.log_likelihood,
        )
        misfit = mechanism_misfit(network, fixed, rows, counts)
    return Answer(
        support=support,
        found=found,
        selected=selected,
        evidence=evidence,
        selected_weight=weight,
        misfit=misfit,
        alike=alike,
    )
