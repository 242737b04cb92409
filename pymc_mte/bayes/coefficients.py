"""Coefficients of covariates and linear parents: sampled along uncorrelated directions, reported per term."""

from collections.abc import Mapping

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from numpy.typing import NDArray

from pymc_mte.bayes.priors import Prior, Tensor, prior_width
from pymc_mte.bayes.rowlayout import RowLayout
from pymc_mte.families import LINKS
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.status import Note, Status

Array = NDArray[np.float64]

REPEATED = 1e-6
"""A column of which this share or more is not its own shares its coefficient with others."""


def class_contrasts(classes: int) -> Array:
    """Orthonormal contrasts of the classes (class, class - 1): every class is treated alike."""
    full = np.eye(classes) - 1.0 / classes
    return np.asarray(np.linalg.svd(full)[0][:, : classes - 1])


def add_coefficients(
    model: CausalModel,
    layout: RowLayout,
    priors: Mapping[str, Prior],
    pooled: Mapping[str, tuple[Tensor, Tensor]],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Create the coefficients as random variables of the current PyMC model.

    Along every one of r uncorrelated directions of variance 1 a coefficient is Normal(0, width / sqrt(r)),
    so that the terms' joint contribution has the standard deviation ``width`` (2.5 log-odds, or 2.5
    pooled standard deviations of a continuous variable) over rows, however many terms there are. For
    class membership this holds of the log-odds of any two classes, which all are treated alike.

    Parameters
    ----------
    model : CausalModel
        The graph, with covariates or linear parents.
    layout : RowLayout
        Gives the directions.
    priors : mapping
        Widths by name.
    pooled : mapping of str to (tensor, tensor)
        Pooled mean and standard deviation of the continuous variables.

    Returns
    -------
    along, coefficients : dict of str to tensor
        Along directions (direction, ...), by ``class`` (in contrasts) or variable; and per covariate, by
        result name.
    """
    backs = {name: pm.Data(f"to_terms_{name}", found.to_covariates) for name, found in layout.linear.items()}
    given = layout.covariates
    shared = None if given is None else pm.Data("to_covariates", given.to_covariates)
    along: dict[str, Tensor] = {}
    coefficients: dict[str, Tensor] = {}
    for name, dims in model.coefficient_dims.items():
        what = name.removeprefix("coef_")
        r, back = layout.directions(what).values.shape[1], backs.get(what, shared)
        sigma = prior_width(name, priors.get(name)) / np.sqrt(max(r, 1))
        if what == "class":
            raw = pm.Normal(f"raw_{name}", 0.0, sigma / np.sqrt(2), shape=(r, model.classes - 1))
            along[what] = raw
            by_class = back @ raw @ class_contrasts(model.classes).T
            coefficients[name] = pm.Deterministic(name, by_class.T, dims=dims)
            continue
        if len(dims) == 2:
            raw = pm.Normal(f"raw_{name}", 0.0, sigma, shape=(r, model.size(what) - 1))
            value = pt.concatenate([pt.zeros((r, 1)), raw], axis=1)
        else:
            link = LINKS[model.variables[what].family][1]
            scale = pooled[what][1] if link == "identity" else 1.0
            value = pm.Normal(f"raw_{name}", 0.0, sigma * scale, shape=r)
        along[what] = value
        coefficients[name] = pm.Deterministic(name, (back @ value).T, dims=dims)
    return along, coefficients


def repeated_terms(model: CausalModel, built: pm.Model) -> list[Note]:
    """Say which columns are linear combinations of others, once for each set of columns."""
    notes: dict[tuple[str, ...], Note] = {}
    for name, dims in model.coefficient_dims.items():
        what, columns = name.removeprefix("coef_"), model.coords[dims[-1]]
        own = f"to_terms_{what}"
        back = np.asarray(built[own if own in built.named_vars else "to_covariates"].get_value())
        size = np.linalg.norm(back, axis=1)
        vary = np.flatnonzero(size > 0)  # `tabulate` tells of those that do not
        basis = np.linalg.qr(back[vary] / size[vary, None])[0]
        shared = vary[1 - np.linalg.norm(basis, axis=1) ** 2 > REPEATED]
        if len(shared):
            told = tuple(str(columns[i]) for i in shared)
            detail = f"{len(vary)} columns vary in {back.shape[1]} directions"
            notes.setdefault(told, Note(Status.REPEATED_TERMS, ", ".join(told), detail))
    return list(notes.values())


def raw_coefficients(model: CausalModel, layout: RowLayout, point: Parameters) -> Parameters:
    """Values of the coefficients' random variables at given coefficients per covariate."""
    out: Parameters = {}
    for name, dims in model.coefficient_dims.items():
        along = layout.directions(name.removeprefix("coef_")).from_covariates @ point[name].T
        if name == "coef_class":
            along = along @ class_contrasts(model.classes)
        elif len(dims) == 2:
            along = along[:, 1:]
        out[f"raw_{name}"] = along
    return out
