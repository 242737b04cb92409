"""Labels of classes: chains and draws matched to a pivot, and how surely."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pymc_mte.alignment import match_classes, take_classes
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.methods import class_profile
from pymc_mte.moments.optima import relabelled

Array = NDArray[np.float64]

SWITCH_EVERY = 10
"""Every so many draws the label of a draw is compared with its chain's."""


def align_chains(
    model: CausalModel, values: Parameters, pivots: Parameters, scales: Mapping[str, float]
) -> tuple[Parameters, float]:
    """Relabel each chain by one permutation; return the share of draws that prefer another one.

    Parameters
    ----------
    model : CausalModel
        The graph.
    values : mapping of str to ndarray
        Draws (chain, draw, ...); what is no parameter of the model has the class first.
    pivots : mapping of str to ndarray
        What each chain is matched to: (chain, ...).
    scales : mapping of str to float
        Pooled standard deviation of every continuous variable.
    """
    profile = class_profile(model, values, scales)
    target = class_profile(model, pivots, scales)
    orders, switched = [], []
    for own, pivot in zip(profile, target, strict=True):
        order = match_classes(own.mean(axis=0)[None], pivot)[0][0]
        preferred = match_classes(own[::SWITCH_EVERY], pivot)[0]
        orders.append(order)
        switched.append((preferred != order).any(axis=-1).mean())
    order, dims = np.array(orders), model.posterior_dims
    moves = {name for name in values if dims.get(name, ("class",))[:1] == ("class",)}
    out = {n: take_classes(v, order, 2) if n in moves else v for n, v in values.items()}
    return out, float(np.mean(switched))


def align_draws(
    model: CausalModel, values: Parameters, pivot: Parameters, scales: Mapping[str, float]
) -> tuple[Parameters, float]:
    """Relabel every draw on its own; return the share of draws that another order fits almost as well.

    For draws without a history, such as particles: where classes overlap, choosing the nearest order
    draw by draw makes them look further apart than they are.

    Parameters
    ----------
    model : CausalModel
        The graph.
    values : mapping of str to ndarray
        Draws (chain, draw, ...).
    pivot : mapping of str to ndarray
        One set of parameters.
    scales : mapping of str to float
        Pooled standard deviation of every continuous variable.
    """
    lead = values["class_weight"].shape[:2]
    flat = {name: value.reshape(-1, *value.shape[2:]) for name, value in values.items()}
    target = class_profile(model, {name: value[None] for name, value in pivot.items()}, scales)[0]
    dims = model.posterior_dims
    order, ambiguous = match_classes(class_profile(model, flat, scales), target)
    moves = {name for name in flat if dims.get(name, ("class",))[:1] == ("class",)}
    out = {n: take_classes(v, order, 1) if n in moves else v for n, v in flat.items()}
    return {name: value.reshape(*lead, *value.shape[1:]) for name, value in out.items()}, float(
        ambiguous.mean()
    )


class LabelRegion:
    """Parameters whose nearest order of classes, seen from a pivot, is the one they have.

    Parameters
    ----------
    model : CausalModel
        The graph.
    pivot : ndarray of shape (classes, features)
        Class profile from which the order is judged.
    scales : mapping of str to float
        Pooled standard deviation of every continuous variable.
    """

    def __init__(self, model: CausalModel, pivot: Array, scales: Mapping[str, float]) -> None:
        self.model, self.pivot, self.scales = model, pivot, scales

    def order(self, parameters: Parameters) -> NDArray[np.int64]:
        """Return the nearest order of the classes of every set of parameters: (sets, classes)."""
        return match_classes(class_profile(self.model, parameters, self.scales), self.pivot)[0]

    def aligned(self, parameters: Parameters) -> Parameters:
        """Move every set of parameters into the region by relabelling its classes."""
        return relabelled(self.model, parameters, self.order(parameters))

    def holds(self, parameters: Parameters) -> NDArray[np.bool_]:
        """Whether each set of parameters lies in the region: (sets,)."""
        inside: NDArray[np.bool_] = (self.order(parameters) == np.arange(self.model.classes)).all(axis=1)
        return inside
