"""Runs: slices of the data that are mixtures of products, solved and matched to each other."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linear_sum_assignment

from pymc_mte.alignment import match_classes, take_classes
from pymc_mte.model import CausalModel
from pymc_mte.moments.plan import Family
from pymc_mte.moments.product import Grouping, diagonalise, groupings

Array = NDArray[np.float64]
Columns = Mapping[str, NDArray[Any]]

MAX_CHUNK = 4_000_000
"""Largest number of table cells (samples x runs x cells) held at a time."""

SINGULAR = 1e-10
"""A run whose K-th singular value is below this separates fewer classes than K."""

MIN_QUALITY = 1.0
"""A run is used if its K-th singular value is at least this many times its sampling error."""


@dataclass(frozen=True, kw_only=True)
class Runs:
    """The runs of one family, solved for a batch of samples.

    Attributes
    ----------
    family : Family
        What is conditioned on.
    share : ndarray of shape (batch, runs)
        P(conditions).
    weight : ndarray of shape (batch, runs, K)
        P(class | conditions).
    blocks : tuple of ndarray, each of shape (batch, runs, K, cells)
        P(block | class, conditions).
    singular_value, gap, residual : ndarray of shape (batch, runs)
        See `ThreeWay`.
    complex_roots : ndarray of bool, shape (batch, runs)
        See `ThreeWay`.
    grouping : tuple of Grouping
        Blocks that were put together, for every run.
    rows : float
        Number of rows of the sample; infinite for a population table.
    """

    family: Family
    share: Array
    weight: Array
    blocks: tuple[Array, ...]
    singular_value: Array
    gap: Array
    residual: Array
    complex_roots: NDArray[np.bool_]
    grouping: tuple[Grouping, ...]
    rows: float

    @property
    def quality(self) -> Array:
        """K-th singular value over its sampling error: below 1 unusable, from 10 on good."""
        with np.errstate(invalid="ignore"):
            found = self.singular_value * np.sqrt(self.rows * self.share)
        return np.where(self.singular_value > SINGULAR, np.nan_to_num(found, posinf=np.inf), 0.0)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Runs with an answer that is more than noise."""
        answered = np.isfinite(self.weight).all(axis=-1)
        return np.asarray(answered & (self.quality >= MIN_QUALITY))

    def permuted(self, order: NDArray[np.int64]) -> "Runs":
        """Put the classes of every run into the order (batch, runs, K)."""
        flat = order.reshape(-1, order.shape[-1])

        def put(value: Array) -> Array:
            return take_classes(value.reshape(len(flat), *value.shape[2:]), flat, 1).reshape(value.shape)

        return replace(self, weight=put(self.weight), blocks=tuple(put(b) for b in self.blocks))


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """How the runs of one sample were matched.

    Attributes
    ----------
    order : ndarray of int, shape (runs, K)
        The run's class that plays each class.
    reached : ndarray of bool, shape (runs,)
        Runs that are connected to the others.
    weakest : float
        Least advantage of the chosen matching over the next best, in units of sampling variance,
        over the edges of the tree; infinite for a single run.
    inconsistent : float
        Share of the other edges whose own best matching contradicts the tree's.
    """

    order: NDArray[np.int64]
    reached: NDArray[np.bool_]
    weakest: float
    inconsistent: float


