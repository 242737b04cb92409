"""Quantiles of every family of numbers, for simulation with common points. NumPy and SciPy only."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from pymc_mte import laws

Array = NDArray[np.float64]


MAX_STEPS = 200
"""Counts are added up one by one so far; SciPy, several times slower, finds the larger ones."""


def _count(
    u: Array, first: Callable[..., Array], ratio: Callable[..., Array], law: Any, *parameters: Array
) -> Array:
    """Invert a distribution of counts: ``first`` is P(0), ``ratio(k)`` is P(k + 1) / P(k)."""
    u, *own = np.broadcast_arrays(u, *parameters)
    value, place = np.zeros(u.size), np.arange(u.size)
    left, own = u.ravel(), [p.ravel() for p in own]
    p = first(*own)
    left = left - p
    for k in range(MAX_STEPS):
        on = left > 0
        place, left, p, own = place[on], left[on], p[on], [v[on] for v in own]
        if not len(place):
            break
        value[place] += 1
        p = p * ratio(k, *own)
        left = left - p
    place, own = place[left > 0], [v[left > 0] for v in own]
    value[place] = law(u.ravel()[place], *own)
    return value.reshape(u.shape)


def _poisson(u: Array, rate: Array) -> Array:
    return _count(u, lambda r: np.exp(-r), lambda k, r: r / (k + 1), stats.poisson.ppf, rate)


def _negative_binomial(u: Array, mean: Array, dispersion: Array) -> Array:
    return _count(
        u,
        lambda m, d: np.exp(-np.log1p(d * m) / d),
        lambda k, m, d: (k + 1 / d) / (k + 1) * d * m / (1 + d * m),
        lambda rest, m, d: stats.nbinom.ppf(rest, 1 / d, 1 / (1 + d * m)),
        mean,
        dispersion,
    )


def _lognormal(u: Array, mean: Array, sd: Array) -> Array:
    variance = np.log1p((sd / mean) ** 2)
    return np.asarray(np.exp(np.log(mean) - variance / 2 + np.sqrt(variance) * special.ndtri(u)))


QUANTILE: dict[str, Callable[..., Array]] = {
    "normal": lambda u, mean, sd: mean + sd * special.ndtri(u),
    "student_t": lambda u, mean, sd, nu: mean + sd * special.stdtrit(nu, u),
    "poisson": _poisson,
    "negative_binomial": _negative_binomial,
    "gamma": lambda u, mean, sd: special.gammaincinv((mean / sd) ** 2, u) * sd**2 / mean,
    "lognormal": _lognormal,
    "exponential": lambda u, scale: -scale * np.log1p(-u),
    "weibull": lambda u, scale, shape: scale * (-np.log1p(-u)) ** (1 / shape),
}
"""By family: ``f(u, *parameters)``, parameters in the order of the family's table row."""

ABOVE_ZERO = {
    "poisson": laws.POISSON_ABOVE_ZERO,
    "negative_binomial": laws.NEGATIVE_BINOMIAL_ABOVE_ZERO,
}
"""Counts, which may be zero without a hurdle too."""


def quantile(family: str, u: Array, *parameters: Array) -> Array:
    """Value that a variable stays below with probability ``u``, broadcasting.

    Examples
    --------
    >>> float(quantile("normal", np.array(0.5), np.array(2.0), np.array(1.0)))
    2.0
    """
    if not family.startswith("hurdle_"):
        return np.asarray(QUANTILE[family](u, *parameters), dtype=float)
    inner = family.removeprefix("hurdle_")
    *own, zero = parameters
    share = np.clip((u - zero) / np.maximum(1 - zero, laws.TINY), 0.0, 1 - 1e-12)
    if inner in ABOVE_ZERO:
        above = np.exp(ABOVE_ZERO[inner].log(*own))
        value = np.maximum(QUANTILE[inner](1 - above + above * share, *own), 1.0)
    else:
        value = QUANTILE[inner](share, *own)
    return np.where(u < zero, 0.0, value)
