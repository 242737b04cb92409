"""The laws behind the families: densities, their derivatives, means, draws and first guesses. NumPy only.

Every law is written once, by its parameters in the order of its family's table row. Derivatives are by
the free coordinate of each parameter: a real number itself, the log of a positive one, the logit of a
probability.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Array = NDArray[np.float64]
Generator = np.random.Generator

TINY = 1e-300
"""Keeps the logarithm of a zero probability finite."""

START_NU = 5.0
"""Degrees of freedom before any were fitted."""

START_DISPERSION = (0.01, 10.0)
START_SHAPE = (0.2, 20.0)
"""Ranges of first guesses from a mean and a standard deviation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """A law of numbers: what families need to know of it.

    Attributes
    ----------
    log_density : callable
        ``log_density(x, *parameters)``, broadcasting.
    scores : callable
        ``scores(x, *parameters)``: derivatives of the log-density, one per parameter.
    mean : callable
        ``mean(*parameters)``, the expected value.
    draw : callable
        ``draw(rng, *parameters)``: one value per entry of the broadcast parameters.
    guess : callable
        ``guess(mean, sd)``: parameters with about these moments.
    """

    log_density: Callable[..., Array]
    scores: Callable[..., tuple[Array, ...]]
    mean: Callable[..., Array]
    draw: Callable[..., NDArray[Any]]
    guess: Callable[[Array, Array], tuple[Array, ...]]


def _normal_log_density(x: Array, mean: Array, sd: Array) -> Array:
    z = (x - mean) / sd
    return np.asarray(-0.5 * z * z - np.log(sd) - 0.5 * np.log(2 * np.pi))


def _normal_scores(x: Array, mean: Array, sd: Array) -> tuple[Array, ...]:
    z = (x - mean) / sd
    return z / sd, z * z - 1


NORMAL = Law(
    log_density=_normal_log_density,
    scores=_normal_scores,
    mean=lambda mean, sd: mean,
    draw=lambda rng, mean, sd: rng.normal(mean, sd),
    guess=lambda mean, sd: (mean, sd),
)


def _student_log_density(x: Array, mean: Array, sd: Array, nu: Array) -> Array:
    z = (x - mean) / sd
    constant = special.gammaln((nu + 1) / 2) - special.gammaln(nu / 2) - 0.5 * np.log(nu * np.pi)
    return np.asarray(constant - np.log(sd) - (nu + 1) / 2 * np.log1p(z * z / nu))


def _student_scores(x: Array, mean: Array, sd: Array, nu: Array) -> tuple[Array, ...]:
    z = (x - mean) / sd
    pull = z * (nu + 1) / (nu + z * z)
    tail = special.digamma((nu + 1) / 2) - special.digamma(nu / 2) - 1 / nu
    tail = tail - np.log1p(z * z / nu) + (nu + 1) * z * z / (nu * nu + nu * z * z)
    return pull / sd, pull * z - 1, nu * tail / 2


STUDENT_T = Law(
    log_density=_student_log_density,
    scores=_student_scores,
    mean=lambda mean, sd, nu: mean,
    draw=lambda rng, mean, sd, nu: mean + sd * rng.standard_t(nu, np.broadcast(mean, sd).shape),
    guess=lambda mean, sd: (mean, sd, np.asarray(START_NU)),
)

POISSON = Law(
    log_density=lambda x, rate: special.xlogy(x, rate) - rate - special.gammaln(x + 1),
    scores=lambda x, rate: (x - rate,),
    mean=lambda rate: rate,
    draw=lambda rng, rate: rng.poisson(rate).astype(float),
    guess=lambda mean, sd: (mean,),
)


def _negative_binomial_log_density(x: Array, mean: Array, dispersion: Array) -> Array:
    size = 1 / dispersion
    orders = special.gammaln(x + size) - special.gammaln(size) - special.gammaln(x + 1)
    spread = dispersion * mean
    return np.asarray(orders - (x + size) * np.log1p(spread) + special.xlogy(x, spread))


def _negative_binomial_scores(x: Array, mean: Array, dispersion: Array) -> tuple[Array, ...]:
    size = 1 / dispersion
    by_mean = (x - mean) / (1 + dispersion * mean)
    by_size = special.digamma(x + size) - special.digamma(size) - np.log1p(dispersion * mean)
    return by_mean, -size * (by_size - dispersion * by_mean)


def _negative_binomial_guess(mean: Array, sd: Array) -> tuple[Array, ...]:
    excess = (sd**2 - mean) / np.maximum(mean**2, TINY)
    return mean, np.clip(excess, *START_DISPERSION)


