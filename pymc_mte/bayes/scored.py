"""Observed rows whose log-density per class is computed outside: an own outcome, looked-up densities."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pymc as pm
from numpy.typing import NDArray

from pymc_mte.bayes.priors import Tensor

Draw = Callable[..., NDArray[np.float64]]
"""``f(rng, *arguments)``: one data set (rows, columns)."""


def scored_mixture(
    name: str,
    total: Tensor,
    *,
    weight: Tensor,
    observed: Tensor,
    draw: Draw | None = None,
    arguments: Sequence[Tensor] = (),
) -> Tensor:
    """Observe rows with a given log-density per class.

    Parameters
    ----------
    name : str
        Name of the observed variable.
    total : tensor of shape (rows, classes)
        Log P(class, row | discrete part of the row).
    weight : tensor of shape (rows,)
        How often every row occurred.
    observed : tensor of shape (rows, columns)
        The values; `total` has been computed from them.
    draw : callable, optional
        Draws one data set; without it the model has no predictive draws of these rows.
    arguments : sequence of tensors, each of shape (rows or 1, classes or 1)
        What `draw` is given.
    """

    def logp(value: Tensor, log_joint: Tensor, w: Tensor, *rest: Tensor) -> Tensor:
        log_joint, w = log_joint.reshape(log_joint.shape[-2:]), w.reshape(w.shape[-1:])
        return (w * pm.math.logsumexp(log_joint, axis=1)).sum()

    def random(*given: Any, rng: np.random.Generator, size: Any = None) -> NDArray[np.float64]:
        if draw is None:
            raise NotImplementedError(
                f"{name}: predictive draws need to know how the outcome is drawn; an own `outcome` gives its "
                "log-density only. Draw it yourself from the parameters"
            )
        values = [np.reshape(a, np.shape(a)[-2:]) for a in given[2:-1]]
        repeats = int(np.prod(size)) if size else 1
        drawn = np.stack([draw(rng, *values) for _ in range(repeats)])
        return drawn.reshape(*(size or ()), *drawn.shape[1:])

    axes = ["(r,k)", "(r)"] + [f"(a{i},b{i})" for i in range(len(arguments))]
    return pm.CustomDist(
        name,
        total,
        weight,
        *arguments,
        0.0 * observed,
        logp=lambda value, *a: logp(value, *a[:-1]),
        random=random,
        signature=",".join(axes) + ",(r,v)->(r,v)",
        observed=observed,
    )
