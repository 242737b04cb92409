"""Singular directions of the proxies' moments, and the noise that estimating them adds. NumPy and SciPy."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pymc_mte.moments.bootstrap import Sampling
from pymc_mte.moments.problem import Problem

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Singular directions of one arm's proxy moments, for tests of the far side's features.

    Attributes
    ----------
    inner : ndarray of shape (batch, d_near, K)
        Kept directions of the near side.
    far_out : ndarray of shape (batch, d_far, d_far - K)
        Directions of the far side that are left out.
    near, far : ndarray of shape (rows, d)
        Features of the arm's rows.
    share : ndarray of shape (batch, rows)
        Their share of all rows.
    over : ndarray of shape (batch, K, K)
        Second moments of the far side's kept directions, over the singular values of both.
    left_out : ndarray of shape (batch,)
        Squared norm of the second moments of the near side's other directions, over rows squared.
    slope_loss : ndarray of shape (batch, K)
        By what factor noise shrinks coefficients along the kept near directions.
    growth : ndarray of shape (batch, K)
        See `grown`.
    lost : ndarray of shape (batch,)
        What noise adds to the square of the weakest kept singular value, over that square.
    """

    inner: Array
    far_out: Array
    near: Array
    far: Array
    share: Array
    over: Array
    left_out: Array
    slope_loss: Array
    growth: Array
    lost: Array

    def grown(self, left: Array) -> Array:
        """Scale coefficients so that `turned` gives the noise of a kept direction as a whole.

        In large tables of noise of variance v the part of a singular direction outside the true span
        is v/s^2 (1 + d v/s^2)^2 in mean square, d being the near directions left out.
        """
        times = left.shape[-2] // self.growth.shape[-1]
        return np.asarray(left * np.tile(self.growth, times)[..., None])

    def turned(self, left: Array, right: Array, powers: Array | None = None) -> Array:
        """Covariance that the estimated directions add, to second order: (batch, q, q).

        Moments are those of ``left`` (batch, powers * K, c), coefficients of the kept near directions times
        powers of the outcome, with the far directions ``right``. An error u'N v / s of a kept direction
        meets the noise u'N r of a tested one in every direction u that is left out. Second moments of
        products are taken as products of second moments.
        """
        b, k = self.over.shape[:2]
        powers = np.ones((1, self.share.shape[1])) if powers is None else powers
        within = self.share / self.share.sum(axis=1, keepdims=True)
        power = np.einsum("bn,pn,qn->bpq", within, powers, powers)
        whole = left.reshape(b, len(powers), k, -1)
        one = np.einsum("bpkc,bpq,bkl,bqld->bcd", whole, power, self.over, whole, optimize=True)
        two = _second(self.far, self.share, right)
        both = np.einsum("b,bcd,bqr->bcqdr", self.left_out, one, two)
        size = one.shape[1] * two.shape[1]
        return np.asarray(both.reshape(b, size, size))


def cut_at_rank(problem: Problem, counts: Array, m: Array, place: int, side: Literal["z", "x"]) -> Cut:
    """Cut one arm's proxy moments at rank K; ``side`` is the far side, whose features are tested."""
    k, rows = problem.model.classes, problem.arm_place == place
    m = m if side == "x" else np.swapaxes(m, -1, -2)
    inner, near_out, far_in, far_out, singular = split_svd(m, k)
    near, far = (problem.z.values, problem.x.values)[:: 1 if side == "x" else -1]
    total = counts.sum(axis=1)
    share = counts[:, rows] / total[:, None]
    size = share.sum(axis=1)
    wider = _design_effect(problem, counts, rows, near @ near_out, far @ far_out)
    noise = (size * wider / total)[:, None]
    signal = _signal(singular, near_out.shape[-1], far_out.shape[-1], noise)
    near_loss, far_loss = (out.shape[-1] * noise / signal for out in (near_out, far_out))
    scale = np.sqrt(signal)
    over = _second(far[rows], share, far_in) / (scale[:, :, None] * scale[:, None, :])
    rest = _second(near[rows], share, near_out) / size[:, None, None]
    return Cut(
        inner=inner,
        far_out=far_out,
        near=near[rows],
        far=far[rows],
        share=share,
        over=over,
        left_out=(rest**2).sum(axis=(-2, -1)) * (wider / total) ** 2,
        slope_loss=np.sqrt(1 + near_loss) * (1 + far_loss),
        growth=np.sqrt(2 + near_loss),
        lost=((1 + near_loss) * (1 + far_loss) - 1).max(axis=-1),
    )


def _design_effect(
    problem: Problem, counts: Array, inside: NDArray[np.bool_], one: Array, two: Array
) -> Array:
    """Variance of cross-moments of some rows, over that of independent rows of equal weights: (batch,)."""
    if problem.sampling.simple or not one.shape[-1] * two.shape[-1]:
        return np.ones(len(counts))
    terms = products(one, two) * inside[:, None]
    plain = np.einsum("bn,bnq->b", counts, terms**2)
    wide = np.trace(spread_of(terms, counts, problem.sampling), axis1=-2, axis2=-1)
    return np.asarray(wide / plain)


def _signal(singular: Array, d_one: int, d_two: int, noise: Array) -> Array:
    """Squares of singular values without what noise of a variance adds to them: (batch, K).

    One variance of the noise where they cannot be told from the largest of noise alone.

    References
    ----------
    .. [1] Benaych-Georges, F. and Nadakuditi, R. R. (2012). The singular values and vectors of low rank
       perturbations of large rectangular random matrices. Journal of Multivariate Analysis 111, 120-135.
    """
    square = singular**2 - noise * (d_one + d_two)
    root = square**2 - 4 * d_one * d_two * noise**2
    found = (square + np.sqrt(np.maximum(root, 0.0))) / 2
    return np.asarray(np.where((square > 0) & (root >= 0), np.maximum(found, noise), noise))


def _second(values: Array, share: Array, directions: Array) -> Array:
    """Second moments along directions: (batch, q, q)."""
    moments = np.swapaxes(share[..., None] * values, -1, -2) @ values
    return np.asarray(np.swapaxes(directions, -1, -2) @ moments @ directions)


def split_svd(m: Array, rank: int) -> tuple[Array, Array, Array, Array, Array]:
    """Left singular vectors kept and left out, right ones kept and left out, in columns; values kept."""
    u, s, vt = np.linalg.svd(m)
    v = np.swapaxes(vt, -1, -2)
    return u[..., :rank], u[..., rank:], v[..., :rank], v[..., rank:], s[..., :rank]


def products(one: Array, two: Array) -> Array:
    """Multiply every column of one with every column of the other: (..., a * b)."""
    return np.asarray((one[..., :, None] * two[..., None, :]).reshape(*one.shape[:-1], -1))


def spread_of(centred: Array, counts: Array, sampling: Sampling) -> Array:
    """Sum the products of centred terms over rows, or over clusters: (batch, q, q)."""
    if sampling.cluster is not None:
        one = (np.ones(len(sampling.cluster)), (sampling.cluster, np.arange(len(sampling.cluster))))
        sums = np.stack([sparse.csr_array(one) @ each for each in counts[..., None] * centred])
        return np.asarray(np.swapaxes(sums, -1, -2) @ sums)
    weight = np.ones(counts.shape[1]) if sampling.weight is None else sampling.weight
    return np.asarray(np.swapaxes(centred * (counts * weight)[..., None], -1, -2) @ centred)