def solve_runs(
    model: CausalModel,
    columns: Columns,
    counts: Array,
    family: Family,
    rows: float,
    grouping: tuple[Grouping, ...] | None = None,
) -> Runs:
    """Solve every run of a family as a mixture of products.

    Parameters
    ----------
    model : CausalModel
        The graph.
    columns : mapping of str to ndarray
        Pattern columns.
    counts : ndarray of shape (batch, patterns)
        Counts per sample.
    family : Family
        What to condition on.
    rows : float
        Number of rows, for the quality of runs.
    grouping : tuple of Grouping, optional
        Grouping of every run; by default the one that separates the classes of the first sample best.
    """
    sizes = [cells(model, block) for block in family.blocks]
    if grouping is None:
        options = groupings(sizes, model.classes)
        scores = [
            np.concatenate([t.score for _, t in _solved(model, columns, counts[:1], family, g)])[0]
            for g in options
        ]
        grouping = tuple(options[i] for i in np.argmax(scores, axis=0))
    batch, n_runs, k = len(counts), cells(model, family.conditions), model.classes
    out: dict[str, Array] = {
        name: np.zeros((batch, n_runs)) for name in ("singular_value", "gap", "residual")
    }
    weight, complex_roots = np.zeros((batch, n_runs, k)), np.zeros((batch, n_runs), dtype=bool)
    blocks = tuple(np.zeros((batch, n_runs, k, size)) for size in sizes)
    for chosen in dict.fromkeys(grouping):
        runs = [r for r, g in enumerate(grouping) if g == chosen]
        place = 0
        for part, solved in _solved(model, columns, counts, family, chosen):
            rows_here = slice(place, place + len(part))
            place += len(part)
            weight[rows_here, runs] = solved.weight[:, runs]
            complex_roots[rows_here, runs] = solved.complex_roots[:, runs]
            for name in out:
                out[name][rows_here, runs] = getattr(solved, name)[:, runs]
            found = _block_tables(model, columns, part, family, chosen, solved)
            for target, value in zip(blocks, found, strict=True):
                target[rows_here, runs] = value[:, runs]
    share = _tabulate(model, columns, counts, (family.conditions,))
    share = share / counts.sum(axis=1, keepdims=True)
    return Runs(
        family=family,
        share=share,
        weight=weight,
        blocks=blocks,
        complex_roots=complex_roots,
        grouping=grouping,
        rows=rows,
        **out,
    )


def cells(model: CausalModel, names: tuple[str, ...]) -> int:
    """Count the joint levels of some variables."""
    return int(np.prod([model.size(v) for v in names])) if names else 1


def _tabulate(
    model: CausalModel, columns: Columns, counts: Array, groups: tuple[tuple[str, ...], ...]
) -> Array:
    """Cross-tabulate groups of variables: (batch, cells of each group ...)."""
    flat = tuple(v for group in groups for v in group)
    sizes = tuple(model.size(v) for v in flat)
    n = counts.shape[1]
    index = np.ravel_multi_index([np.asarray(columns[v]) for v in flat], sizes) if flat else np.zeros(n, int)
    member = sparse.csr_array(
        (np.ones(n), (index, np.arange(n))), shape=(int(np.prod(sizes)) if flat else 1, n)
    )
    return np.asarray((member @ counts.T).T).reshape(len(counts), *(cells(model, g) for g in groups))


def two_group_table(model: CausalModel, columns: Columns, counts: Array, runs: Runs, run: int) -> Array:
    """Joint distribution of the first two groups in one run of the data (patterns,): its rank tells K."""
    groups = tuple(_joined(runs.family, group) for group in runs.grouping[run][:2])
    table = _tabulate(model, columns, counts[None], (runs.family.conditions, *groups))
    return np.asarray(_conditional(table)[0, run])


