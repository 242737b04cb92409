"""Mechanisms of variables at units whose parents are known, for draws, classes and arms at once. NumPy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.stats import qmc

from pymc_mte.coefficients import takes_covariates
from pymc_mte.families import LINKS, binomial_table
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.network import MAX_LOG_SHIFT, TINY, by_parents, with_class_axis
from pymc_mte.quantiles import quantile
from pymc_mte.regression import parent_terms

Array = NDArray[np.float64]


def mirrored_points(half: int, dimensions: int) -> Array:
    """Scrambled Sobol points in the unit cube, then their mirror images: (2 half, dimensions).

    They are always the same. Averages of what is linear in normal quantiles are exact.
    """
    sobol = qmc.Sobol(max(dimensions, 1), rng=0).random_base2(int(half - 1).bit_length())
    points = np.clip(sobol[:half], 1e-12, 1 - 1e-12)
    return np.concatenate([points, 1 - points])


@dataclass(frozen=True, slots=True, kw_only=True)
class Mechanisms:
    """Mechanisms of a network at units; results have the axes (draw, class or 1, arm or 1, unit or 1).

    Attributes
    ----------
    model : CausalModel
        The graph.
    parameters : mapping of str to ndarray
        Draws (draw, ...).
    state : dict of str to ndarray
        Level numbers and values of the units, of all parents of what is asked for: (unit,), or with axes
        that fit the results'. Filled as variables become known.
    covariates : ndarray of shape (unit, columns) or None
        Deviations from the means.
    """

    model: CausalModel
    parameters: Parameters
    state: dict[str, NDArray[np.generic]]
    covariates: Array | None

    def parameters_at(self, name: str) -> dict[str, Array]:
        """Parameters of a number at every unit's parents."""
        var = self.model.variables[name]
        own = {p: self._gather(name, p) for p in var.spec.parameters}
        shift = self._shift(name)
        if shift is not None:
            moved, link = LINKS[var.family]
            if link == "identity":
                own[moved] = own[moved] + shift
            else:
                own[moved] = own[moved] * np.exp(np.clip(shift, -MAX_LOG_SHIFT, MAX_LOG_SHIFT))
        return own

    def chances(self, name: str) -> Array:
        """P(level) of a discrete variable at every unit's parents, the level last."""
        var = self.model.variables[name]
        if var.trials is not None:
            return binomial_table(self._success(name), var.trials)
        if var.family == "bernoulli":
            p = self._success(name)
            return np.stack([1 - p, p], axis=-1)
        p, shift = self._gather(name, "p"), self._shift(name)
        if shift is None:
            return p
        return np.asarray(special.softmax(np.log(np.maximum(p, TINY)) + shift, axis=-1))

    def mean(self, name: str) -> Array:
        """Mean of a variable that has one at every unit's parents."""
        var = self.model.variables[name]
        if var.discrete:  # bernoulli or binomial: others have no mean
            return np.asarray((var.trials or 1) * self._success(name))
        assert var.spec.law is not None
        return np.asarray(var.spec.law.mean(*self.parameters_at(name).values()))

    def follow(self, name: str, uniform: Array) -> None:
        """Put a variable into the state: quantiles of its distributions at the units' numbers in (0, 1)."""
        if self.model.variables[name].discrete:
            rising = np.cumsum(self.chances(name), axis=-1)
            self.state[name] = (uniform[..., None] >= rising[..., :-1]).sum(axis=-1)
        else:
            own = self.parameters_at(name).values()
            self.state[name] = quantile(self.model.variables[name].family, uniform, *own)

    def _gather(self, name: str, parameter: str) -> Array:
        """Take a parameter at every unit's parents, with the level last if it is a table."""
        var = self.model.variables[name]
        value = with_class_axis(self.model, key := f"{parameter}_{name}", self.parameters[key])
        if not var.parents or not by_parents(var, parameter):
            return value[:, :, None, None]
        draws, classes = value.shape[:2]
        index = (np.arange(draws)[:, None, None, None], np.arange(classes)[:, None, None])
        return np.asarray(value[(*index, *(np.atleast_2d(self.state[p]) for p in var.parents))])

    def _shift(self, name: str) -> Array | None:
        """Linear part, with the level last where levels have their own; None without one."""
        if name not in self.model.regressed:
            return None
        terms: list[Array] = []
        if takes_covariates(self.model, name) and self.covariates is not None:
            terms += list(self.covariates.T)
        for parent in self.model.variables[name].linear_parents:
            terms += parent_terms(self.model, parent, self.state[parent])
        coef = self.parameters[f"coef_{name}"]
        if coef.ndim == 3:  # one for each level
            return np.asarray(
                sum(
                    c[:, None, None, None] * t[..., None]
                    for c, t in zip(coef.T.swapaxes(1, 2), terms, strict=True)
                )
            )
        return np.asarray(sum(c[:, None, None, None] * t for c, t in zip(coef.T, terms, strict=True)))

    def _success(self, name: str) -> Array:
        """P(second level) of a bernoulli variable, or of success in one trial."""
        p = self._gather(name, "p")
        p = p if self.model.variables[name].trials is not None else p[..., 1]
        shift = self._shift(name)
        return np.asarray(p if shift is None else special.expit(special.logit(p) + shift))
