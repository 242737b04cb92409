"""One average effect per way of giving the proxies their sides. NumPy only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pymc_mte.errors import ModelError
from pymc_mte.moments.proximal import bridge_errors, outcome_bridge
from pymc_mte.moments.truncated import independent, matrix, partial
from pymc_mte.moments.twostage import ProxyDirections, proxy_directions, two_stage

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Split = tuple[tuple[str, ...], tuple[str, ...]]
Form = Literal["bridge", "two-stage"]

MAX_SPLITS = 62
"""Splits of six proxies; with more, only those near the given roles are made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitEffect:
    """The average effect with the proxies on stated sides.

    Attributes
    ----------
    z, x : tuple of str
        Proxies on the treatment side and on the outcome side.
    effect, se : float
        Average effect and its standard error, in units of the outcome; NaN with too few features.
    correlation, p_value : float
        The weakest canonical correlation that the answer rests on, over all arms, and the largest
        p-value of Bartlett's test that it is noise.
    """

    z: tuple[str, ...]
    x: tuple[str, ...]
    effect: float
    se: float
    correlation: float
    p_value: float


def list_splits(z: Sequence[str], x: Sequence[str]) -> tuple[tuple[Split, ...], bool]:
    """List the ways to give proxies their sides: as they are, then all others, then without one of them.

    Parameters
    ----------
    z, x : sequence of str
        Treatment-side and outcome-side proxies.

    Returns
    -------
    splits : tuple of (tuple of str, tuple of str)
        The given roles first.
    capped : bool
        Whether there are more than `MAX_SPLITS`, so that only those were listed that move one proxy
        to the other side, exchange the sides, or leave one proxy out.

    Examples
    --------
    >>> list_splits(["a"], ["b", "c"])[0][:3]
    ((('a',), ('b', 'c')), (('b',), ('a', 'c')), (('c',), ('a', 'b')))
    """
    own, names = (tuple(z), tuple(x)), (*z, *x)
    capped = 2 ** len(names) - 2 > MAX_SPLITS
    if capped:
        sides = [tuple(n for n in names if (n in z) != (n == moved)) for moved in names] + [own[1]]
    else:
        sides = [part for size in range(1, len(names)) for part in combinations(names, size)]
    splits = [(side, tuple(n for n in names if n not in side)) for side in sides]
    kept = [split for split in splits if all(split) and split != own]
    fewer = [tuple(tuple(n for n in side if n != out) for side in own) for out in names]
    shorter = [(one, two) for one, two in fewer if one and two]
    return (own, *kept, *shorter), capped


def split_effects(
    outcome: Array,
    arm: Ints,
    proxies: Mapping[str, Array],
    splits: Sequence[Split],
    covariates: Array | None = None,
    weights: Array | None = None,
    *,
    rank: int | None = None,
    form: Form = "bridge",
    contrast: tuple[int, int] = (1, 0),
    interactions: bool = False,
) -> tuple[SplitEffect, ...]:
    """Estimate the average effect under every split of the proxies.

    Parameters
    ----------
    outcome : ndarray of shape (patterns,)
        Outcome, in its units.
    arm : ndarray of int, shape (patterns,)
        Treatment arm, counted from 0; every arm needs rows.
    proxies : mapping of str to ndarray of shape (patterns,) or (patterns, d)
        Features of every proxy, without a constant.
    splits : sequence of (tuple of str, tuple of str)
        Names on the treatment side and on the outcome side, as from `list_splits`.
    covariates : ndarray of shape (patterns, p), optional
        Observed covariates, linear.
    weights : ndarray of shape (patterns,), optional
        Counts.
    rank : int, optional
        Number of classes K: the bridge keeps K directions per arm, two-stage least squares K - 1 beside
        the constant. All by default.
    form : {"bridge", "two-stage"}
        Outcome bridge per arm, or two-stage least squares, whose effect is the same for everybody.
    contrast : (int, int)
        Arm and reference.
    interactions : bool
        Whether features of two proxies of one side are multiplied too.

    Notes
    -----
    The splits are not all valid: a proxy that causes the treatment may not serve on the outcome side.
    They show how far the answer hangs on who is called what.
    """
    w = np.ones(len(outcome)) if weights is None else np.asarray(weights, dtype=float)
    if form not in ("bridge", "two-stage"):
        raise ModelError(f"form {form!r} is unknown; choose bridge or two-stage")
    blocks = {name: matrix(columns) for name, columns in proxies.items()}
    if unknown := sorted({n for split in splits for side in split for n in side} - set(blocks)):
        raise ModelError(f"splits name {unknown}, which are not among the proxies {list(blocks)}")
    found = []
    for one, two in splits:
        z, x = (_side([blocks[name] for name in side], interactions) for side in (one, two))
        solve = _bridge if form == "bridge" else _two_stage
        nothing: Found = (np.nan, np.nan, [], 0)
        answers = _vary(z, x, covariates, w, arm)
        solved = solve(outcome, arm, z, x, covariates, w, rank, contrast) if answers else nothing
        effect, se, directions, used = solved
        weak = [(d.correlation[used - 1], d.p_value[used - 1]) for d in directions] if used else []
        found.append(
            SplitEffect(
                z=tuple(one),
                x=tuple(two),
                effect=effect,
                se=se,
                correlation=float(min((r for r, _ in weak), default=np.nan)),
                p_value=float(max((p for _, p in weak), default=np.nan)),
            )
        )
    return tuple(found)


