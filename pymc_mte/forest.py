"""A causal forest on the proxies, one of the baselines: optional, as it needs EconML and scikit-learn."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pymc_mte.moments.grouping import k_means

Array = NDArray[np.float64]

MAX_ROWS = 20_000
"""A forest is grown on so many rows, drawn at random from more: ten seconds, and memory stays bounded."""

MIN_ARM = 20
"""Fewer rows in an arm grow no forest."""

FOLDS = 2
TREES = 200
LEAF = 20
"""Smallest leaf, in rows: with smaller ones effects of single rows are mostly noise, and groups follow it."""

CLIP = 0.01
"""Treatment probabilities stay this far from 0 and 1, lest single rows decide."""


def forest_installed() -> bool:
    """Whether the extra is there."""
    return find_spec("econml") is not None


def causal_forest(
    points: Array,
    treated: NDArray[np.bool_],
    outcome: Array,
    counts: Array,
    weights: Array,
    k: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Average effect by doubly robust scores, and means of the scores where the forest's effects are alike.

    Parameters
    ----------
    points : ndarray of shape (patterns, features)
        What treatment, outcome and effect may depend on.
    treated : ndarray of shape (patterns,)
        The arm.
    outcome : ndarray of shape (patterns,)
        In its own units.
    counts, weights : ndarray of shape (patterns,)
        Rows per pattern, and the sampling weight of each such row (any scale).
    k : int
        Groups of rows, cut where the forest's effects of single rows differ most (k-means of one number).
    rng : numpy.random.Generator
        Source of the rows drawn, of the folds and of the trees.

    Returns
    -------
    dict
        ``ate``, ``se``, ``effect[class j]`` and ``class_weight[class j]``, as a row of `baselines`; NaN with
        fewer than 20 rows in an arm.

    Notes
    -----
    A row's effect comes from a forest grown on the other half of the rows, and the scores that are averaged
    in a group from that row itself: choosing groups by a noisy effect does not push their means apart.
    Patterns are laid out as rows, as trees draw rows; a repeated row of continuous values would show the
    trees what they are to predict, so counts above 1 are for discrete data.
    """
    row = _drawn(counts, rng)
    arm = treated[row]
    if min(arm.sum(), (~arm).sum()) < MIN_ARM:
        return {"ate": np.nan, "se": np.nan}
    weight = weights[row] / weights[row].mean()
    effect, score = _scores(points[row], arm, outcome[row], weight, int(rng.integers(2**31)))
    member = k_means(effect[:, None], weight, k, rng) * weight
    mass = member.sum(axis=1)
    mean = np.divide(member @ score, mass, out=np.full(k, np.nan), where=mass > 0)
    order = np.argsort(mean)  # NaN last
    average = float(weight @ score / weight.sum())
    out = {"ate": average, "se": float(np.sqrt(weight**2 @ (score - average) ** 2) / weight.sum())}
    out |= {f"effect[class {j}]": float(mean[u]) for j, u in enumerate(order)}
    return out | {f"class_weight[class {j}]": float(mass[u] / mass.sum()) for j, u in enumerate(order)}


def _drawn(counts: Array, rng: np.random.Generator) -> NDArray[np.int64]:
    """Pattern of every row; of `MAX_ROWS` rows drawn without replacement if there are more."""
    reached = np.cumsum(counts)  # need not be whole: population tables
    total = round(reached[-1])
    place = rng.choice(total, size=MAX_ROWS, replace=False) if total > MAX_ROWS else np.arange(total)
    return np.searchsorted(reached, place + 0.5)


def _scores(
    points: Array, treated: NDArray[np.bool_], outcome: Array, weight: Array, seed: int
) -> tuple[Array, Array]:
    """Effect of every row by a forest of the other half, and the row's doubly robust score."""
    from sklearn.model_selection import StratifiedKFold

    arm = treated.astype(float)
    effect, score = np.empty(len(arm)), np.empty(len(arm))
    for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(points, treated):
        grown = _grow(points[train], arm[train], outcome[train], weight[train], seed)
        effect[test] = grown["effect"].predict(points[test])[:, 0]
        p = np.clip(grown["treated"].predict(points[test]), CLIP, 1 - CLIP)
        surprise = arm[test] - p
        rest = outcome[test] - grown["outcome"].predict(points[test]) - surprise * effect[test]
        score[test] = effect[test] + surprise * rest / (p * (1 - p))
    return effect, score


def _grow(points: Array, arm: Array, outcome: Array, weight: Array, seed: int) -> Mapping[str, Any]:
    """Forests of treatment and outcome, and the causal forest of what they leave out of the bag."""
    from econml.grf import CausalForest
    from sklearn.ensemble import RandomForestRegressor

    grown, left = {}, {}
    for name, target in (("treated", arm), ("outcome", outcome)):
        forest = RandomForestRegressor(TREES, min_samples_leaf=LEAF, oob_score=True, random_state=seed)
        grown[name] = forest.fit(points, target, weight)
        left[name] = target - forest.oob_prediction_
    forest = CausalForest(
        TREES, min_samples_leaf=LEAF, inference=False, max_samples=0.5, n_jobs=1, random_state=seed
    )
    grown["effect"] = forest.fit(points, left["treated"], left["outcome"], sample_weight=weight)
    return grown
