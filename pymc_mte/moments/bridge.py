"""The outcome bridge: average effects from proxies, at a stated rank. NumPy only."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pymc_mte.moments.features import Moments

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeResult:
    """Average potential outcomes from the bridge.

    Attributes
    ----------
    coefficients : ndarray of shape (..., arms, d_x)
        ``a_t``: the bridge function of arm t is ``phi_X . a_t``, in units of the outcome.
    arm_mean : ndarray of shape (..., arms)
        E[Y(t)] over everybody.
    among : ndarray of shape (..., arms, arms)
        ``among[..., t, s]`` = E[Y(t)] among those who got arm s.
    """

    coefficients: Array
    arm_mean: Array
    among: Array


def solve_bridge(moments: Moments, rank: int) -> BridgeResult:
    r"""Solve ``E[phi_Z Y 1(T=t)] = M_t a_t`` by truncated singular value decomposition.

    Parameters
    ----------
    moments : Moments
        Moments of whitened features; the untruncated solution is unusable when there are more
        features than classes.
    rank : int
        Number of singular values kept in every arm: the number of classes.

    References
    ----------
    .. [1] Miao, W., Geng, Z. and Tchetgen Tchetgen, E. (2018). Identifying causal effects with
       proxy variables of an unmeasured confounder. Biometrika 105(4), 987-993.
    """
    target = moments.n[..., 0, :, :, 0]
    left, singular, right = np.linalg.svd(moments.m, full_matrices=False)
    kept = singular[..., :rank]
    inverse = np.divide(1.0, kept, out=np.zeros_like(kept), where=kept > 1e-14)
    projected = np.einsum("...ik,...i->...k", left[..., :rank], target) * inverse
    coefficients = np.einsum("...kj,...k->...j", right[..., :rank, :], projected)
    arm_mean = np.einsum("...tj,...j->...t", coefficients, moments.mean_x)
    among = np.einsum("...tj,...sj->...ts", coefficients, moments.mean_x_by_arm)
    with np.errstate(invalid="ignore"):
        observed = moments.n[..., 0, :, 0, 0] / moments.arm_share
    arms = np.arange(observed.shape[-1])
    among[..., arms, arms] = observed
    return BridgeResult(coefficients=coefficients, arm_mean=arm_mean, among=among)
