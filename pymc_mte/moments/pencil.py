"""The textbook estimator of the mixture of treatment effects: Krylov moments and a Hankel pencil."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pymc_mte.moments.features import Moments
from pymc_mte.moments.mixture import MixtureResult, eig_real, solve_batched

Array = NDArray[np.float64]

CUTOFF = 1e-10
"""Relative singular values below it are rounding, so that exact moments of rank K are inverted."""


def pencil(
    moments: Moments,
    classes: int,
    contrast: tuple[int, int],
    roots: Literal["pencil", "prony"] = "pencil",
) -> MixtureResult:
    r"""Recover class weights and effects from synthetic effect moments.

    With :math:`G_t = M_t^+ N_t` and :math:`G = G_b - G_a`, the numbers
    :math:`m_l = E[\phi_X]' G^l e_0 = E[\tau^l]` are the moments of the effect over classes; a Hankel
    pencil turns :math:`m_0, \dots, m_{2K-1}` into effects, a Vandermonde system into weights. The
    same system applied to :math:`E[\phi_X]' G^l G_t e_0` gives the potential outcomes.

    Parameters
    ----------
    moments : Moments
        Moments of the features.
    classes : int
        Number of classes K.
    contrast : (int, int)
        Arm and reference arm of the effect whose moments are formed.
    roots : {"pencil", "prony"}
        Effects as eigenvalues of the Hankel pencil, or as roots of Prony's polynomial.

    Returns
    -------
    MixtureResult
        Without proxy profiles; classes in no particular order.

    Notes
    -----
    Classes with equal effects make the pencil singular, whatever the proxies.

    References
    ----------
    .. [1] Mazaheri, B., Squires, C. and Uhler, C. (2025). Synthetic potential outcomes and causal
       mixture identifiability. AISTATS.
    """
    b, a = contrast
    g = np.linalg.pinv(moments.m, rcond=CUTOFF) @ moments.n[..., 0, :, :, :]
    step = g[..., b, :, :] - g[..., a, :, :]
    vector = np.zeros((*step.shape[:-1], 1))
    vector[..., 0, 0] = 1.0
    krylov = [vector]
    for _ in range(2 * classes - 1):
        krylov.append(step @ krylov[-1])
    rows = np.stack(krylov, axis=-3)[..., 0]
    moment = np.einsum("...lj,...j->...l", rows, moments.mean_x)
    matrix, flat = companion(moment, classes, roots)
    effect, _, complex_roots = eig_real(matrix)
    vandermonde = effect[..., None, :] ** np.arange(classes)[:, None]
    right = [moment[..., :classes]]
    right += [
        np.einsum("...lj,...j->...l", rows[..., :classes, :], moments.mean_x_by_arm[..., t, :])
        for t in range(g.shape[-3])
    ]
    transposed = np.swapaxes(step, -1, -2)
    for t in range(g.shape[-3]):
        left = moments.mean_x[..., None]
        first = g[..., t, :, :1]
        values = []
        for _ in range(classes):
            values.append((left * first).sum(axis=(-2, -1)))
            left = transposed @ left
        right.append(np.stack(values, axis=-1))
    solved, collapsed = solve_batched(vandermonde, np.stack(right, axis=-1))
    arms = g.shape[-3]
    weight = solved[..., 0]
    with np.errstate(all="ignore"):
        outcome = solved[..., 1 + arms :] / weight[..., None]
    return MixtureResult(
        class_weight=weight,
        potential_outcome=outcome,
        weight_by_arm=np.swapaxes(solved[..., 1 : 1 + arms], -1, -2),
        proxy_mean=None,
        complex_roots=complex_roots,
        singular=flat | collapsed,
    )


def companion(moment: Array, classes: int, roots: str) -> tuple[Array, NDArray[np.bool_]]:
    """Return the matrix whose eigenvalues are the effects: the pencil's, or of Prony's polynomial."""
    index = np.add.outer(np.arange(classes), np.arange(classes))
    if roots == "pencil":
        return solve_batched(moment[..., index], moment[..., index + 1])
    shifted = moment[..., classes : 2 * classes, None]
    coefficients, flat = solve_batched(moment[..., index], shifted)
    matrix = np.zeros((*moment.shape[:-1], classes, classes))
    matrix[..., np.arange(1, classes), np.arange(classes - 1)] = 1.0
    matrix[..., :, -1] = coefficients[..., 0]
    return matrix, flat
