"""Feature maps of proxies and the moments that they give. NumPy only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pymc_mte.errors import ModelError
from pymc_mte.model import CausalModel
from pymc_mte.moments.truncated import independent
from pymc_mte.status import Note, Status
from pymc_mte.variable import Variable

Array = NDArray[np.float64]
Columns = Mapping[str, NDArray[Any]]

DROP_BELOW = 1e-8
"""Directions with a smaller relative eigenvalue repeat others and are dropped."""

LONGEST_TAILS = 2.0
"""Powers are used while the highest one has at most this multiple of a uniform proxy's kurtosis."""

MIN_BINS = 4
"""A continuous proxy with longer tails is cut into this many quantile bins, or into one per class."""

MAX_FEATURES = 200
"""Interactions may not bring a side beyond this many features."""

MapName = Literal["indicators", "scores", "powers", "bins"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Whitened features of the proxies of one side.

    Attributes
    ----------
    values : ndarray of shape (patterns, d)
        The constant 1 first, then uncorrelated features of mean 0 and variance 1.
    raw : ndarray of shape (patterns, r)
        The features before whitening: the constant, the main effects of every proxy, and products of
        two proxies' features where interactions were asked for.
    names : tuple of str
        Names of the raw features.
    maps : mapping of str to str
        By proxy, how its main effects were made; constant proxies have none.
    places : mapping of str to slice
        By proxy, the columns of its main effects in ``raw``.
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
    maps: Mapping[str, MapName]
    places: Mapping[str, slice]
    whiten: Array
    unwhiten: Array
    notes: tuple[Note, ...]

    def part(self, rows: NDArray[np.bool_]) -> "Features":
        """Keep some patterns; whitening stays that of all."""
        return replace(self, values=self.values[rows], raw=self.raw[rows])


def build_features(
    model: CausalModel,
    columns: Columns,
    counts: Array,
    proxies: Sequence[str],
    *,
    interactions: bool = False,
    linear: bool = False,
) -> Features:
    """Map the proxies of one side to features: main effects, interactions on request, whitened.

    ====================== ============== =======================================================
    proxy                  map            features
    ====================== ============== =======================================================
    bernoulli, categorical ``indicators`` of every level but the first
    ordinal                ``scores``     orthogonal polynomials of the ridits (mid-ranks) of the
                                          levels, degrees 1 to ``min(levels, max(2, classes)) - 1``
    continuous             ``powers``     1 to ``max(1, classes - 1)`` of the standardised proxy
    continuous             ``bins``       indicators of ``max(4, classes)`` quantile bins but one; a
                                          value as frequent as a bin is a bin of its own
    ====================== ============== =======================================================

    A continuous proxy enters by ``powers`` if its highest power has at most twice the kurtosis that
    it has for a uniform proxy, else by ``bins``: with long tails the moments of powers are those of a
    few rows. The rule sees nothing but the proxy's own distribution.

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
    interactions : bool
        Add the products of the features of any two proxies; never of more than two.
    linear : bool
        Let every continuous proxy enter as it is, by its first power, whatever its tails.

    Raises
    ------
    ModelError
        If interactions make too many features.
    """
    share = counts / counts.sum()
    raw, names = [np.ones(len(counts))], ["1"]
    maps: dict[str, MapName] = {}
    places: dict[str, slice] = {}
    for proxy in proxies:
        column = np.asarray(columns[proxy])
        if np.ptp(column) == 0:
            continue  # tabulation has said so
        var = model.variables[proxy]
        if linear and not var.discrete:
            maps[proxy], effects = "powers", _powers(proxy, column, share, 1)
        else:
            maps[proxy], effects = _main_effects(var, proxy, column, share, model.classes)
        places[proxy] = slice(len(raw), len(raw) + len(effects))
        raw += effects.values()
        names += effects
    if interactions:
        products = _products(names, raw, list(places.values()), proxies)
        raw += products.values()
        names += products
    matrix = np.column_stack(raw)
    whiten, unwhiten = _whiten(matrix, share)
    values = matrix @ whiten
    notes = []
    if values.shape[1] < matrix.shape[1]:
        kept = f"{values.shape[1] - 1} of {matrix.shape[1] - 1} directions kept"
        notes.append(Note(Status.FEATURES_DROPPED, ", ".join(proxies), kept))
    return Features(
        values=values,
        raw=matrix,
        names=tuple(names),
        maps=maps,
        places=places,
        whiten=whiten,
        unwhiten=unwhiten,
        notes=tuple(notes),
    )


def _main_effects(
    var: Variable, proxy: str, column: NDArray[Any], share: Array, classes: int
) -> tuple[MapName, dict[str, Array]]:
    """Features of one proxy by name, and how they were made."""
    if var.family in ("ordinal", "binomial"):
        return "scores", _scores(proxy, column, share, classes)
    if var.discrete:
        labels = enumerate(var.labels)
        return "indicators", {f"{proxy} = {v}": (column == i).astype(float) for i, v in labels if i}
    highest = max(1, classes - 1)
    if powers_serve(column - share @ column, share, highest):
        return "powers", _powers(proxy, column, share, highest)
    return "bins", _bins(proxy, column, share, max(MIN_BINS, classes))


def _powers(proxy: str, column: Array, share: Array, highest: int) -> dict[str, Array]:
    centred = column - share @ column
    scaled = centred / np.sqrt(share @ centred**2)
    return {proxy if p == 1 else f"{proxy}^{p}": scaled**p for p in range(1, highest + 1)}


def powers_serve(centred: Array, share: Array, highest: int) -> bool:
    """Whether the highest power of a centred proxy has a kurtosis that moments can bear.

    Parameters
    ----------
    centred : ndarray of shape (patterns,)
        The proxy less its mean, any units.
    share : ndarray of shape (patterns,)
        Share of each pattern.
    highest : int
        The highest power.
    """
    squared = (centred / np.abs(centred).max()) ** (2 * highest)  # at most 1, so nothing overflows
    kurtosis = share @ squared**2 / (share @ squared) ** 2
    uniform = (2 * highest + 1) ** 2 / (4 * highest + 1)
    return bool(kurtosis <= LONGEST_TAILS * uniform)


def _scores(proxy: str, column: NDArray[np.int64], share: Array, classes: int) -> dict[str, Array]:
    """Orthonormal polynomials of the ridits of an ordinal proxy."""
    level_share = np.bincount(column, weights=share)
    ridit = np.cumsum(level_share) - level_share / 2
    degree = min(int(np.count_nonzero(level_share)), max(2, classes)) - 1
    powers = np.asarray(np.polynomial.legendre.legvander(2 * ridit[column] - 1, degree), dtype=float)
    basis = powers @ independent(powers, share)
    return {f"{proxy}, score {d}": basis[:, d] for d in range(1, basis.shape[1])}


def _bins(proxy: str, column: Array, share: Array, most: int) -> dict[str, Array]:
    """Cut a proxy into quantile bins, frequent values into bins of their own; leave out the first."""
    value, place = np.unique(column, return_inverse=True)
    own = np.bincount(place, weights=share) >= 1 / most
    rest = ~own[place]
    bins = [(f"= {v:.6g}", column == v) for v in value[own]]
    left = most - len(bins)
    if left and rest.any():
        levels = np.arange(1, left) / left
        cuts = np.quantile(column[rest], levels, weights=share[rest], method="inverted_cdf")
        for low, high in pairwise(np.unique([-np.inf, *cuts, np.inf])):
            bins.append((f"{low:.4g} to {high:.4g}", rest & (column > low) & (column <= high)))
    filled = enumerate((label, inside) for label, inside in bins if inside.any())
    return {f"{proxy}, bin {i} ({label})": inside.astype(float) for i, (label, inside) in filled if i}


def _products(
    names: list[str], raw: list[Array], places: list[slice], proxies: Sequence[str]
) -> dict[str, Array]:
    """Products of the main effects of any two proxies."""
    sizes = [place.stop - place.start for place in places]
    total = len(raw) - 1 + sum(a * b for a, b in combinations(sizes, 2))
    if total > MAX_FEATURES:
        raise ModelError(
            f"interactions: {', '.join(proxies)} would have {total} features with their interactions, more "
            f"than {MAX_FEATURES}; use fewer proxies or levels on this side, or interactions=False"
        )
    return {
        f"{names[i]} * {names[j]}": raw[i] * raw[j]
        for a, b in combinations(places, 2)
        for i in range(a.start, a.stop)
        for j in range(b.start, b.stop)
    }


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
