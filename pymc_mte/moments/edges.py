"""Score tests of the graph's likelihood against one forbidden edge, with their power. NumPy, SciPy.

The model is fitted once, without the edge. An edge gives the child's location (log-odds, or mean in
standard deviations) a slope in the parent for every class and every level of its other parents.

These tests are powerful and not specific: a violation bends the whole fit, so that several of them reject.
With few cells they even coincide. The tests of moments say better which independence fails.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pymc_mte.hierarchy import hierarchy
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.em import Columns, responsibilities
from pymc_mte.moments.problem import Problem
from pymc_mte.moments.scores import information, inverse_information
from pymc_mte.network import (
    by_parents,
    cell_columns,
    gathered,
    log_joint,
    log_sum_classes,
    scores,
    with_class_axis,
)

Array = NDArray[np.float64]
Edge = tuple[str, str]

MAX_CELLS = 1 << 14
"""Tables up to this size give the expected information; larger ones the empirical one."""

NO_RANK = 1e-7
"""An edge direction with a smaller share of its information left is explained by the other parameters."""

SHIFT = 0.5
"""Strength whose detection is judged: log-odds (or standard deviations) of the child per SD of the parent."""

LEVEL = 0.05
POWERLESS = 0.2
"""A test that would reject less often than this has "no power here"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeTest:
    """Score test of one kind of forbidden edge.

    Attributes
    ----------
    edges : tuple of (str, str)
        Parent and child of every edge, tested jointly.
    assumption : str
        The independence that the edges would break.
    statistic : float
        Efficient score statistic, chi-squared with ``df`` degrees of freedom.
    df : int
        Rank that the edges add to the information; 0: nothing to test.
    p_value : float
        NaN with ``df = 0``.
    noncentrality : tuple of (float, float, float)
        Expected excess of the statistic at this number of rows if the least visible of the edges shifts its
        child by `SHIFT`: alike in every arm; only in one arm, the one where it is seen best; with
        the other sign in one arm, the one where it is seen worst. Classes take the place of arms for a child
        that the treatment does not cause.
    """

    edges: tuple[Edge, ...]
    assumption: str
    statistic: float
    df: int
    p_value: float
    noncentrality: tuple[float, float, float]

    @property
    def power(self) -> tuple[float, float, float]:
        """Probability of p < 0.05 under each of the three shifts."""
        if self.df == 0:
            return 0.0, 0.0, 0.0
        limit = stats.chi2.isf(LEVEL, self.df)
        alike, apart, against = stats.ncx2.sf(limit, self.df, np.maximum(self.noncentrality, 1e-12))
        return float(alike), float(apart), float(against)


def forbidden_edges(model: CausalModel) -> dict[str, tuple[Edge, ...]]:
    """Edges that the level of the graph forbids, by the independence that each kind would break.

    Examples
    --------
    >>> from pymc_mte import load_model
    >>> list(forbidden_edges(load_model("gallery:level4")).values())
    [(('z', 'y'),), (('t', 'x'),), (('z', 'x'),)]
    """
    found = hierarchy(model)
    t, y = str(model.treatment), str(model.outcome)
    z, x = model.treatment_proxies, model.outcome_proxies
    kinds: list[tuple[Sequence[str], Sequence[str]]] = [(x, [y]), (z, [y]), ([t], x), (z, x), (z, [t])]
    out: dict[str, tuple[Edge, ...]] = {}
    for parents, children in kinds:
        edges = tuple((a, b) for a in parents for b in children if a not in model.variables[b].parents)
        for item in found.needed:
            one, two = set(parents), set(children)
            broken = (one <= item.left and two <= item.right) or (one <= item.right and two <= item.left)
            if broken and edges:
                left, right = (", ".join(dict.fromkeys(side)) for side in (parents, children))
                given = ", ".join(sorted(item.given))
                out[f"{left} independent of {right} given {given}"] = edges
    return out


def edge_tests(problem: Problem, point: Parameters) -> tuple[EdgeTest, ...]:
    """Test every kind of forbidden edge at the maximum-likelihood estimate.

    Parameters
    ----------
    problem : Problem
        The data.
    point : mapping of str to ndarray
        Maximum-likelihood estimate of the graph as it is, with a batch axis of length 1.

    Notes
    -----
    The statistics are Neyman's C(alpha): scores of the edges less their regression on the scores of the
    fitted parameters, so that a small error of the fit does no harm. Rows are taken as independent.

    References
    ----------
    .. [1] Rao, C. R. (1948). Large sample tests of statistical hypotheses concerning several parameters.
       Mathematical Proceedings of the Cambridge Philosophical Society 44(1), 50-57.
    """
    layout = _Layout(problem, point)
    return tuple(layout.test(edges, said) for said, edges in forbidden_edges(problem.model).items())


