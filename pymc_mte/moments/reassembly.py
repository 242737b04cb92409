"""From aligned runs to the tables of the network: total probability, or unzipping. NumPy only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pymc_mte.alignment import match_classes
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.plan import Plan
from pymc_mte.moments.runs import Alignment, Columns, Runs, align_runs, match_runs, solve_runs

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Solution:
    """The moment route on one sample.

    Attributes
    ----------
    plan : Plan
        The plan that was followed.
    runs : tuple of Runs
        Aligned runs of every family.
    alignments : tuple of Alignment
        How each family's runs were matched.
    """

    plan: Plan
    runs: tuple[Runs, ...]
    alignments: tuple[Alignment, ...]

    @property
    def lost(self) -> tuple[float, ...]:
        """Share of the rows in unusable or unreached runs, per family."""
        pairs = zip(self.runs, self.alignments, strict=True)
        return tuple(float(1 - r.share[0, a.reached].sum()) for r, a in pairs)


def solve(plan: Plan, columns: Columns, counts: Array, rows: float) -> Solution | None:
    """Follow a plan on one sample.

    Parameters
    ----------
    plan : Plan
        What to condition on.
    columns : mapping of str to ndarray
        Pattern columns.
    counts : ndarray of shape (patterns,)
        Counts.
    rows : float
        Number of rows; infinite for a population table.

    Returns
    -------
    Solution or None
        None where no run of the first family can be used.
    """
    found, alignments = [], []
    for family in plan.families:
        runs = solve_runs(plan.model, columns, counts[None], family, rows)
        alignment = align_runs(plan.model, runs)
        found.append(runs.permuted(alignment.order[None]))
        alignments.append(alignment)
    if not found or not alignments[0].reached.any():
        return None
    return _families_matched(Solution(plan=plan, runs=tuple(found), alignments=tuple(alignments)))


def _families_matched(solution: Solution) -> Solution:
    """Put the classes of the further families into the order of the first one's."""
    model = solution.plan.model
    profiles = [_profile(model, tables(model, r, a)) for r, a in _parts(solution)]
    runs = [solution.runs[0]]
    for own, profile in zip(solution.runs[1:], profiles[1:], strict=True):
        order = match_classes(profile, profiles[0][0])[0]
        runs.append(own.permuted(np.repeat(order[:, None], own.share.shape[1], axis=1)))
    return Solution(plan=solution.plan, runs=tuple(runs), alignments=solution.alignments)


def _parts(solution: Solution) -> Sequence[tuple[Runs, Alignment]]:
    return list(zip(solution.runs, solution.alignments, strict=True))


def _profile(model: CausalModel, parameters: Parameters) -> Array:
    parts = [parameters["class_weight"][..., None]]
    parts += [
        value.reshape(len(value), model.classes, -1)
        for name, value in parameters.items()
        if name != "class_weight" and model.dims[name][:1] == ("class",)
    ]
    return np.concatenate(parts, axis=-1)


def again(solution: Solution, columns: Columns, counts: Array, *, unzip: bool = False) -> Parameters:
    """Follow the same plan, groupings and alignment on resampled counts (batch, patterns)."""
    model = solution.plan.model
    used = solution.runs if unzip else solution.runs[:1]
    runs = []
    for point in used:
        solved = solve_runs(model, columns, counts, point.family, point.rows, point.grouping)
        runs.append(match_runs(solved, point))
    if unzip:
        best = np.argsort([-np.median(point.quality) for point in used], kind="stable")
        return unzipped(model, [runs[i] for i in best], [solution.alignments[i] for i in best])[0]
    return tables(model, runs[0], solution.alignments[0])


class _Joint:
    """P(class, variables) of one family, by sums over its runs."""

    def __init__(self, model: CausalModel, runs: Runs, alignment: Alignment) -> None:
        self.model, self.family = model, runs.family
        self.axis = {v: i + 1 for i, v in enumerate(model.discrete_variables)}
        given = tuple(model.size(v) for v in self.family.conditions)
        kept = alignment.reached & np.isfinite(runs.weight).all(axis=-1)
        share = np.where(kept, runs.share, 0.0)
        total = share.sum(axis=1, keepdims=True)
        share = share / np.where(total > 0, total, np.nan)
        with_class = np.moveaxis(np.where(kept[..., None], share[..., None] * runs.weight, 0.0), -1, 1)
        self.batch = len(share)
        self.given = with_class.reshape(self.batch, model.classes, *given)
        self.blocks = []
        for names, value in zip(self.family.blocks, runs.blocks, strict=True):
            clean = np.moveaxis(np.where(kept[..., None, None], value, 0.0), 2, 1)
            sizes = tuple(model.size(v) for v in names)
            self.blocks.append(clean.reshape(self.batch, model.classes, *given, *sizes))

    def over(self, names: Sequence[str]) -> Array:
        """P(class, names): (batch, class, *names)."""
        given = [self.axis[v] for v in self.family.conditions]
        operands: list[Any] = [self.given, [Ellipsis, 0, *given]]
        for block, value in zip(self.family.blocks, self.blocks, strict=True):
            if set(block) & set(names):
                wanted = [self.axis[v] for v in block if v in names]
                axes: list[Any] = [Ellipsis, 0, *given, *(self.axis[v] for v in block)]
                kept: list[Any] = [Ellipsis, 0, *given, *wanted]
                operands += [np.einsum(value, axes, kept), kept]
        out: list[Any] = [Ellipsis, 0, *(self.axis[v] for v in names)]
        return np.asarray(np.einsum(*operands, out, optimize="greedy"))


