"""Feature maps of proxies and the moments that they give. NumPy only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pymc_mte.model import CausalModel
from pymc_mte.status import Note, Status

Array = NDArray[np.float64]
Columns = Mapping[str, NDArray[Any]]

DROP_BELOW = 1e-8
"""Directions with a smaller relative eigenvalue repeat others and are dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Whitened features of the proxies of one side.

    Attributes
    ----------
    values : ndarray of shape (patterns, d)
        The constant 1 first, then uncorrelated features of mean 0 and variance 1.
    raw : ndarray of shape (patterns, r)
        The features before whitening: constant, indicators of the levels but the first, powers of
        standardised continuous proxies.
    names : tuple of str
        Names of the raw features.
    whiten : ndarray of shape (r, d)
        ``raw @ whiten`` gives ``values``.
    unwhiten : ndarray of shape (d, r)
        ``values @ unwhiten`` gives back ``raw`` (up to dropped directions).
    notes : tuple of Note
        Dropped directions.
    """

    values: Array
    raw: Array
    names: tuple[str, ...]
    whiten: Array
    unwhiten: Array
    notes: tuple[Note, ...]

    def part(self, rows: NDArray[np.bool_]) -> "Features":
        """Keep some patterns; whitening stays that of all."""
        return replace(self, values=self.values[rows], raw=self.raw[rows])


def build_features(model: CausalModel, columns: Columns, counts: Array, proxies: Sequence[str]) -> Features:
    """Map the proxies of one side to features: main effects, whitened.

    Discrete proxies give an indicator of every level but the first; a continuous proxy gives its
    standardised powers 1 to ``max(1, classes - 1)``, enough for it to separate the classes alone.

    Parameters
    ----------
    model : CausalModel
        Gives families, levels and the number of classes.
    columns : mapping of str to ndarray
        Pattern columns.
    counts : ndarray of shape (patterns,)
        How often each pattern occurs.
    proxies : sequence of str
        Names of the proxies.
    """
    share = counts / counts.sum()
    raw, names, notes = [np.ones(len(counts))], ["1"], []
    for proxy in proxies:
        var = model.variables[proxy]
        column = np.asarray(columns[proxy])
        if np.ptp(column) == 0:
            continue  # tabulation has said so
        if var.discrete:
            for level in range(1, len(var.labels)):
                raw.append((column == level).astype(float))
                names.append(f"{proxy} = {var.labels[level]}")
        else:
            centred = column - share @ column
            scaled = centred / np.sqrt(share @ centred**2)
            for power in range(1, max(1, model.classes - 1) + 1):
                raw.append(scaled**power)
                names.append(proxy if power == 1 else f"{proxy}^{power}")
    matrix = np.column_stack(raw)
    whiten, unwhiten = _whiten(matrix, share)
    values = matrix @ whiten
    if values.shape[1] < matrix.shape[1]:
        kept = f"{values.shape[1] - 1} of {matrix.shape[1] - 1} directions kept"
        notes.append(Note(Status.FEATURES_DROPPED, ", ".join(proxies), kept))
    return Features(
        values=values, raw=matrix, names=tuple(names), whiten=whiten, unwhiten=unwhiten, notes=tuple(notes)
    )


def _whiten(raw: Array, share: Array) -> tuple[Array, Array]:
    """Whiten all columns but the constant first one; drop directions of (almost) no variance."""
    mean = share @ raw[:, 1:]
    centred = raw[:, 1:] - mean
    scale = np.sqrt(np.maximum(share @ centred**2, 1e-300))
    correlation = (centred / scale).T @ (share[:, None] * (centred / scale))
    eigenvalue, vectors = np.linalg.eigh(correlation)
    keep = eigenvalue > DROP_BELOW * max(eigenvalue.max(initial=0.0), 1e-300)
    eigenvalue, vectors = eigenvalue[keep][::-1], vectors[:, keep][:, ::-1]
    d = len(eigenvalue) + 1
    whiten, unwhiten = np.zeros((raw.shape[1], d)), np.zeros((d, raw.shape[1]))
    whiten[1:, 1:] = vectors / np.sqrt(eigenvalue) / scale[:, None]
    whiten[0, 0], whiten[0, 1:] = 1.0, -mean @ whiten[1:, 1:]
    unwhiten[0, 0], unwhiten[0, 1:] = 1.0, mean
    unwhiten[1:, 1:] = (vectors * np.sqrt(eigenvalue)).T * scale
    return whiten, unwhiten


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Moments of proxies and outcome, for one data set or a batch of replicates.

    Attributes
    ----------
    m : ndarray of shape (..., arms, d_z, d_x)
        ``E[phi_Z phi_X' 1(T=t)]``.
    n : ndarray of shape (..., functions, arms, d_z, d_x)
        ``E[f(Y) phi_Z phi_X' 1(T=t)]``; the first function is the identity.
    """

    m: Array
    n: Array

    @property
    def arm_share(self) -> Array:
        """P(T=t): (..., arms)."""
        return self.m[..., 0, 0]

    @property
    def mean_x(self) -> Array:
        """E[phi_X]: (..., d_x)."""
        return np.asarray(self.m[..., 0, :].sum(axis=-2))

    @property
    def mean_x_by_arm(self) -> Array:
        """E[phi_X | T=t]: (..., arms, d_x)."""
        with np.errstate(invalid="ignore"):  # an arm that vanished from a resample: not a number
            return np.asarray(self.m[..., 0, :] / self.m[..., 0, :1])


def build_moments(
    weights: Array, z: Array, x: Array, arm: NDArray[np.int64], n_arms: int, outcome: Array
) -> Moments:
    """Sum the moments over patterns.

    Parameters
    ----------
    weights : ndarray of shape (replicates, patterns)
        Counts, per replicate.
    z, x : ndarray of shape (patterns, d)
        Features of the two sides.
    arm : ndarray of int, shape (patterns,)
        Treatment arm of every pattern.
    n_arms : int
        Number of arms.
    outcome : ndarray of shape (functions, patterns)
        Functions of the outcome, the identity first.
    """
    share = weights / weights.sum(axis=1, keepdims=True)
    b, (dz, dx), f = len(weights), (z.shape[1], x.shape[1]), len(outcome)
    m = np.zeros((b, n_arms, dz, dx))
    n = np.zeros((b, f, n_arms, dz, dx))
    for t in range(n_arms):
        rows = arm == t
        products = (z[rows, :, None] * x[rows, None, :]).reshape(-1, dz * dx)
        m[:, t] = (share[:, rows] @ products).reshape(b, dz, dx)
        for i in range(f):
            n[:, i, t] = (share[:, rows] @ (outcome[i, rows, None] * products)).reshape(b, dz, dx)
    return Moments(m=m, n=n)
