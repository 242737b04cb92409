"""The continuous variables given the discrete ones: a mixture over classes, as an observed variable."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pymc as pm
from numpy.typing import NDArray

from pymc_mte.bayes.densities import LOG_DENSITY
from pymc_mte.bayes.priors import Tensor
from pymc_mte.families import FAMILIES


def continuous_mixture(
    name: str,
    families: tuple[str, ...],
    *,
    log_class: Tensor,
    weight: Tensor,
    parameters: Sequence[Sequence[Tensor]],
    observed: Tensor,
) -> Tensor:
    """Observe rows of continuous variables as a mixture over classes.

    Parameters
    ----------
    name : str
        Name of the observed variable.
    families : tuple of str
        Family of every column.
    log_class : tensor of shape (rows, classes)
        Log P(class | discrete part of the row).
    weight : tensor of shape (rows,)
        How often every row occurred.
    parameters : sequence of sequences of tensors
        Of every column, its family's parameters in order, each of shape (rows or 1, classes or 1).
    observed : tensor of shape (rows, columns)
        The values.
    """
    flat = [tensor for column in parameters for tensor in column]
    stops = np.cumsum([0, *(len(column) for column in parameters)])

    def logp(value: Tensor, log_u: Tensor, w: Tensor, *rest: Tensor) -> Tensor:
        log_u, w, arguments = unbatch(log_u, 2), unbatch(w, 1), [unbatch(r, 2) for r in rest]
        total = log_u
        for i, family in enumerate(families):
            total = total + LOG_DENSITY[family](value[:, i, None], *arguments[stops[i] : stops[i + 1]])
        return (w * pm.math.logsumexp(total, axis=1)).sum()

    def draw(
        log_u: NDArray[np.float64], rest: tuple[Any, ...], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        latent = (log_u + rng.gumbel(size=log_u.shape)).argmax(axis=1)
        rows = np.arange(len(latent))
        columns = []
        for i, family in enumerate(families):
            own = [
                np.broadcast_to(np.reshape(a, np.shape(a)[-2:]), log_u.shape)[rows, latent]
                for a in rest[stops[i] : stops[i + 1]]
            ]
            columns.append(FAMILIES[family].draw(rng, *own))
        return np.column_stack(columns)

    def random(*arguments: Any, rng: np.random.Generator, size: Any = None) -> NDArray[np.float64]:
        log_u, _, *rest = arguments
        log_u = np.reshape(log_u, np.shape(log_u)[-2:])
        repeats = int(np.prod(size)) if size else 1
        drawn = np.stack([draw(log_u, tuple(rest), rng) for _ in range(repeats)])
        return drawn.reshape(*(size or ()), *drawn.shape[1:])

    axes = ["(r,k)", "(r)"] + [f"(a{i},b{i})" for i in range(len(flat))]
    signature = ",".join(axes) + ",(r,v)->(r,v)"
    return pm.CustomDist(
        name,
        log_class,
        weight,
        *flat,
        0.0 * observed,
        logp=lambda value, *a: logp(value, *a[:-1]),
        random=lambda *a, rng=None, size=None: random(*a[:-1], rng=rng, size=size),
        signature=signature,
        observed=observed,
    )


def unbatch(tensor: Tensor, ndim: int) -> Tensor:
    """Drop the length-1 batch axes that a distribution puts in front of its parameters."""
    while tensor.ndim > ndim:
        tensor = tensor[0]
    return tensor
