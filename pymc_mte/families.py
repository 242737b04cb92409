"""Families of variables: one table row each, NumPy only.

A parameter's *scope* says which axes it has: ``table`` (class, *parents, level), ``location``
(class, *parents), ``scale`` (class, and the parents only on request), ``shared`` (none). Its *support*
says which values it takes: ``simplex`` (probabilities that sum to 1 over levels), ``unit`` (from 0 to
1), ``positive`` or ``real``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from pymc_mte import laws
from pymc_mte.laws import Law

Array = NDArray[np.float64]
Scope = Literal["table", "location", "scale", "shared"]
Support = Literal["simplex", "unit", "positive", "real"]
Values = Literal["levels", "real", "positive", "nonnegative", "counts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of a family.

    Attributes
    ----------
    scope : Scope
        Its axes.
    support : Support
        Its values.
    in_units : bool
        Whether it is measured in the units of the variable.
    """

    scope: Scope
    support: Support
    in_units: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What the package needs to know about a family.

    Attributes
    ----------
    name : str
        Name used in model files.
    parameters : mapping of str to Parameter
        Parameter names, their axes and values.
    values : Values
        What the variable may be: listed levels (stored as level numbers), any number, positive
        numbers, these and zero, or counts.
    draw : callable
        ``draw(rng, *parameters)``: one value per row of the gathered parameters; a discrete family
        is given level probabilities.
    law : Law, optional
        Density, derivatives and mean; families without listed levels only.
    censored : bool
        Whether values may be known only to be larger than what was seen.
    """

    name: str
    parameters: Mapping[str, Parameter]
    values: Values
    draw: Callable[..., NDArray[Any]]
    law: Law | None = None
    censored: bool = False

    @property
    def discrete(self) -> bool:
        """Whether the variable takes listed levels."""
        return self.values == "levels"

    @property
    def collapsible(self) -> bool:
        """Whether equal rows recur, so that patterns with counts are fewer than rows."""
        return self.discrete or self.repeats

    @property
    def repeats(self) -> bool:
        """Whether equal numbers recur, so that their densities can be looked up."""
        return self.values == "counts"

    @property
    def zeros_apart(self) -> bool:
        """Whether zeros have a probability of their own (the last parameter, ``p_zero``)."""
        return "p_zero" in self.parameters

    def log_density(self, x: Array, **parameters: Array) -> Array:
        """Log-density of values, broadcasting over the parameters by name."""
        assert self.law is not None
        return self.law.log_density(x, *(parameters[name] for name in self.parameters))


def _draw_level(rng: np.random.Generator, p: Array) -> NDArray[np.int64]:
    """Draw one level per row of ``p`` (rows, levels) by inversion."""
    cumulative = np.cumsum(p, axis=-1)
    uniform = rng.random(p.shape[:-1])[..., None] * cumulative[..., -1:]
    return (uniform >= cumulative[..., :-1]).sum(axis=-1)


def binomial_coefficients(trials: int) -> Array:
    """Count the orders in which 0 to ``trials`` successes can come: (trials + 1,)."""
    return np.asarray(special.comb(trials, np.arange(trials + 1)))


def binomial_table(p: Array, trials: int) -> Array:
    """Compute the probabilities of 0 to ``trials`` successes: (..., trials + 1)."""
    s = np.arange(trials + 1)
    p = np.asarray(p, dtype=float)[..., None]
    return np.asarray(binomial_coefficients(trials) * p**s * (1 - p) ** (trials - s))


TABLE = Parameter(scope="table", support="simplex")
CHANCE = Parameter(scope="location", support="unit")
PLACE = Parameter(scope="location", support="real", in_units=True)
SIZE = Parameter(scope="location", support="positive", in_units=True)
SPREAD = Parameter(scope="scale", support="positive", in_units=True)
SHAPE = Parameter(scope="scale", support="positive")
SHARED = Parameter(scope="shared", support="positive")

MOMENTS = {"mean": SIZE, "sd": SPREAD}
OVERDISPERSED = {"mean": SIZE, "dispersion": SHAPE}


def _levels(name: str, p: Parameter) -> Family:
    return Family(name=name, parameters={"p": p}, values="levels", draw=_draw_level)


def _numbers(
    name: str, law: Law, parameters: Mapping[str, Parameter], values: Values, censored: bool = False
) -> Family:
    return Family(name=name, parameters=parameters, values=values, draw=law.draw, law=law, censored=censored)


def _hurdle(name: str, law: Law, above: laws.Positive, parameters: Mapping[str, Parameter]) -> Family:
    values: Values = "nonnegative" if "sd" in parameters else "counts"
    return _numbers(f"hurdle_{name}", laws.hurdle(law, above), {**parameters, "p_zero": CHANCE}, values)


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        _levels("bernoulli", TABLE),
        _levels("categorical", TABLE),
        _levels("ordinal", TABLE),
        _levels("binomial", CHANCE),
        _numbers("normal", laws.NORMAL, {"mean": PLACE, "sd": SPREAD}, "real"),
        _numbers("student_t", laws.STUDENT_T, {"mean": PLACE, "sd": SPREAD, "nu": SHARED}, "real"),
        _numbers("poisson", laws.POISSON, {"rate": SIZE}, "counts"),
        _numbers("negative_binomial", laws.NEGATIVE_BINOMIAL, OVERDISPERSED, "counts"),
        _numbers("gamma", laws.GAMMA, MOMENTS, "positive"),
        _numbers("lognormal", laws.LOGNORMAL, MOMENTS, "positive"),
        _numbers("exponential", laws.EXPONENTIAL, {"scale": SIZE}, "positive", censored=True),
        _numbers("weibull", laws.WEIBULL, {"scale": SIZE, "shape": SHAPE}, "positive", censored=True),
        _hurdle("poisson", laws.POISSON, laws.POISSON_ABOVE_ZERO, {"rate": SIZE}),
        _hurdle(
            "negative_binomial", laws.NEGATIVE_BINOMIAL, laws.NEGATIVE_BINOMIAL_ABOVE_ZERO, OVERDISPERSED
        ),
        _hurdle("gamma", laws.GAMMA, laws.always(laws.GAMMA), MOMENTS),
        _hurdle("lognormal", laws.LOGNORMAL, laws.always(laws.LOGNORMAL), MOMENTS),
    )
}
"""Every family, by its name in model files."""

LINKS: dict[str, tuple[str, Literal["logit", "identity", "log"]]] = {
    "bernoulli": ("p", "logit"),
    "categorical": ("p", "logit"),
    "ordinal": ("p", "logit"),
    "binomial": ("p", "logit"),
    "normal": ("mean", "identity"),
    "student_t": ("mean", "identity"),
    "poisson": ("rate", "log"),
    "negative_binomial": ("mean", "log"),
    "gamma": ("mean", "log"),
    "lognormal": ("mean", "log"),
    "exponential": ("scale", "log"),
    "weibull": ("scale", "log"),
}
"""By family: the parameter that covariates shift, and the scale on which they do."""