def tables(model: CausalModel, runs: Runs, alignment: Alignment) -> Parameters:
    """Recover class weights and tables by total probability over the runs of one family.

    Every sum runs over assignments of the conditions, so nothing is divided by an estimate except
    P(class, parents). Levels of parents that no usable run has give NaN. Unclipped.
    """
    joint = _Joint(model, runs, alignment)
    out: Parameters = {"class_weight": joint.over(())}
    for name in model.discrete_variables:
        var = model.variables[name]
        found = joint.over((*var.parents, name))
        found = found if var.latent else found.sum(axis=1)
        out[f"p_{name}"] = _as_parameter(model, name, _normalised(found))
    return out


def _normalised(table: Array) -> Array:
    whole = table.sum(axis=-1, keepdims=True)
    return np.asarray(table / np.where(np.abs(whole) > 1e-300, whole, np.nan))


def _as_parameter(model: CausalModel, name: str, table: Array) -> Array:
    """Turn a table into what the family is parametrised by."""
    trials = model.variables[name].trials
    return table if trials is None else table @ np.arange(trials + 1.0) / trials


def unzipped(
    model: CausalModel, runs: Sequence[Runs], alignments: Sequence[Alignment]
) -> tuple[Parameters, float]:
    r"""Recover class weights and tables by unzipping: children first, each divided out of its parents.

    Given all other variables, a variable has the distribution
    :math:`P(v \mid pa) \prod_c P(c \mid pa(c))` over its children c, up to scale; dividing by the
    children's tables leaves its own. A variable that every family conditions on gets its table by
    total probability. Class weights follow from :math:`P(u) = P(u \mid c) P(c) / P_u(c)`.

    Returns
    -------
    parameters : mapping of str to ndarray
        As from `tables`.
    spread : float
        Largest difference of the class weights between runs, zero for an exact mixture.
    """
    joints = [_Joint(model, r, a) for r, a in zip(runs, alignments, strict=True)]
    children = {v: [w for w in model.variables if v in model.variables[w].parents] for v in model.variables}
    axis = joints[0].axis
    found: dict[str, Array] = {}
    for name in reversed([v for v in model.order if v in axis]):
        places = [(j, b) for j in joints for b in j.family.blocks if name in b]
        names = (*model.variables[name].parents, name)
        if not places:
            found[name] = _normalised(joints[0].over(names))
            continue
        joint, block = places[0]
        scope = (*joint.family.conditions, *block)
        full = joint.over(scope)
        ratio = full
        for child in children[name]:
            if child in found:
                ratio = ratio / _spread(model, found[child], child, scope)
        place = full.ndim - len(scope) + scope.index(name)
        with np.errstate(all="ignore"):
            own = ratio / ratio.sum(axis=place, keepdims=True)
        own = np.nan_to_num(own) * full.sum(axis=place, keepdims=True)
        axes: list[Any] = [Ellipsis, 0, *(axis[v] for v in scope)]
        kept: list[Any] = [Ellipsis, 0, *(axis[v] for v in names)]
        found[name] = _normalised(np.einsum(own, axes, kept))
    weight, spread = _weights(model, joints[0], found, axis)
    out: Parameters = {"class_weight": weight}
    for name in model.discrete_variables:
        table = found[name]
        if not model.variables[name].latent:
            table = np.einsum("bk,bk...->b...", weight, table)
        out[f"p_{name}"] = _as_parameter(model, name, table)
    return out, spread


def _spread(model: CausalModel, table: Array, name: str, scope: Sequence[str]) -> Array:
    """Line a table up with the axes of a scope: (batch, class, *scope), length 1 where absent."""
    names = (*model.variables[name].parents, name)
    order = [v for v in scope if v in names]
    moved = table.transpose(0, 1, *(2 + names.index(v) for v in order))
    shape = tuple(model.size(v) if v in names else 1 for v in scope)
    with np.errstate(all="ignore"):
        return np.where(moved > 0, moved, np.nan).reshape(*table.shape[:2], *shape)


def _weights(
    model: CausalModel, joint: _Joint, found: dict[str, Array], axis: dict[str, int]
) -> tuple[Array, float]:
    """P(class) from every run, averaged by the runs' shares; and how much the runs differ."""
    operands: list[Any] = []
    for name, table in found.items():
        operands += [table, [Ellipsis, 0, *(axis[v] for v in (*model.variables[name].parents, name))]]
    given = [axis[v] for v in joint.family.conditions]
    of_conditions = np.einsum(*operands, [Ellipsis, 0, *given], optimize="greedy")
    share = joint.given.sum(axis=1, keepdims=True)
    with np.errstate(all="ignore"):
        each = (joint.given / of_conditions).reshape(joint.batch, model.classes, -1)
    flat = np.where(np.isfinite(each).all(axis=1, keepdims=True), share.reshape(joint.batch, 1, -1), 0.0)
    weight = (np.nan_to_num(each) * flat).sum(axis=-1) / flat.sum(axis=-1)
    used = flat[0, 0] > 0
    spread = float(np.ptp(each[0][:, used], axis=1).max()) if used.any() else np.nan
    return np.asarray(weight / weight.sum(axis=1, keepdims=True)), spread


def disagreement(solution: Solution) -> float:
    """Largest difference between the class weights of the families; zero for an exact mixture."""
    model = solution.plan.model
    found = [tables(model, r, a)["class_weight"][0] for r, a in _parts(solution)]
    return float(np.ptp(np.stack(found), axis=0).max())
