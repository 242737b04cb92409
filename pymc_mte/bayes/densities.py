"""Log-densities (PyTensor) of the families without listed levels, for observed variables."""

from collections.abc import Callable

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from pymc_mte.bayes.priors import Tensor

Density = Callable[..., Tensor]


def _xlogy(x: Tensor, y: Tensor) -> Tensor:
    return pt.switch(pt.eq(x, 0), 0.0, x * pt.log(y))


def _poisson(x: Tensor, rate: Tensor) -> Tensor:
    return _xlogy(x, rate) - rate - pt.gammaln(x + 1)


def _negative_binomial(x: Tensor, mean: Tensor, dispersion: Tensor) -> Tensor:
    size, spread = 1 / dispersion, dispersion * mean
    orders = pt.gammaln(x + size) - pt.gammaln(size) - pt.gammaln(x + 1)
    return orders - (x + size) * pt.log1p(spread) + _xlogy(x, spread)


def _gamma(x: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
    shape, rate = (mean / sd) ** 2, mean / sd**2
    return shape * pt.log(rate) - pt.gammaln(shape) + (shape - 1) * pt.log(x) - rate * x


def _lognormal(x: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
    variance = pt.log1p((sd / mean) ** 2)
    error = pt.log(x) - pt.log(mean) + variance / 2
    return -pt.log(x) - 0.5 * pt.log(2 * np.pi * variance) - error**2 / (2 * variance)


def _weibull(x: Tensor, scale: Tensor, shape: Tensor) -> Tensor:
    """Take a negative time as censored: the log-probability to last longer."""
    log_time = pt.log(pt.abs(x)) - pt.log(scale)
    event = pt.log(shape) - pt.log(scale) + (shape - 1) * log_time
    return pt.switch(pt.gt(x, 0), event, 0.0) - pt.exp(shape * log_time)


def _exponential(x: Tensor, scale: Tensor) -> Tensor:
    return pt.switch(pt.gt(x, 0), -pt.log(scale), 0.0) - pt.abs(x) / scale


def _hurdle(density: Density, log_above_zero: Density) -> Density:
    """Zero with the last parameter's probability, else the law given more than zero."""

    def log_density(x: Tensor, *parameters: Tensor) -> Tensor:
        *own, zero = parameters
        above = pt.gt(x, 0)
        rest = density(pt.switch(above, x, 1.0), *own) - log_above_zero(*own)
        return pt.switch(above, pt.log1p(-zero) + rest, pt.log(zero))

    return log_density


BEHIND: dict[str, Density] = {
    "hurdle_poisson": _poisson,
    "hurdle_negative_binomial": _negative_binomial,
    "hurdle_gamma": _gamma,
    "hurdle_lognormal": _lognormal,
}
"""The law behind a hurdle."""

LOG_ABOVE_ZERO: dict[str, Density] = {
    "hurdle_poisson": lambda rate: pt.log(-pt.expm1(-rate)),
    "hurdle_negative_binomial": lambda mean, dispersion: pt.log(
        -pt.expm1(-pt.log1p(dispersion * mean) / dispersion)
    ),
    "hurdle_gamma": lambda mean, sd: pt.zeros(()),
    "hurdle_lognormal": lambda mean, sd: pt.zeros(()),
}
"""Log-probability that the law behind a hurdle gives to more than zero."""

LOG_DENSITY: dict[str, Density] = {
    "normal": lambda x, mean, sd: pm.logp(pm.Normal.dist(mean, sd), x),
    "student_t": lambda x, mean, sd, nu: pm.logp(pm.StudentT.dist(nu=nu, mu=mean, sigma=sd), x),
    "poisson": _poisson,
    "negative_binomial": _negative_binomial,
    "gamma": _gamma,
    "lognormal": _lognormal,
    "exponential": _exponential,
    "weibull": _weibull,
    **{name: _hurdle(BEHIND[name], above) for name, above in LOG_ABOVE_ZERO.items()},
}
"""By family: a value and the parameters, in the order of the family's table row, to log-densities.

A weibull or exponential value that is negative is a time censored at its size.
"""


def _hurdle_mean(log_above_zero: Density) -> Density:
    return lambda mean, *rest: (1 - rest[-1]) * mean / pt.exp(log_above_zero(mean, *rest[:-1]))


MEAN: dict[str, Density] = {
    **dict.fromkeys(LOG_DENSITY, lambda mean, *_: mean),
    "weibull": lambda scale, shape: scale * pt.exp(pt.gammaln(1 + 1 / shape)),
    **{family: _hurdle_mean(above) for family, above in LOG_ABOVE_ZERO.items()},
}
"""By family: the parameters, in the order of the family's table row, to the expected value."""
