"""How probable a set of targets is on a linear Gaussian network: Laplace's method and a prior of sets."""

import numpy as np
from numpy.typing import NDArray
from scipy import special

from pymc_mte.moments.interventions.gaussian import LinearMixture, LinearRows
from pymc_mte.moments.interventions.gaussian_errors import base_information, scores, spreads_free

Array = NDArray[np.float64]

WIDTH = 2.5
"""Prior sd of forced values, in sds of their node."""

TYPICAL = 1.5
"""Scale of shifts, in error sds, whose density is that of Normal(0, 1.5) times their square: a touch moves a
node noticeably, so targets with one more, tiny touch do not share out the probability of the right one."""


def log_evidence(data: LinearRows, mixture: LinearMixture) -> float:
    """Log probability of rows and target set, up to what all sets of these rows have in common.

    The likelihood at its maximum, the priors there, and Laplace's volume with the information that the
    rows hold. BIC puts the information of an isolated parameter of every row in its place, and so is too
    hard on components that overlap. Shares are uniform beforehand, forced values normal with sd `WIDTH`,
    shifts as `TYPICAL` says (a moment prior: Johnson and Rossell, 2010); the equations' parameters occur in
    all sets alike and have a flat prior.
    """
    mine, curvature = _priors(data, mixture)
    score = scores(data, mixture)[:, 1:]  # log weights matter up to a constant
    information = (score * data.counts[:, None]).T @ score
    information += base_information(data, mixture, len(information))
    own = len(curvature)
    information[:own, :own] += curvature
    if data.kind == "shift":
        variance = np.diag(np.linalg.inv(information))[len(mixture.weight) - 1 : own]
        scale = TYPICAL * mixture.network.sd[np.nonzero(mixture.touched)[1]]
        mine += float(np.log((mixture.value[mixture.touched] ** 2 + variance) / scale**2).sum())
    volume = 0.5 * own * np.log(2 * np.pi) - 0.5 * float(np.linalg.slogdet(information)[1])
    return float(mixture.log_likelihood + mine + volume + log_prior_of_set(mixture))


def log_prior_of_set(mixture: LinearMixture) -> float:
    """Log prior of the targets: every number of components alike, then every number of touched nodes."""
    nodes, touches = mixture.touched.shape[1], mixture.touched.sum(axis=1)
    ways = special.gammaln(nodes + 1) - special.gammaln(touches + 1) - special.gammaln(nodes - touches + 1)
    return float(special.gammaln(len(touches) + 1) - (np.log(nodes + 1) + ways).sum())


def _priors(data: LinearRows, mixture: LinearMixture) -> tuple[float, Array]:
    """Log density of shares, values and spreads, and its curvature, in the order of the scores."""
    weight, sd = mixture.weight, mixture.network.sd
    size, (row, node) = len(weight), np.nonzero(mixture.touched)
    if data.kind == "shift":
        centre, scale = np.zeros(len(node)), TYPICAL * sd[node]
    else:
        middle = data.counts @ data.rows / data.n
        wide = np.maximum(
            np.sqrt(data.counts @ (data.rows - middle) ** 2 / data.n), mixture.network.narrowest
        )
        centre, scale = middle[node], WIDTH * wide[node]
    away = (mixture.value[row, node] - centre) / scale
    total = special.gammaln(size) + np.log(np.maximum(weight, 1e-300)).sum()
    total -= (0.5 * away**2 + np.log(scale) + 0.5 * np.log(2 * np.pi)).sum()
    rest = weight[1:]
    blocks = [size * (np.diag(rest) - np.outer(rest, rest)), np.diag(1 / scale**2)]
    if data.kind == "do":
        free = spreads_free(mixture)[row, node]
        ratio = (mixture.spread[row, node] / wide[node])[free]
        total += (0.5 * np.log(2 / np.pi) + np.log(ratio) - 0.5 * ratio**2).sum()
        blocks.append(np.diag(2 * ratio**2))
    out = np.zeros((sum(map(len, blocks)),) * 2)
    at = 0
    for block in blocks:
        out[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    return float(total), out
