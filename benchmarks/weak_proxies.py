"""Coverage of the weak-proxy-robust set for the average effect, the delta method beside it.

Run: uv run python benchmarks/weak_proxies.py [--runs 1000] [--rows 2000] [--level 0.9]

Binary Z, X, T, Y and two classes that confound treatment and outcome and differ in effect. One side's
proxy is strong, the other's is weakened until the second canonical correlation within each arm takes the
stated value; at 0 it is independent of everything and the average effect is not identified.
"""

import argparse
import itertools
import sys

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from pymc_mte.moments.proximal import bridge_errors
from pymc_mte.moments.weakproxy import anderson_rubin_set

Array = NDArray[np.float64]
STRENGTHS = (0.4, 0.1, 0.05, 0.02, 0.0)
TREATED = np.array([0.3, 0.7])  # P(T=1 | class); with equal classes both arms are equally informative
MEAN = np.array([[0.2, 0.5], [0.5, 0.9]])  # E[Y(t) | class], rows t
STRONG = 0.45  # half the difference of P(proxy=1) between the classes
CELLS = np.array(list(itertools.product((0, 1), repeat=4)))  # z, x, t, y


def table(half_z: float, half_x: float) -> Array:
    """Cell probabilities: (16,)."""
    z, x, t, y = CELLS.T
    p = np.zeros(len(CELLS))
    for u in (0, 1):
        part = np.full(len(CELLS), 0.5)
        for value, one in ((z, 0.5 + half_z * (2 * u - 1)), (x, 0.5 + half_x * (2 * u - 1)), (t, TREATED[u])):
            part *= np.where(value == 1, one, 1 - one)
        p += part * np.where(y == 1, MEAN[t, u], 1 - MEAN[t, u])
    return p


def correlation(p: Array, arm: int) -> float:
    """Correlation of Z and X within an arm: the second canonical one of two binary proxies."""
    share = p * (CELLS[:, 2] == arm) / p[CELLS[:, 2] == arm].sum()
    z, x = CELLS[:, 0] - share @ CELLS[:, 0], CELLS[:, 1] - share @ CELLS[:, 1]
    return float(share @ (z * x) / np.sqrt((share @ z**2) * (share @ x**2)))


def design(strength: float, weak: str) -> Array:
    """Cell probabilities with this correlation in the weaker arm."""

    def at(half: float) -> Array:
        return table(half, STRONG) if weak == "z" else table(STRONG, half)

    def gap(half: float) -> float:
        return min(correlation(at(half), arm) for arm in (0, 1)) - strength

    return at(optimize.brentq(gap, 0.0, 0.4999) if strength > 0 else 0.0)


def row(p: Array, options: argparse.Namespace, rng: np.random.Generator) -> list[float]:
    """One line of the table."""
    truth = float((MEAN[1] - MEAN[0]).mean())
    z, x, arm, y = CELLS.T
    counts = rng.multinomial(options.rows, p, size=options.runs).astype(float)
    one = np.ones(len(CELLS))
    scaled = [np.column_stack([one, (v - p @ v) / np.sqrt(p @ v - (p @ v) ** 2)]) for v in (z, x)]
    ate, se = bridge_errors(counts, *scaled, arm, 2, y.astype(float), 2).ate(1)
    half = stats.norm.ppf(0.5 + options.level / 2) * se
    sets = [
        anderson_rubin_set(y.astype(float), arm, z.astype(float), x.astype(float), c, level=options.level)
        for c in counts
    ]
    unbounded = np.array([not s.bounded for s in sets])
    line = [any(np.isinf(e).all() for e in s.intervals) for s in sets]
    width = [sum(b - a for a, b in s.intervals) for s in sets if s.bounded]
    return [
        float(np.mean([s.contains(truth) for s in sets])),
        float(unbounded.mean()),
        float(np.mean(line)),
        float(np.median(width)) if width else np.nan,
        float(np.mean(np.abs(ate - truth) <= half)),
        float(np.median(2 * half)),
    ]


def main() -> int:
    """Print coverage for every strength; exit with 1 if the robust set covers too rarely."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--level", type=float, default=0.9)
    parser.add_argument("--seed", type=int, default=20_25)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    print(f"{options.runs} runs, n = {options.rows}, level {options.level:.0%}; widths are medians")
    print(
        f"{'weak side  correlation':22} | {'robust set: covers':18} {'unbounded':>10} {'whole line':>11}",
        end=" ",
    )
    print(f"{'width if bounded':>17} | {'delta: covers':>13} {'width':>6}")
    lowest = 1.0
    for weak, strength in itertools.product("zx", STRENGTHS):
        covers, unbounded, line, width, delta, delta_width = row(design(strength, weak), options, rng)
        lowest = min(lowest, covers)
        print(
            f"{weak:>9}  {strength:11.2f} | {covers:18.1%} {unbounded:10.1%} {line:11.1%} {width:17.3f} | "
            f"{delta:13.1%} {delta_width:6.3g}",
            flush=True,
        )
    print(f"lowest coverage of the robust set {lowest:.1%}, wanted at least {options.level - 0.03:.0%}")
    return int(lowest < options.level - 0.03)


if __name__ == "__main__":
    sys.exit(main())
