"""Causal functionals as PyTensor expressions, so that a user's own PyMC model can go on with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytensor.tensor as pt

from pymc_mte.bayes.densities import MEAN
from pymc_mte.bayes.priors import Tensor, free_dims
from pymc_mte.families import binomial_coefficients
from pymc_mte.functionals import ancestors
from pymc_mte.model import CausalModel


@dataclass
class _Product:
    """A product of factors over named axes; `total` sums axes out one after the other."""

    model: CausalModel
    parameters: Mapping[str, Tensor]
    fixed: Mapping[str, int]
    factors: list[tuple[Tensor, tuple[str, ...]]] = field(default_factory=list)

    def add(self, value: Tensor, axes: Sequence[str], fixed: Mapping[str, int] | None = None) -> None:
        """Multiply by a factor, some axes at a fixed level."""
        at = self.fixed if fixed is None else fixed
        index = tuple(at.get(axis, slice(None)) for axis in axes)
        self.factors.append((value[index], tuple(axis for axis in axes if axis not in at)))

    def add_tables(self, variables: set[str], fixed: Mapping[str, int] | None = None) -> None:
        """Multiply by P(variable | class, parents) of every variable."""
        for name in sorted(variables):
            var = self.model.variables[name]
            axes = (*(("class",) if var.latent else ()), *var.parents, name)
            self.add(_table(self.model, name, self.parameters), axes, fixed)

    def total(self, keep: Sequence[str]) -> Tensor:
        """Sum over every axis except ``keep``, the cheapest axis first."""
        factors = list(self.factors)
        while rest := {axis for _, axes in factors for axis in axes} - set(keep):
            axis = min(sorted(rest), key=lambda a: self._size(factors, a))
            inside = [f for f in factors if axis in f[1]]
            factors = [f for f in factors if axis not in f[1]]
            value, axes = _multiplied(inside)
            at = axes.index(axis)
            factors.append((value.sum(axis=at), axes[:at] + axes[at + 1 :]))
        value, axes = _multiplied(factors)
        return value.dimshuffle([axes.index(axis) for axis in keep])

    def _size(self, factors: list[tuple[Tensor, tuple[str, ...]]], axis: str) -> int:
        joined = {a for _, axes in factors if axis in axes for a in axes}
        return int(np.prod([self.model.size(a) for a in joined]))


def _multiplied(factors: list[tuple[Tensor, tuple[str, ...]]]) -> tuple[Tensor, tuple[str, ...]]:
    """Multiply factors over the union of their axes."""
    union = tuple(dict.fromkeys(axis for _, axes in factors for axis in axes))
    total = 1.0
    for value, axes in factors:
        total = total * value.dimshuffle([axes.index(a) if a in axes else "x" for a in union])
    return pt.as_tensor(total), union


def _table(model: CausalModel, name: str, parameters: Mapping[str, Tensor]) -> Tensor:
    """P(level | class, parents) of a discrete variable: (class if latent, *parents, level)."""
    value, var = parameters[f"p_{name}"], model.variables[name]
    if var.trials is not None:
        s, p = np.arange(var.trials + 1), value[..., None]
        return binomial_coefficients(var.trials) * p**s * (1 - p) ** (var.trials - s)
    return pt.stack([1 - value, value], axis=-1) if var.family == "bernoulli" else value


def _mean(model: CausalModel, parameters: Mapping[str, Tensor]) -> tuple[Tensor, tuple[str, ...]]:
    """Mean of the outcome given class and parents, and its axes."""
    y = str(model.outcome)
    var = model.variables[y]
    if var.discrete:
        value = parameters[f"p_{y}"]
        return (value if var.trials is None else var.trials * value), free_dims(model, f"p_{y}")
    names = [f"{parameter}_{y}" for parameter in var.spec.parameters]
    axes = ("class", *var.parents) if var.latent else var.parents
    own = [
        parameters[n].dimshuffle([model.dims[n].index(d) if d in model.dims[n] else "x" for d in axes])
        for n in names
    ]
    return MEAN[var.family](*own), axes


def symbolic_functionals(model: CausalModel, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Build the standard functionals of a model with treatment and outcome as expressions.

    Parameters
    ----------
    model : CausalModel
        Must name a treatment and an outcome.
    parameters : mapping of str to tensor
        The model's random variables, by result name.

    Returns
    -------
    dict of str to tensor
        As from `pymc_mte.functionals.functionals`.
    """
    found = _mean(model, parameters)
    arms = range(len(model.arms))
    outcome = pt.stack([_under(model, parameters, found, arm) for arm in arms], axis=-1)
    share = parameters["class_weight"][:, None]
    effect = pt.stack([outcome[:, b] - outcome[:, a] for b, a in model.contrasts], axis=-1)
    ate = (share * effect).sum(axis=0)
    sign = 1.0 if model.better == "higher" else -1.0
    among = [
        _among(model, parameters, found, b, b) - _among(model, parameters, found, a, b)
        for b, a in model.contrasts
    ]
    out = {
        "effect": effect,
        "ate": ate,
        "att": pt.stack(among),
        "effect_sd": pt.sqrt((share * (effect - ate) ** 2).sum(axis=0)),
        "weight_harmed": pt.where(sign * effect < -model.practical, share, 0.0).sum(axis=0),
    }
    if len(model.contrasts) == 1:
        out = {name: value[..., 0] for name, value in out.items()}
    return {"potential_outcome": outcome, **out, "arm_mean": (share * outcome).sum(axis=0)}


def _under(
    model: CausalModel, parameters: Mapping[str, Tensor], mean: tuple[Tensor, tuple[str, ...]], arm: int
) -> Tensor:
    """E[Y | do(T = arm), class]: (class,)."""
    t, y = str(model.treatment), str(model.outcome)
    product = _Product(model, parameters, {t: arm})
    product.add(pt.ones(model.classes), ("class",))
    product.add_tables(ancestors(model, {y}, stop={t}) - {t, y})
    product.add(*mean)
    return product.total(("class",))


def _among(
    model: CausalModel,
    parameters: Mapping[str, Tensor],
    mean: tuple[Tensor, tuple[str, ...]],
    arm: int,
    given: int,
) -> Tensor:
    """E[Y(arm) | T = given]: the treatment as it came, everything below it as under ``arm``."""
    t, y = str(model.treatment), str(model.outcome)
    above = ancestors(model, {t}, stop=set())
    below = {v for v in model.variables if v != t and t in ancestors(model, {v}, stop=set())}
    mutilated = ancestors(model, {y}, stop={t}) - {t, y}
    total = _Product(model, parameters, {t: arm})
    total.add(parameters["class_weight"], ("class",))
    total.add_tables((above | mutilated) - {t} - below, {})
    total.add_tables(((above | mutilated) - {t}) & below)
    total.add_tables({t}, {t: given})
    total.add(*mean)
    share = _Product(model, parameters, {t: given})
    share.add(parameters["class_weight"], ("class",))
    share.add_tables(above)
    return total.total(()) / share.total(())