def _side(blocks: list[Array], interactions: bool) -> Array:
    """Join the features of a side's proxies, with the products of any two proxies' if asked for."""
    more = (
        [a[:, [i]] * b for a, b in combinations(blocks, 2) for i in range(a.shape[1])] if interactions else []
    )
    return np.column_stack([*blocks, *more])


Found = tuple[float, float, list[ProxyDirections], int]


def _vary(z: Array, x: Array, covariates: Array | None, w: Array, arm: Ints) -> bool:
    """Whether both sides vary in every arm, given covariates: without that a split has no answer."""
    one = np.ones((len(w), 1))
    given = one if covariates is None else np.column_stack([one, covariates])
    for t in range(int(arm.max()) + 1):
        inside = w * (arm == t)
        share = inside / inside.sum()
        varies = partial(np.column_stack([z, x]), given, share).any(axis=0)
        if not (varies[: z.shape[1]].any() and varies[z.shape[1] :].any()):
            return False
    return True


def _two_stage(
    y: Array,
    arm: Ints,
    z: Array,
    x: Array,
    covariates: Array | None,
    w: Array,
    rank: int | None,
    contrast: tuple[int, int],
) -> Found:
    narrow = min(z.shape[1], x.shape[1])
    if rank is not None and narrow < rank - 1:
        return np.nan, np.nan, [], 0
    if contrast[1] != 0:
        raise ModelError("two-stage least squares contrasts arms with arm 0; number the arms accordingly")
    solved = two_stage(y, arm, x, z, covariates, w, rank=None if rank is None else rank - 1)
    place = contrast[0] - 1
    return float(solved.effect[place]), float(solved.se[place]), list(solved.directions), solved.rank


def _bridge(
    y: Array,
    arm: Ints,
    z: Array,
    x: Array,
    covariates: Array | None,
    w: Array,
    rank: int | None,
    contrast: tuple[int, int],
) -> Found:
    share, one = w / w.sum(), np.ones((len(y), 1))
    raw = [np.column_stack([one, side]) for side in (z, x)]
    zw, xw = (side @ independent(side, share) for side in raw)
    narrow = min(zw.shape[1], xw.shape[1])
    kept = narrow if rank is None else rank
    if narrow < kept or kept < 2:
        return np.nan, np.nan, [], 0
    if covariates is None:
        errors = bridge_errors(w[None], zw, xw, arm, int(arm.max()) + 1, y, kept)
        effect, se = (float(value[0]) for value in errors.ate(*contrast))
        given = one
    else:
        effect, se = outcome_bridge(y, arm, zw, xw, covariates, w, rank=kept).contrast(*contrast)
        given = np.column_stack([one, covariates])
    strength = [proxy_directions(z, x, given, w * (arm == t), float(t)) for t in range(int(arm.max()) + 1)]
    used = min(kept - 1, *(len(d.correlation) for d in strength))
    return effect, se, strength, used