NEGATIVE_BINOMIAL = Law(
    log_density=_negative_binomial_log_density,
    scores=_negative_binomial_scores,
    mean=lambda mean, dispersion: mean,
    draw=lambda rng, mean, dispersion: rng.poisson(
        rng.gamma(1 / dispersion, dispersion * mean, np.broadcast(mean, dispersion).shape)
    ).astype(float),
    guess=_negative_binomial_guess,
)


def _gamma_log_density(x: Array, mean: Array, sd: Array) -> Array:
    shape, rate = (mean / sd) ** 2, mean / sd**2
    return np.asarray(shape * np.log(rate) - special.gammaln(shape) + (shape - 1) * np.log(x) - rate * x)


def _gamma_scores(x: Array, mean: Array, sd: Array) -> tuple[Array, ...]:
    shape, rate = (mean / sd) ** 2, mean / sd**2
    by_shape = 2 * shape * (np.log(rate) - special.digamma(shape) + np.log(x))
    by_rate = shape - rate * x
    return by_shape + by_rate, -by_shape - 2 * by_rate


GAMMA = Law(
    log_density=_gamma_log_density,
    scores=_gamma_scores,
    mean=lambda mean, sd: mean,
    draw=lambda rng, mean, sd: rng.gamma((mean / sd) ** 2, sd**2 / mean),
    guess=lambda mean, sd: (mean, sd),
)


def _logarithm(mean: Array, sd: Array) -> tuple[Array, Array]:
    """Mean and variance of the logarithm of a lognormal variable."""
    variance = np.log1p((sd / mean) ** 2)
    return np.log(mean) - variance / 2, variance


def _lognormal_log_density(x: Array, mean: Array, sd: Array) -> Array:
    centre, variance = _logarithm(mean, sd)
    error = np.log(x) - centre
    return np.asarray(-np.log(x) - 0.5 * np.log(2 * np.pi * variance) - error**2 / (2 * variance))


def _lognormal_scores(x: Array, mean: Array, sd: Array) -> tuple[Array, ...]:
    centre, variance = _logarithm(mean, sd)
    by_centre = (np.log(x) - centre) / variance
    by_variance = (by_centre**2 - 1 / variance) / 2
    slope = sd**2 / (mean**2 + sd**2)
    return (1 + slope) * by_centre - 2 * slope * by_variance, slope * (2 * by_variance - by_centre)


def _lognormal_draw(rng: Generator, mean: Array, sd: Array) -> Array:
    centre, variance = _logarithm(mean, sd)
    return rng.lognormal(centre, np.sqrt(variance))


LOGNORMAL = Law(
    log_density=_lognormal_log_density,
    scores=_lognormal_scores,
    mean=lambda mean, sd: mean,
    draw=_lognormal_draw,
    guess=lambda mean, sd: (mean, sd),
)


def _weibull_log_density(x: Array, scale: Array, shape: Array) -> Array:
    """Log-density of a time; of a censored one (negative) the log-probability to last longer."""
    log_time = np.log(np.abs(x) / scale)
    event = np.where(x > 0, np.log(shape / scale) + (shape - 1) * log_time, 0.0)
    with np.errstate(over="ignore"):  # far beyond the scale nobody lasts: a density of zero
        return np.asarray(event - np.exp(shape * log_time))


def _weibull_scores(x: Array, scale: Array, shape: Array) -> tuple[Array, ...]:
    power = shape * np.log(np.abs(x) / scale)
    with np.errstate(over="ignore"):
        surplus = np.exp(power) - (x > 0)
        return shape * surplus, (x > 0) - power * surplus


def _weibull_guess(mean: Array, sd: Array) -> tuple[Array, ...]:
    """Shape by its usual power of the coefficient of variation, right to a few percent."""
    shape = np.clip((sd / np.maximum(mean, TINY)) ** -1.086, *START_SHAPE)
    return mean / special.gamma(1 + 1 / shape), shape


WEIBULL = Law(
    log_density=_weibull_log_density,
    scores=_weibull_scores,
    mean=lambda scale, shape: scale * special.gamma(1 + 1 / shape),
    draw=lambda rng, scale, shape: scale * rng.weibull(shape, np.broadcast(scale, shape).shape),
    guess=_weibull_guess,
)