def edge_scores(problem: Problem, point: Parameters, edges: Sequence[Edge]) -> tuple[EdgeTest, ...]:
    """Test edges one by one at the maximum-likelihood estimate (see `edge_tests`)."""
    layout = _Layout(problem, point)
    return tuple(layout.test((edge,), f"{edge[0]} -> {edge[1]}") for edge in edges)


def law_shifts(problem: Problem, point: Parameters, edges: Sequence[Edge]) -> list[Array]:
    """Change that each edge, shifting its child by `SHIFT`, makes to the fitted law of a discrete model.

    Parameters
    ----------
    problem : Problem
        The data.
    point : mapping of str to ndarray
        Maximum-likelihood estimate of the graph without the edges, with a batch axis of length 1.
    edges : sequence of (str, str)
        Parent and child.

    Returns
    -------
    list of ndarray of shape (contexts, cells)
        Per edge: to first order, for a shift in one arm alone (or one class alone, if the treatment does
        not cause the child).
    """
    layout = _Layout(problem, point)
    law = layout.weights / layout.weights.sum()
    blocks = [layout.block(parent, child) for parent, child in edges]
    return [law * (shifts @ columns.T) for columns, shifts in blocks]


class _Layout:
    """Cells (or rows), their weights in the information, and the scores of the fitted parameters."""

    def __init__(self, problem: Problem, point: Parameters) -> None:
        model = problem.model
        self.model, self.point = model, point
        self.columns: Columns = problem.columns
        self.counts = self.weights = problem.counts
        if not model.continuous_variables and model.n_cells <= MAX_CELLS:
            names = model.discrete_variables
            sizes = tuple(model.size(v) for v in names)
            cell = np.ravel_multi_index([np.asarray(problem.columns[v]) for v in names], sizes)
            self.counts = np.bincount(cell, weights=problem.counts, minlength=model.n_cells)
            self.columns = cell_columns(model)
            law = np.exp(log_sum_classes(log_joint(model, point, self.columns)))[0]
            self.weights = self.counts.sum() * law
        self.share = problem.counts / problem.counts.sum()
        self.observed = problem.columns
        self.responsibility = responsibilities(log_joint(model, point, self.columns))[0]
        self.base = np.concatenate(list(self._fitted()), axis=1)
        self.own = information(self.base, self.weights)
        self.inverse = inverse_information(self.own)

    def test(self, edges: tuple[Edge, ...], assumption: str) -> EdgeTest:
        """Test the edges of one kind jointly."""
        blocks = [self.block(parent, child) for parent, child in edges]
        extra = np.concatenate([block for block, _ in blocks], axis=1)
        cross = extra.T @ (self.weights[:, None] * self.base)
        regression = cross @ self.inverse
        score = self.counts @ extra - regression @ (self.counts @ self.base)
        whole = information(extra, self.weights)
        left = whole - regression @ cross.T
        scale = np.sqrt(np.maximum(np.diag(whole), 1e-300))
        value, vector = np.linalg.eigh(left / np.outer(scale, scale))
        kept = value > NO_RANK
        df = int(kept.sum())
        statistic = float(((vector[:, kept].T @ (score / scale)) ** 2 / value[kept]).sum())
        seen, place = np.full(3, np.inf), 0
        for block, shifts in blocks:
            rows = slice(place, place + block.shape[1])
            place += block.shape[1]
            seen = np.minimum(seen, noncentralities(shifts @ left[rows, rows] @ shifts.T))
        return EdgeTest(
            edges=edges,
            assumption=assumption,
            statistic=statistic if df else 0.0,
            df=df,
            p_value=float(stats.chi2.sf(statistic, df)) if df else np.nan,
            noncentrality=(float(seen[0]), float(seen[1]), float(seen[2])),
        )

    def _fitted(self) -> Iterator[Array]:
        """Scores of the fitted parameters, one row each: class weights, then every variable's."""
        yield (self.responsibility - self.point["class_weight"][0][:, None])[1:].T
        flat = np.ones((len(self.counts), 1))
        for name, var in self.model.variables.items():
            location, others = self._residuals(name)
            yield self._spread(name, location, flat).reshape(len(flat), -1)
            for parameter, residual in others.items():
                if by_parents(var, parameter):
                    yield self._spread(name, residual[..., None], flat).reshape(len(flat), -1)
                else:
                    part = (self._mass(name) * residual).T
                    shared = var.spec.parameters[parameter].scope == "shared"
                    yield part.sum(axis=1, keepdims=True) if shared else part

    def _mass(self, name: str) -> Array:
        """Class probabilities given the row; 1 for a variable that the class does not cause."""
        latent = self.model.variables[name].latent
        return np.asarray(self.responsibility if latent else self.responsibility.sum(axis=0, keepdims=True))

    def _spread(self, name: str, residual: Array, slopes: Array) -> Array:
        """Lay derivatives out by class, parents' cell, location and slope: (row, ...)."""
        parents = self.model.variables[name].parents
        sizes = tuple(self.model.size(v) for v in parents)
        cells = [np.asarray(self.columns[v]) for v in parents]
        cell = np.ravel_multi_index(cells, sizes) if sizes else np.zeros(len(slopes), dtype=int)
        member = (cell[:, None] == np.arange(int(np.prod(sizes)))).astype(float)
        return np.asarray(
            np.einsum("un,nc,unl,ng->nuclg", self._mass(name), member, residual, slopes, optimize=True)
        )

    def block(self, parent: str, child: str) -> tuple[Array, Array]:
        """Scores of an edge's slopes (row, slope), and the shifts in one context each (context, slope)."""
        parents = self.model.variables[child].parents
        slopes, per_sd = self._parent(parent)
        columns = self._spread(child, self._residuals(child)[0], slopes)
        _, classes, cells, n_locations, _ = columns.shape
        levels = np.arange(1, n_locations + 1) / n_locations
        size = np.einsum("u,c,l,g->uclg", np.ones(classes), np.ones(cells), levels, per_sd)
        axes = np.indices(size.shape)
        if self.model.treatment in parents:
            sizes = tuple(self.model.size(v) for v in parents)
            context = np.unravel_index(axes[1], sizes)[parents.index(str(self.model.treatment))]
        else:
            context = axes[0]
        shifts = np.stack([(SHIFT * size * (context == c)).ravel() for c in np.unique(context)])
        return columns.reshape(len(columns), -1), shifts

    def _parent(self, name: str) -> tuple[Array, Array]:
        """Slope functions of a parent, and what each is worth when the parent moves by one SD."""
        column = np.asarray(self.columns[name], dtype=float)
        seen = np.asarray(self.observed[name], dtype=float)
        mean = self.share @ seen
        sd = np.sqrt(self.share @ (seen - mean) ** 2)
        sd = sd if sd > 0 else 1.0
        if not self.model.variables[name].discrete:
            return ((column - mean) / sd)[:, None], np.ones(1)
        levels = np.arange(1, self.model.size(name))
        return (column[:, None] == levels).astype(float), levels / sd

    def _residuals(self, name: str) -> tuple[Array, dict[str, Array]]:
        """Differentiate a log-density given class and parents.

        First by the log-odds, by the mean in SDs or by its logarithm: (class, row, location); then, for a
        variable without listed levels, by the free coordinates of its other parameters: (class, row).
        """
        var = self.model.variables[name]
        column = np.asarray(self.columns[name])
        if var.discrete:
            table = with_class_axis(self.model, f"p_{name}", self.point[f"p_{name}"])[0]
            cells = tuple(np.asarray(self.columns[v]) for v in var.parents)
            p = table[(slice(None), *cells)] if cells else table[:, None]
            return np.asarray((column[:, None] == np.arange(p.shape[-1])) - p)[..., 1:], {}
        found = {n: s[0] for n, s in scores(self.model, name, self.point, self.columns).items()}
        location = found.pop(next(iter(found)))
        if var.spec.values == "real":
            location = location * gathered(self.model, name, self.point, self.columns)["sd"][0]
        return location[..., None], found


def noncentralities(form: Array) -> Array:
    """Noncentrality of shifts that are alike in all contexts, in the best one only, against the worst one."""
    n = len(form)
    signs = np.concatenate([np.ones((1, n)), np.eye(n), np.ones((n, n)) - 2 * np.eye(n)])
    found = np.maximum(np.einsum("sc,cd,sd->s", signs, form, signs), 0.0)
    return np.array([found[0], found[1 : n + 1].max(), found[n + 1 :].min()])
