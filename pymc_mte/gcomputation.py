"""Functionals where treatment or outcome descend from numbers: averages over simulated ancestors. NumPy."""

import numpy as np
from numpy.typing import NDArray

from pymc_mte.functionals import ancestors, effects_from_classes
from pymc_mte.mechanisms import Mechanisms, mirrored_points
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.regression import log_class

Array = NDArray[np.float64]

POINTS = 2_048
"""Simulated units without covariates, and at least as many with them."""


def simulated_functionals(
    model: CausalModel, parameters: Parameters, covariates: Array | None, share: Array, block: int
) -> dict[str, Array]:
    """Average over simulated ancestors of treatment and outcome; outcome means are exact given these.

    Every class and arm sees the same units, and every draw too: fixed quasi-random points, each with its
    mirror image, turned into values by the quantiles of each variable given its parents. Linear averages
    over normal ancestors are therefore exact. Else 2,048 points leave an error, measured in standard
    deviations of what is averaged, of about 0.001 for probabilities and 0.003 for exponentials of normal
    ancestors, 0.01 where ancestors have levels (worst cases three times that); it is nearly the same in all
    draws. With covariates the points are spread over the rows, two at least to each.

    Parameters
    ----------
    model : CausalModel
        With treatment and outcome.
    parameters : mapping of str to ndarray
        Draws (draw, ...).
    covariates : ndarray of shape (row, columns), optional
        Deviations from the means.
    share : ndarray of shape (row,)
        Share of every row.
    block : int
        Numbers that are held at once.
    """
    names = _simulated(model)
    units = _Units(len(names), covariates, share)
    levels = max([2, *(model.size(n) for n in names if model.variables[n].discrete)])
    size = units.count * model.classes * len(model.arms) * levels
    draws = len(parameters["class_weight" if covariates is None else "baseline_weight"])
    blocks = np.array_split(np.arange(draws), min(draws, max(1, draws * size // block)))
    with np.errstate(all="ignore"):  # draws from a prior may have infinite means
        parts = [_of_block(model, {n: v[b] for n, v in parameters.items()}, names, units) for b in blocks]
    return {n: np.concatenate([part[n] for part in parts]) for n in parts[0]}


def _simulated(model: CausalModel) -> list[str]:
    """Ancestors of treatment and outcome, parents first."""
    t, y = str(model.treatment), str(model.outcome)
    relevant = ancestors(model, {t, y}, stop=set())
    return [name for name in model.order if name in relevant and name not in (t, y)]


class _Units:
    """Scrambled Sobol points in the unit cube, and the covariates of the row that each belongs to."""

    def __init__(self, dimensions: int, covariates: Array | None, share: Array) -> None:
        rows = 1 if covariates is None else len(covariates)
        each = max(1, -(-POINTS // (2 * rows)))
        half = each * rows
        self.uniform = mirrored_points(half, dimensions)
        row = np.random.default_rng(0).permutation(np.arange(half) % rows)
        self.row = np.concatenate([row, row])
        self.share = np.full(2 * half, 0.5 / half) if covariates is None else share[self.row] / (2 * each)
        self.covariates = None if covariates is None else covariates[self.row]
        self.of_row = covariates
        self.count = 2 * half


def _of_block(
    model: CausalModel, parameters: Parameters, names: list[str], units: _Units
) -> dict[str, Array]:
    """Functionals of some draws; columns have the axes (draw, class, arm, unit)."""
    t, y = str(model.treatment), str(model.outcome)
    at = Mechanisms(
        model=model,
        parameters=parameters,
        state={t: np.arange(len(model.arms))[:, None]},
        covariates=units.covariates,
    )
    for name in model.order:
        if name == t:
            got = at.chances(t)
        elif name in names:
            at.follow(name, units.uniform[:, names.index(name)])
    log_p = log_class(model, parameters, units.of_row)
    weight = np.exp(log_p) if units.covariates is None else np.exp(log_p)[..., units.row]
    weight = weight * units.share  # (draw, class, unit)
    wanted = (*weight.shape[:2], len(model.arms), units.count)
    mean = np.broadcast_to(at.mean(y), wanted)
    total = weight.sum(axis=-1)
    out = {"potential_outcome": np.einsum("dkn,dkan->dka", weight, mean) / total[..., None]}
    out |= effects_from_classes(model, total, out["potential_outcome"])
    chance = np.broadcast_to(got[:, :, 0], (*weight.shape, len(model.arms)))
    att = []
    for b, a in model.contrasts:
        treated = weight * chance[..., b]
        gain = (treated * (mean[:, :, b] - mean[:, :, a])).sum(axis=(1, 2))
        with np.errstate(invalid="ignore", divide="ignore"):  # nobody got the arm: not a number
            att.append(gain / treated.sum(axis=(1, 2)))
    out["att"] = att[0] if len(att) == 1 else np.stack(att, axis=-1)
    return out if units.covariates is None else {"class_weight": total, **out}
