"""What the likelihood identifies: the rank of the map from parameters to the law of the data. NumPy.

With c the cell probabilities and S the scores of the cells, diag(sqrt c) S has the row space and the
rank of the Jacobian dc/dtheta, and its Gram matrix is the Fisher information of one row. A functional
is identified, locally and at almost every parameter, exactly if its gradient lies in that row space.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pymc_mte.coefficients import free_coefficients, uncentred, with_linear_parents
from pymc_mte.identify.linear_scores import interior_coefficients, linear_scores
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.scores import Scores, gradient
from pymc_mte.network import cell_columns, draw_rows, log_sum_classes
from pymc_mte.randomness import as_generator
from pymc_mte.regression import draw_given, log_joint_given
from pymc_mte.standardised import functionals_given
from pymc_mte.variable import Variable

Array = NDArray[np.float64]

TOLERANCE = 1e-9
"""Singular values of the scaled Jacobian below this share of the largest count as zero."""

RESIDUAL = 1e-6
"""A gradient is in the row space if no more than this share of its length is outside."""

CLEAR_GAP = 1e3
"""Smallest ratio of the last singular value that counts to the first that does not."""

MAX_CELLS = 2**16
MAX_ENTRIES = 2**24
"""Larger tables (cells, cells times parameters) are replaced by rows drawn from the model."""

MIN_ROWS = 4_000
ROWS_PER_PARAMETER = 20
"""Rows drawn in place of a table: so many per parameter, and no fewer than the minimum."""

MAX_PARAMETERS = 1_000
"""Models with more are not judged: the singular value decomposition would take minutes."""

SMALL_GRADIENT = 1e-8
"""Gradients shorter than this belong to constants, such as the weight of a single class."""

SMALL_MOVE = 0.2
"""Tables that move less than this share of the first are not named in a free direction."""

INTERIOR = {"location": (0.5, 4.0), "scale": (0.5, 1.5), "shared": (3.0, 8.0)}
"""Ranges of the positive parameters of random interior points, by scope."""

NOT_SMOOTH = "weight_harmed"
"""Jumps where an effect crosses the practical size: identified if effects and weights are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectrum:
    """Jacobian at one set of parameters, its columns scaled to unit length.

    Attributes
    ----------
    scale : ndarray of shape (n_free,)
        Root of each parameter's own information per row; 1 where that is zero.
    value : ndarray of shape (n_free,)
        Singular values, descending.
    vector : ndarray of shape (n_free, n_free)
        Right singular vectors, as rows.
    rank : int
        Singular values above the tolerance.
    """

    scale: Array
    value: Array
    vector: Array
    rank: int

    @property
    def gap(self) -> float:
        """Ratio of the last singular value that counts to the first that does not."""
        if self.rank in (0, len(self.value)):
            return np.inf
        return float(self.value[self.rank - 1] / max(self.value[self.rank], 1e-300))

    def outside(self, slope: Array) -> Array:
        """Part of gradients (..., n_free) outside the row space, in scaled coordinates."""
        free = self.vector[self.rank :]
        return np.asarray((slope / self.scale) @ free.T @ free)

    def residual(self, slope: Array) -> Array:
        """Share of the length of gradients (..., n_free) that is outside the row space."""
        length = np.linalg.norm(slope / self.scale, axis=-1)
        outside = np.linalg.norm(self.outside(slope), axis=-1)
        return np.where(length > SMALL_GRADIENT, outside / np.maximum(length, SMALL_GRADIENT), 0.0)

    def error(self, slope: Array) -> Array:
        """Cramer-Rao standard error of one row for gradients (..., n_free); infinite outside."""
        inside = (slope / self.scale) @ self.vector[: self.rank].T / self.value[: self.rank]
        known = self.residual(slope) < RESIDUAL
        return np.where(known, np.linalg.norm(inside, axis=-1), np.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Jacobian:
    """What the likelihood of a model identifies, at random interior parameters.

    Attributes
    ----------
    n_parameters : int
        Free parameters, class weights included.
    ranks : tuple of int
        Rank at every point; the largest is the generic one.
    residual : dict of str to ndarray
        Per functional and parameter table, with its axes: the share of the gradient's length that
        lies outside the row space, the largest over the points of full generic rank.
    error : dict of str to ndarray
        Standard error times the root of the number of rows, the median over the points; infinite
        where not identified. An order of magnitude only: see `expected_errors` for stated parameters.
    free : dict of str to tuple of str
        Per answer that is not identified: the tables, by class (``p_x[class 1]``), that move most in the
        direction that moves the answer and leaves no trace in the data. See `trade`.
    smallest : float
        Smallest scaled singular value that counts, at the best-conditioned point (at most 1).
    gap : float
        Smallest ratio, over points, of the last singular value that counts to the first that does not.
    exact : bool
        Whether all cells were used, and not rows drawn from the model.
    needs_shape : bool
        Whether the class weights are identified by the shape of continuous families only: with these
        variables cut into levels, the same graph would leave them open.
    """

    n_parameters: int
    ranks: tuple[int, ...]
    residual: dict[str, Array]
    error: dict[str, Array]
    free: dict[str, tuple[str, ...]]
    smallest: float
    gap: float
    exact: bool
    needs_shape: bool

    @property
    def rank(self) -> int:
        """Generic rank: the largest over the points."""
        return max(self.ranks)

    @property
    def missing(self) -> int:
        """Number of directions in which parameters move without any trace in the data."""
        return self.n_parameters - self.rank

    @property
    def clear(self) -> bool:
        """Whether all points agree and every gap is wide."""
        return len(set(self.ranks)) == 1 and self.gap >= CLEAR_GAP

    def trade(self, name: str) -> str:
        """Name what can be traded for what: ``p_x[class 1] against class_weight[class 1]``."""
        first, *rest = self.free[name]
        return f"{first} against {' and '.join(rest)}" if rest else first

    @property
    def identified(self) -> dict[str, bool]:
        """Whether every entry of a functional or parameter table is identified."""
        known = {name: bool((value < RESIDUAL).all()) for name, value in self.residual.items()}
        if "effect" in known:
            known[NOT_SMOOTH] = known["effect"] and known["class_weight"]
        return known


def jacobian(model: CausalModel, *, points: int = 3, rng: int | np.random.Generator = 0) -> Jacobian | None:
    """Find what the likelihood of a model identifies, from its graph and families alone.

    Parameters
    ----------
    model : CausalModel
        The model.
    points : int
        Random interior points.
    rng : int or numpy.random.Generator
        Source of the points, and of the rows where the table of cells is too large or a variable
        is continuous.

    Returns
    -------
    Jacobian or None
        None for more than 1,000 parameters.

    Notes
    -----
    Local and generic: it says nothing about isolated other solutions, such as the order of the
    classes, nor about exceptional parameters, such as classes that coincide.

    Examples
    --------
    >>> from pymc_mte import load_model
    >>> found = jacobian(load_model("gallery:level4"))
    >>> found.rank, found.n_parameters, found.identified["ate"], found.identified["effect"]
    (15, 17, True, False)
    """
    rng = as_generator(rng)
    if n_free(model) > MAX_PARAMETERS:
        return None
    model = model.with_levels({}, centres=dict.fromkeys(uncentred(model), 0.0))  # moves no answer
    at = [interior_point(model, rng) for _ in range(points)]
    found = [(point, spectrum(model, point, rng)) for point in at]
    ranks = tuple(s.rank for _, s in found)
    best = [(point, s) for point, s in found if s.rank == max(ranks)]
    slopes = [gradient(model, point, lambda q: smooth(model, q)) for point, _ in best]
    residual: dict[str, Array] = {}
    error: dict[str, Array] = {}
    for name in slopes[0]:
        each = [
            (s.residual(slope[name]), s.error(slope[name]))
            for (_, s), slope in zip(best, slopes, strict=True)
        ]
        residual[name] = np.asarray([r for r, _ in each], dtype=float).max(axis=0)
        error[name] = np.median([e for _, e in each], axis=0)
    first = best[0][1]
    free = {
        name: free_direction(model, first.outside(slopes[0][name]) / first.scale)
        for name, value in residual.items()
        if (value >= RESIDUAL).any()
    }
    return Jacobian(
        n_parameters=len(first.value),
        ranks=ranks,
        residual=residual,
        error=error,
        free=free,
        smallest=max((s.value[s.rank - 1] for _, s in best if s.rank), default=0.0),
        gap=min(s.gap for _, s in found),
        exact=all_cells(model),
        needs_shape=bool((residual["class_weight"] < RESIDUAL).all()) and _needs_shape(model, rng),
    )


def _needs_shape(model: CausalModel, rng: np.random.Generator) -> bool:
    """Whether the class weights are lost when continuous variables are cut into levels."""
    if not model.continuous_variables or model.classes == 1:
        return False
    levels = tuple(range(model.classes + 1))
    cut = {
        name: var
        if var.discrete
        else Variable(
            family="categorical",
            levels=levels,
            parents=var.parents,
            linear_parents=var.linear_parents,
            latent=var.latent,
        )
        for name, var in model.variables.items()
    }
    found = jacobian(CausalModel(classes=model.classes, variables=cut), points=1, rng=rng)
    return found is not None and not found.identified["class_weight"]


def n_free(model: CausalModel) -> int:
    """Count the free parameters of a model, class weights and coefficients of linear parents included."""
    tables = sum(int(np.prod(model.free_shape(name))) for name in model.dims)
    return tables + sum(free_coefficients(model, name) for name in with_linear_parents(model))


def all_cells(model: CausalModel) -> bool:
    """Whether the law of the data is a table small enough to be used whole."""
    small = model.n_cells <= MAX_CELLS and model.n_cells * n_free(model) <= MAX_ENTRIES
    return small and not model.continuous_variables


def smooth(model: CausalModel, parameters: Parameters) -> dict[str, Array]:
    """Parameters and, with a treatment, all functionals that have a gradient."""
    found = dict(parameters)
    if model.treatment is not None:
        found |= functionals_given(model, parameters, None, np.ones(1))
        del found[NOT_SMOOTH]
    return found


def interior_point(model: CausalModel, rng: np.random.Generator) -> Parameters:
    """Draw parameters away from every boundary, with a batch axis of length 1."""
    out: Parameters = {}
    for name, shape in model.shapes.items():
        kind = model.kind(name)
        if kind.support == "simplex":
            share = 0.5 if name == "class_weight" else 0.9
            table = rng.dirichlet(np.ones(shape[-1]), size=shape[:-1])
            out[name] = share * table + (1 - share) / shape[-1]
        elif kind.support == "unit":
            out[name] = rng.uniform(0.05, 0.95, size=shape)
        elif kind.support == "real":
            out[name] = rng.normal(0.0, 1.5, size=shape)
        else:
            low, high = INTERIOR[kind.scope]
            out[name] = rng.uniform(low, high, size=shape)
    out |= interior_coefficients(model, rng)
    return {name: value[None] for name, value in out.items()}


def spectrum(
    model: CausalModel, parameters: Parameters, rng: np.random.Generator, n_rows: int | None = None
) -> Spectrum:
    """Decompose the Jacobian at one set of parameters (batch axis of length 1).

    Parameters
    ----------
    model : CausalModel
        The model.
    parameters : mapping of str to ndarray
        Parameter arrays, each with a batch axis of length 1.
    rng : numpy.random.Generator
        Source of the rows where the table of cells is not used.
    n_rows : int, optional
        Rows drawn then; 20 per parameter and at least 4,000 by default, enough for the rank. The
        singular values have a relative sampling error of about the root of parameters over rows.
    """
    if all_cells(model):
        columns = cell_columns(model)
        log_p = log_sum_classes(log_joint_given(model, parameters, columns, None))[0]
        weight = np.exp(0.5 * log_p)
    else:
        columns, weight = _drawn(
            model, parameters, n_rows or max(MIN_ROWS, ROWS_PER_PARAMETER * n_free(model)), rng
        )
    if model.linear_edges:
        score = weight[:, None] * linear_scores(model, columns, parameters)
    else:
        score = weight[:, None] * Scores(model, columns).by_pattern(parameters)
    scale = np.linalg.norm(score, axis=0)
    scale = np.where(scale > 1e-12, scale, 1.0)
    triangle = np.linalg.qr(
        score / scale, mode="r"
    )  # singular values of the rows, at the size of the columns
    _, found, vector = np.linalg.svd(triangle, full_matrices=True)
    value = np.zeros(len(scale))
    value[: len(found)] = found
    rank = int((value > TOLERANCE * value.max(initial=0.0)).sum())
    return Spectrum(scale=scale, value=value, vector=vector, rank=rank)


def _drawn(
    model: CausalModel, parameters: Parameters, n: int, rng: np.random.Generator
) -> tuple[dict[str, NDArray[Any]], Array]:
    """Draw rows, and the root of the weight of each in an average over the model's law.

    Half come from the model, half from it with even tables, so that rare levels of parents occur; as
    the law of a row is half of either, no weight exceeds 2 / n.
    """
    even = {
        name: np.full_like(value, 1 / value.shape[-1])
        if name in model.dims and model.kind(name).scope == "table"
        else value
        for name, value in parameters.items()
    }
    laws = (parameters, even)
    singles = [{m: v[0] for m, v in law.items()} for law in laws]
    if model.linear_edges:
        parts = [draw_given(model, law, None, n // 2, rng)[1] for law in singles]
    else:
        parts = [draw_rows(model, law, n // 2, rng)[1] for law in singles]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in model.variables}
    own, other = (log_sum_classes(log_joint_given(model, law, columns, None))[0] for law in laws)
    return columns, np.sqrt(np.exp(own - np.logaddexp(own, other) + np.log(2)) / (2 * (n // 2)))


def free_direction(model: CausalModel, moves: Array) -> tuple[str, ...]:
    """Name up to three tables that a direction of free parameters (..., n_free) moves most.

    One direction per entry of a functional; the longest is described.
    """
    rows = moves.reshape(-1, moves.shape[-1])
    move = np.abs(rows[np.argmax(np.linalg.norm(rows, axis=1))])
    size: dict[str, float] = {}
    for label, part in zip(block_labels(model), move, strict=True):
        size[label] = max(size.get(label, 0.0), float(part))
    order = sorted(size, key=lambda label: -size[label])
    return tuple(label for label in order[:3] if size[label] > SMALL_MOVE * size[order[0]])


def block_labels(model: CausalModel) -> list[str]:
    """Table and class, ``p_x[class 1]``, behind every free parameter."""
    out: list[str] = []
    for name, shape in model.shapes.items():
        if name == "class_weight":
            out += [f"{name}[class {u}]" for u in range(1, shape[0])]
            continue
        inner = model.free_shape(name)
        by_class = "class" in model.dims[name]
        size = int(np.prod(inner))
        for u in range(inner[0] if by_class else 1):
            label = f"{name}[class {u}]" if by_class else name
            out += [label] * (size // inner[0] if by_class else size)
    for name in with_linear_parents(model):
        out += [f"coef_{name}"] * free_coefficients(model, name)
    return out
