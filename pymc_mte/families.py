"""Families of variables: one table row each, NumPy only.

A parameter's *scope* says which axes it has: ``table`` (class, *parents, level), ``location``
(class, *parents), ``rate`` the same with values in [0, 1], ``scale`` (class, and the parents only on
request), ``shared`` (none).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]
Scope = Literal["table", "location", "rate", "scale", "shared"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What the package needs to know about a family.

    Attributes
    ----------
    name : str
        Name used in model files.
    discrete : bool
        Whether the variable takes listed levels (stored as level numbers).
    parameters : mapping of str to Scope
        Parameter names and their axes.
    log_density : callable
        ``log_density(x, **parameters)``, broadcasting; continuous families only.
    draw : callable
        ``draw(rng, **parameters)``: one value per row of the gathered parameters; a discrete family
        is given level probabilities.
    """

    name: str
    discrete: bool
    parameters: Mapping[str, Scope]
    draw: Callable[..., NDArray[Any]]
    log_density: Callable[..., Array] | None = None


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


def _normal_log_density(x: Array, mean: Array, sd: Array) -> Array:
    z = (x - mean) / sd
    return np.asarray(-0.5 * z * z - np.log(sd) - 0.5 * np.log(2 * np.pi))


def _student_log_density(x: Array, mean: Array, sd: Array, nu: Array) -> Array:
    z = (x - mean) / sd
    constant = special.gammaln((nu + 1) / 2) - special.gammaln(nu / 2) - 0.5 * np.log(nu * np.pi)
    return np.asarray(constant - np.log(sd) - (nu + 1) / 2 * np.log1p(z * z / nu))


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(name="bernoulli", discrete=True, parameters={"p": "table"}, draw=_draw_level),
        Family(name="categorical", discrete=True, parameters={"p": "table"}, draw=_draw_level),
        Family(name="ordinal", discrete=True, parameters={"p": "table"}, draw=_draw_level),
        Family(name="binomial", discrete=True, parameters={"p": "rate"}, draw=_draw_level),
        Family(
            name="normal",
            discrete=False,
            parameters={"mean": "location", "sd": "scale"},
            draw=lambda rng, mean, sd: rng.normal(mean, sd),
            log_density=_normal_log_density,
        ),
        Family(
            name="student_t",
            discrete=False,
            parameters={"mean": "location", "sd": "scale", "nu": "shared"},
            draw=lambda rng, mean, sd, nu: mean + sd * rng.standard_t(nu, np.shape(mean)),
            log_density=_student_log_density,
        ),
    )
}
"""Every family, by its name in model files."""

LINKS: dict[str, tuple[str, Literal["logit", "identity"]]] = {
    "bernoulli": ("p", "logit"),
    "categorical": ("p", "logit"),
    "ordinal": ("p", "logit"),
    "binomial": ("p", "logit"),
    "normal": ("mean", "identity"),
    "student_t": ("mean", "identity"),
}
"""By family: the parameter that covariates shift, and the scale on which they do."""