EXPONENTIAL = Law(
    log_density=lambda x, scale: np.where(x > 0, -np.log(scale), 0.0) - np.abs(x) / scale,
    scores=lambda x, scale: (np.abs(x) / scale - (x > 0),),
    mean=lambda scale: scale,
    draw=lambda rng, scale: rng.exponential(scale),
    guess=lambda mean, sd: (mean,),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Positive:
    """Probability that a law gives more than zero.

    Attributes
    ----------
    log : callable
        ``log(*parameters)``: its logarithm.
    slopes : callable
        ``slopes(*parameters)``: derivatives of the logarithm by the free coordinates.
    draw : callable
        ``draw(rng, *parameters)``: draws given more than zero.
    """

    log: Callable[..., Array]
    slopes: Callable[..., tuple[Array, ...]]
    draw: Callable[..., Array]


def _binomial_zero(mean: Array, dispersion: Array) -> Array:
    """Log-probability of zero of a negative binomial variable."""
    return np.asarray(-np.log1p(dispersion * mean) / dispersion)


def _binomial_slopes(mean: Array, dispersion: Array) -> tuple[Array, ...]:
    zero = _binomial_zero(mean, dispersion)
    by_mean = mean / (1 + dispersion * mean)
    odds = _odds(-zero)
    return by_mean / odds, (by_mean + zero) / odds


def _odds(minus_log_zero: Array) -> Array:
    """Odds of more than zero: infinite where zeros are beyond arithmetic, and slopes then vanish."""
    with np.errstate(over="ignore"):
        return np.asarray(np.expm1(minus_log_zero))


def _poisson_above_zero(rng: Generator, rate: Array) -> Array:
    """Draw by the first event's time: it comes before 1, and the rest after it."""
    first = -np.log1p(rng.random(np.shape(rate)) * np.expm1(-rate))
    return np.asarray(1.0 + rng.poisson(np.maximum(rate - first, 0.0)), dtype=float)


def _binomial_above_zero(rng: Generator, mean: Array, dispersion: Array) -> Array:
    """Draw by inversion of the distribution function."""
    mean, dispersion = np.broadcast_arrays(mean, dispersion)
    zero = np.exp(_binomial_zero(mean, dispersion))
    share = zero + (1 - zero) * rng.random(mean.shape)
    found = stats.nbinom.ppf(share, 1 / dispersion, 1 / (1 + dispersion * mean))
    return np.asarray(np.maximum(found, 1.0), dtype=float)


POISSON_ABOVE_ZERO = Positive(
    log=lambda rate: np.log(-np.expm1(-rate)),
    slopes=lambda rate: (rate / _odds(rate),),
    draw=_poisson_above_zero,
)
NEGATIVE_BINOMIAL_ABOVE_ZERO = Positive(
    log=lambda mean, dispersion: np.log(-np.expm1(_binomial_zero(mean, dispersion))),
    slopes=_binomial_slopes,
    draw=_binomial_above_zero,
)


def always(law: Law) -> Positive:
    """Say that a law of positive numbers gives more than zero."""
    return Positive(
        log=lambda *parameters: np.zeros(()),
        slopes=lambda *parameters: tuple(np.zeros(()) for _ in parameters),
        draw=law.draw,
    )


def hurdle(law: Law, above: Positive) -> Law:
    """Zero with one more parameter's probability, else the law given more than zero.

    Parameters
    ----------
    law : Law
        Of counts or of positive numbers.
    above : Positive
        The same law given more than zero.
    """

    def log_density(x: Array, *parameters: Array) -> Array:
        *own, zero = parameters
        rest = law.log_density(np.where(x > 0, x, 1.0), *own) - above.log(*own)
        rest = rest + np.log(np.maximum(1 - zero, TINY))
        return np.where(x > 0, rest, np.log(np.maximum(zero, TINY)))

    def scores(x: Array, *parameters: Array) -> tuple[Array, ...]:
        *own, zero = parameters
        each = zip(law.scores(np.where(x > 0, x, 1.0), *own), above.slopes(*own), strict=True)
        return *(np.where(x > 0, score - slope, 0.0) for score, slope in each), (x == 0) - zero

    def mean(*parameters: Array) -> Array:
        *own, zero = parameters
        return np.asarray((1 - zero) * law.mean(*own) / np.exp(above.log(*own)))

    def draw(rng: Generator, *parameters: Array) -> Array:
        *own, zero = parameters
        found = above.draw(rng, *own)
        return np.where(rng.random(np.shape(found)) < zero, 0.0, found)

    return Law(
        log_density=log_density,
        scores=scores,
        mean=mean,
        draw=draw,
        guess=lambda mean, sd: (*law.guess(mean, sd), np.asarray(0.5)),
    )