def _joined(family: Family, group: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(v for i in group for v in family.blocks[i])


def _conditional(table: Array) -> Array:
    """Normalise each run's table; NaN for runs without rows."""
    total = (
        table.reshape(*table.shape[:2], -1).sum(axis=-1).reshape(*table.shape[:2], *(1,) * (table.ndim - 2))
    )
    return np.asarray(table / np.where(total > 0, total, np.nan))


def _solved(
    model: CausalModel, columns: Columns, counts: Array, family: Family, grouping: Grouping
) -> Iterator[tuple[Array, Any]]:
    """Solve all runs with one grouping, in chunks of samples."""
    groups = tuple(_joined(family, group) for group in grouping)
    size = cells(model, family.conditions) * int(np.prod([cells(model, g) for g in groups]))
    step = max(1, MAX_CHUNK // size)
    for first in range(0, len(counts), step):
        part = counts[first : first + step]
        table = _conditional(_tabulate(model, columns, part, (family.conditions, *groups)))
        yield part, diagonalise(table, model.classes)


def _block_tables(
    model: CausalModel, columns: Columns, counts: Array, family: Family, grouping: Grouping, solved: Any
) -> list[Array]:
    """P(block | class, run) of every block: (batch, runs, K, cells)."""
    out: dict[int, Array] = {}
    for group, value in zip(grouping, solved.groups, strict=True):
        sizes = [cells(model, family.blocks[i]) for i in group]
        split = np.swapaxes(value, -1, -2).reshape(*value.shape[:2], model.classes, *sizes)
        for place, i in enumerate(group):
            others = tuple(3 + j for j in range(len(group)) if j != place)
            out[i] = split.sum(axis=others)
    first = _joined(family, grouping[0])
    for i, block in enumerate(family.blocks):
        if i not in out:  # regress it on the first group, which has full rank
            table = _conditional(_tabulate(model, columns, counts, (family.conditions, first, block)))
            joint = np.linalg.pinv(np.nan_to_num(solved.groups[0])) @ np.nan_to_num(table)
            with np.errstate(all="ignore"):
                out[i] = joint / joint.sum(axis=-1, keepdims=True)
    return [out[i] for i in range(len(family.blocks))]


def align_runs(model: CausalModel, runs: Runs) -> Alignment:
    """Match the classes of one sample's runs along a maximum-weight tree.

    Parameters
    ----------
    model : CausalModel
        The graph.
    runs : Runs
        With a batch of one sample.
    """
    n, k = runs.share.shape[1], model.classes
    usable = runs.usable[0]
    strength = np.where(usable, np.minimum(runs.quality[0], 1e150) ** 2, 0.0)
    edges = {}
    for a in np.flatnonzero(usable):
        for b in np.flatnonzero(usable):
            if a < b and (cost := _edge_cost(model, runs, int(a), int(b))) is not None:
                order = linear_sum_assignment(cost)[1]
                edges[a, b] = (order, min(strength[a], strength[b]) * _advantage(cost, order))
    order = np.tile(np.arange(k), (n, 1))
    reached = np.zeros(n, dtype=bool)
    weakest = np.inf
    answered = np.isfinite(runs.weight[0]).all(axis=-1)
    if answered.any():  # even a run that is all noise, if there is no better one
        size = runs.share[0] * runs.singular_value[0]
        reached[np.argmax(np.where(usable, size + 1.0, np.where(answered, size, -1.0)))] = True
    tree = set()
    while True:
        open_edges = [(w, a, b) for (a, b), (_, w) in edges.items() if reached[a] != reached[b]]
        if not open_edges:
            break
        weight, a, b = max(open_edges)
        match = edges[a, b][0]  # class u of run a is class match[u] of run b
        if reached[a]:
            order[b] = match[order[a]]
        else:
            order[a] = np.argsort(match)[order[b]]
        reached[[a, b]] = True
        tree.add((a, b))
        weakest = min(weakest, weight)
    others = [e for e in edges if e not in tree]
    wrong = [not np.array_equal(edges[a, b][0][order[a]], order[b]) for a, b in others]
    return Alignment(
        order=order,
        reached=reached,
        weakest=float(weakest),
        inconsistent=float(np.mean(wrong)) if wrong else 0.0,
    )


def _edge_cost(model: CausalModel, runs: Runs, a: int, b: int) -> Array | None:
    """Distance of the classes of two runs on the blocks whose boundary they share: (K, K)."""
    family = runs.family
    sizes = tuple(model.size(v) for v in family.conditions)
    levels = [
        dict(zip(family.conditions, np.unravel_index(r, sizes), strict=True)) if sizes else {} for r in (a, b)
    ]
    total, shared = np.zeros((model.classes, model.classes)), False
    for block, boundary in zip(runs.blocks, family.boundaries, strict=True):
        if any(levels[0][v] != levels[1][v] for v in boundary):
            continue
        shared = True
        p, q = block[0, a], block[0, b]
        pooled = np.clip((p.mean(axis=0) + q.mean(axis=0)) / 2, 0.01, 0.99)
        total += ((p[:, None] - q[None]) ** 2 / (pooled * (1 - pooled))).sum(axis=-1)
    return total if shared else None


def _advantage(cost: Array, order: NDArray[np.int64]) -> float:
    """How much dearer the cheapest exchange of two classes is than the best matching."""
    k = len(order)
    own = cost[np.arange(k), order]
    swapped = cost[:, order]
    change = swapped + swapped.T - own[:, None] - own[None, :]
    off = change[~np.eye(k, dtype=bool)]
    return float(off.min()) if k > 1 else np.inf


def match_runs(runs: Runs, point: Runs) -> Runs:
    """Match every sample's runs to the aligned runs of the point estimate."""

    def profile(r: Runs) -> Array:
        flat = [b.reshape(*b.shape[:3], -1) for b in r.blocks]
        return np.concatenate([r.weight[..., None], *flat], axis=-1)

    found, pivot = profile(runs), profile(point)[0]
    order = np.stack([match_classes(found[:, r], pivot[r])[0] for r in range(len(pivot))], axis=1)
    return runs.permuted(order)
