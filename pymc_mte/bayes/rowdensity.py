"""The posterior density row by row at parameters as results have them: coefficients per covariate or term."""

import numpy as np
import pymc as pm
from numpy.typing import NDArray

from pymc_mte.bayes.coefficients import class_contrasts
from pymc_mte.bayes.density import PosteriorDensity
from pymc_mte.coefficients import with_linear_parents
from pymc_mte.model import CausalModel, Parameters

Array = NDArray[np.float64]


class RowDensity(PosteriorDensity):
    """Unnormalised log posterior of a model with covariates or linear parents, vectorised over points.

    The sampled coefficients run along directions and contrasts, which have no classes to be relabelled;
    those per covariate have. With covariates ``class_weight`` stands for ``baseline_weight``.

    Parameters
    ----------
    model : CausalModel
        The graph, its levels resolved, with covariates or linear parents.
    built : pymc.Model
        From `build_model`.
    """

    def __init__(self, model: CausalModel, built: pm.Model) -> None:
        super().__init__(model, built)
        self.contrasts = class_contrasts(model.classes)
        self._take_directions(built)

    def with_data(self, built: pm.Model, keep: str = "\0") -> PosteriorDensity:
        """Take the data of another model of the same form, its directions too."""
        own = super().with_data(built, keep)
        assert isinstance(own, RowDensity)
        own._take_directions(built)
        return own

    def _take_directions(self, built: pm.Model) -> None:
        model = self.model
        linear = with_linear_parents(model)
        matrix = {
            name: f"to_terms_{what}" if what in linear else "to_covariates"
            for name in model.coefficient_dims
            for what in [name.removeprefix("coef_")]
        }
        self.back = {name: np.asarray(built[key].get_value()) for name, key in matrix.items()}
        self.along = {name: np.linalg.pinv(back) for name, back in self.back.items()}

    def to_flat(self, parameters: Parameters) -> Array:
        """Map parameters with one leading axis to unconstrained points: (points, n_free)."""
        values = dict(parameters)
        for name, dims in self.model.coefficient_dims.items():
            raw = np.moveaxis(parameters[name] @ self.along[name].T, 1, -1)  # directions first
            if name == "coef_class":
                raw = raw @ self.contrasts
            elif len(dims) == 2:
                raw = raw[..., 1:]
            values[f"raw_{name}"] = raw
        return super().to_flat(values)

    def from_flat(self, flat: Array) -> Parameters:
        """Invert `to_flat`."""
        values = super().from_flat(flat)
        for name, dims in self.model.coefficient_dims.items():
            raw = values.pop(f"raw_{name}")
            if name == "coef_class":
                raw = raw @ self.contrasts.T
            elif len(dims) == 2:
                raw = np.concatenate([np.zeros_like(raw[..., :1]), raw], axis=-1)
            values[name] = np.moveaxis(raw, 1, -1) @ self.back[name].T
        return values | ({"class_weight": values["baseline_weight"]} if self.model.covariates else {})


def density_of(model: CausalModel, built: pm.Model) -> PosteriorDensity:
    """Compile the density of a posterior at parameters as results have them."""
    return RowDensity(model, built) if model.regressed else PosteriorDensity(model, built)
