"""The posterior density at many points at once, on the sampler's unconstrained scale."""

from copy import copy
from itertools import permutations
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from numpy.typing import NDArray
from pytensor.compile.mode import Mode
from pytensor.graph.replace import clone_replace, vectorize_graph
from scipy.special import gammaln

from pymc_mte.bayes.gradient import PLAIN
from pymc_mte.bayes.priors import Tensor
from pymc_mte.bayes.start import with_first_levels, without_first_levels
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.optima import relabelled

Array = NDArray[np.float64]

MAX_ELEMENTS = 4_000_000
"""Points are taken in blocks so that points x observed values x classes stay below this."""

EXCHANGEABLE = 1e-6
"""Largest change of the log-density, relative to its size, when classes change places."""


class PosteriorDensity:
    """Unnormalised log posterior of a built model, vectorised over points.

    Parameters
    ----------
    model : CausalModel
        The graph, its levels resolved.
    built : pymc.Model
        From `build_model`.
    """

    def __init__(self, model: CausalModel, built: pm.Model) -> None:
        self.model = model
        self.names = [rv.name for rv in built.free_RVs]
        values = [built.rvs_to_values[rv] for rv in built.free_RVs]
        self.shapes = [tuple(int(n) for n in start) for start in _shapes(built, values)]
        sizes = [int(np.prod(shape)) for shape in self.shapes]
        self.n_free = sum(sizes)
        self.coefficient = multinomial_coefficient(built)
        observed = sum(np.size(value) for value in _values(built, built.observed_RVs))
        self._block = max(1, MAX_ELEMENTS // max(1, observed * model.classes))
        flat = pt.vector("flat")
        ends = np.cumsum(sizes)
        parts = [
            flat[end - size : end].reshape(shape)
            for end, size, shape in zip(ends, sizes, self.shapes, strict=True)
        ]
        at = dict(zip(values, parts, strict=True))
        parts = [built.varlogp, built.datalogp]
        prior, likelihood, *points = clone_replace([*parts, *built.replace_rvs_by_values(built.free_RVs)], at)
        self._density = _Batched([flat], [prior, likelihood], "FAST_COMPILE")
        self._backward = _Batched([flat], points)
        self._forward = _forward(built, values)

    def with_data(self, built: pm.Model, keep: str = "\0") -> "PosteriorDensity":
        """Take the data of another model of the same form; nothing is compiled.

        Data whose name starts with ``keep`` stay as they are.
        """
        own = copy(self)
        own._density, own._backward, own._forward = (
            part.with_data(built, keep) for part in (self._density, self._backward, self._forward)
        )
        own.coefficient = multinomial_coefficient(built)
        return own

    def log_density(self, flat: Array) -> Array:
        """Log posterior up to a constant at unconstrained points (points, n_free): (points,).

        The rows count as ordered: the multinomial coefficient of their table is left out.
        """
        prior, likelihood = self.parts(flat)
        return prior + likelihood

    def parts(self, flat: Array) -> tuple[Array, Array]:
        """Log prior (with the Jacobian of the scale) and log-likelihood of ordered rows: two of (points,)."""
        blocks = np.array_split(flat, max(1, -(-len(flat) // self._block)))
        with np.errstate(all="ignore"):
            found = np.concatenate([np.stack(self._density(block)) for block in blocks], axis=1)
        prior, likelihood = np.where(np.isnan(found), -np.inf, found)
        return prior, likelihood - self.coefficient

    def to_flat(self, parameters: Parameters) -> Array:
        """Map parameters with one leading axis to unconstrained points: (points, n_free)."""
        values = without_first_levels(self.model, parameters)
        parts = self._forward(*(np.asarray(values[name], dtype=float) for name in self.names))
        return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)

    def free_values(self, parameters: Parameters) -> Parameters:
        """Values of the model's random variables."""
        return without_first_levels(self.model, {name: parameters[name] for name in self.names})

    def from_flat(self, flat: Array) -> Parameters:
        """Invert `to_flat`."""
        found = self._backward(flat)
        return with_first_levels(self.model, dict(zip(self.names, found, strict=True)))

    def exchangeable(self, flat: Array) -> bool:
        """Whether the density is the same, at some points, whatever the order of the classes."""
        order = np.array(list(permutations(range(self.model.classes)))[-1])
        parameters = self.from_flat(flat)
        swapped = relabelled(self.model, parameters, np.repeat(order[None], len(flat), axis=0))
        before, after = self.log_density(flat), self.log_density(self.to_flat(swapped))
        return bool(np.allclose(before, after, rtol=EXCHANGEABLE, atol=1e-4))


def multinomial_coefficient(built: pm.Model) -> float:
    """Log number of orders of the rows that give the observed table of counts; 0 without a table."""
    if "counts" not in built.named_vars:
        return 0.0
    counts = _values(built, [built["counts"]])[0].astype(float)
    return float(gammaln(counts.sum(axis=-1) + 1).sum() - gammaln(counts + 1).sum())


def _values(built: pm.Model, observed: list[Tensor]) -> list[Any]:
    """Observed values, without the cost of compiling."""
    found = pm.compile([], [built.rvs_to_values[rv] for rv in observed], mode=PLAIN)()
    return [np.asarray(value) for value in found]


def _shapes(built: pm.Model, values: list[Tensor]) -> list[Any]:
    point = built.initial_point()
    return [np.shape(point[value.name]) for value in values]


class _Batched:
    """Outputs compiled for inputs with one more leading axis."""

    def __init__(self, inputs: list[Tensor], outputs: list[Tensor], mode: Mode | str = PLAIN) -> None:
        batch = {v: v.type.clone(shape=(None, *v.type.shape))(v.name) for v in inputs}
        vectorised = vectorize_graph(outputs, batch)
        self.compiled = pm.compile(list(batch.values()), vectorised, mode=mode, on_unused_input="ignore")

    def __call__(self, *given: Array) -> list[Array]:
        return [np.asarray(value) for value in self.compiled(*given)]

    def with_data(self, built: pm.Model, keep: str) -> "_Batched":
        """Read another model's data of the same names."""
        found = {v.name: v for v in (*built.data_vars, *built.dim_lengths.values())}
        used = [v for v in self.compiled.get_shared() if not str(v.name).startswith(keep) and v.name in found]
        out = copy(self)
        if used:
            out.compiled = self.compiled.copy(swap={old: found[old.name] for old in used})
        return out


def _forward(built: pm.Model, values: list[Tensor]) -> _Batched:
    """Compile the transforms of every free variable, from its own scale to the unconstrained one."""
    free = {rv: rv.type(rv.name) for rv in built.free_RVs}
    outputs = []
    for rv in built.free_RVs:
        transform = built.rvs_to_transforms[rv]
        inputs = rv.owner.inputs
        outputs.append(free[rv] if transform is None else transform.forward(rv, *inputs))
    outputs = [clone_replace(out, free) if out not in free.values() else out for out in outputs]
    return _Batched(list(free.values()), outputs)
