"""What a likelihood fit leaves over: counts of patterns, and dependence of two variables within classes.

NumPy and SciPy only.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.edges import Edge, edge_scores
from pymc_mte.moments.em import Columns
from pymc_mte.moments.problem import Problem
from pymc_mte.network import cell_columns, log_joint, log_sum_classes

Array = NDArray[np.float64]

MAX_CELLS = 1 << 16
"""Largest table of expected counts that is added up for two-way residuals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairResidual:
    """How two variables depend on each other beyond the graph.

    Attributes
    ----------
    edge : (str, str)
        The variables, in the order of the graph.
    residual : float
        Pearson's chi-squared of their two-way table against the fitted one, per degree of freedom of
        the table; NaN where one of them is continuous.
    statistic : float
        Score statistic of an edge between them, with its own slopes in every class.
    df : int
        Its degrees of freedom; 0 where the data cannot tell such an edge.
    p_value : float
        Allows for the parameters being estimated; NaN with ``df = 0``.
    """

    edge: Edge
    residual: float
    statistic: float
    df: int
    p_value: float


def open_pairs(model: CausalModel) -> tuple[Edge, ...]:
    """Pairs of variables without an edge, in the order of the graph."""
    graph = model.graph
    return tuple(
        (a, b)
        for a, b in combinations(model.order, 2)
        if not graph.has_edge(a, b) and not graph.has_edge(b, a)
    )


def pair_residuals(problem: Problem, point: Parameters) -> tuple[PairResidual, ...]:
    """Test every pair without an edge for dependence within classes.

    Parameters
    ----------
    problem : Problem
        The data.
    point : mapping of str to ndarray
        Maximum-likelihood estimate of the graph, with a batch axis of length 1.

    Notes
    -----
    A missing edge bends the whole fit, so that its neighbours show too: the largest statistic is the one to
    look at first.
    """
    pairs = open_pairs(problem.model)
    tests = edge_scores(problem, point, pairs)
    tables = two_way(problem, point)
    return tuple(
        PairResidual(
            edge=pair, residual=tables.get(pair, np.nan), statistic=t.statistic, df=t.df, p_value=t.p_value
        )
        for pair, t in zip(pairs, tests, strict=True)
    )


def two_way(problem: Problem, point: Parameters) -> dict[Edge, float]:
    """Pearson's chi-squared per degree of freedom of every two-way table of discrete variables."""
    model = problem.model
    if model.continuous_variables or model.n_cells > MAX_CELLS:
        return {}
    columns = cell_columns(model)
    expected = problem.counts.sum() * np.exp(log_sum_classes(log_joint(model, point, columns)))[0]
    out = {}
    for a, b in open_pairs(model):
        sizes = model.size(a), model.size(b)
        seen = np.bincount(_joint(problem.columns, a, b, sizes), problem.counts, int(np.prod(sizes)))
        fitted = np.bincount(_joint(columns, a, b, sizes), expected, int(np.prod(sizes)))
        fitted = np.maximum(fitted, 1e-12)
        out[a, b] = float(((seen - fitted) ** 2 / fitted).sum() / ((sizes[0] - 1) * (sizes[1] - 1)))
    return out


def _joint(columns: Columns, a: str, b: str, sizes: tuple[int, int]) -> NDArray[np.int64]:
    return np.ravel_multi_index((np.asarray(columns[a]), np.asarray(columns[b])), sizes)
