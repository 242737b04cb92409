"""Level and power of the two rank tests, Bartlett's approximation beside them.

Run: uv run python benchmarks/ranks.py [--runs 1000] [--rows 1000 5000]

Every data set has two arms of about equal size. "Level" is the share of arms whose true number of
classes is rejected at 5%, "power" the share where one class fewer is rejected. For effects, three classes
take the stated number of distinct effects.
"""

import argparse
import sys
from functools import partial

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte import CausalModel, population
from pymc_mte.data import columns_of
from pymc_mte.moments.problem import Problem, make_problem
from pymc_mte.moments.rank import LEVEL, N_BOOT, Ranks, measure_ranks

Array = NDArray[np.float64]
BINARY = {"family": "bernoulli"}
Table = list[list[float]]


def model_of(weight: list[float], z: Table, x: Table, effect: list[float], bits: bool) -> CausalModel:
    """Write down a model: one categorical proxy a side, or binary ones (their probabilities of 1)."""
    sides = {}
    for side, table in (("z", z), ("x", x)):
        columns = np.array(table).T
        if bits:
            sides |= {f"{side}{i}": (BINARY, column.tolist()) for i, column in enumerate(columns)}
        else:
            levels = {"family": "categorical", "levels": list(range(len(columns)))}
            sides[side] = (levels, table)
    k = len(weight)
    return CausalModel(
        classes=k,
        variables={n: f for n, (f, _) in sides.items()} | {"t": BINARY, "y": BINARY | {"parents": ["t"]}},
        treatment="t",
        outcome="y",
        treatment_proxies=[n for n in sides if n[0] == "z"],
        outcome_proxies=[n for n in sides if n[0] == "x"],
        truth={
            "class_weight": weight,
            **{n: {"p": p} for n, (_, p) in sides.items()},
            "t": {"p": np.linspace(0.45, 0.55, k).tolist()},
            "y": {"p": [[low, low + e] for low, e in zip([0.15, 0.35, 0.3][:k], effect, strict=True)]},
        },
    )


SPARSE = (
    [[0.80, 0.15, 0.03, 0.02], [0.30, 0.60, 0.08, 0.02]],
    [[0.85, 0.10, 0.03, 0.02], [0.35, 0.55, 0.04, 0.06]],
)
RARE = ([[0.01, 0.02, 0.02, 0.01], [0.3, 0.2, 0.3, 0.25]], [[0.02, 0.01, 0.01, 0.03], [0.3, 0.3, 0.2, 0.2]])
BITS = (
    [[0.1, 0.15, 0.2, 0.1], [0.8, 0.2, 0.7, 0.3], [0.2, 0.8, 0.8, 0.7]],
    [[0.15, 0.1, 0.2, 0.1], [0.7, 0.3, 0.8, 0.2], [0.3, 0.8, 0.7, 0.8]],
)
WEAK = (
    [[0.35, 0.35, 0.35, 0.35], [0.55, 0.55, 0.55, 0.55]],
    [[0.35, 0.35, 0.35, 0.35], [0.55, 0.55, 0.55, 0.55]],
)
THREE = (
    [[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.1, 0.15, 0.75]],
    [[0.75, 0.15, 0.1], [0.1, 0.8, 0.1], [0.15, 0.15, 0.7]],
)
ALIKE = tuple([side[0]] * 2 for side in SPARSE)
CONFOUNDED = [0.1, 0.5]
DESIGNS = {  # true classes, model
    "4 levels, rarest 2%, independent": (1, model_of([0.5, 0.5], *ALIKE, CONFOUNDED, False)),
    "4 levels, rarest 2%": (2, model_of([0.6, 0.4], *SPARSE, CONFOUNDED, False)),
    "4 + 4 bits, ones rare": (2, model_of([0.85, 0.15], *RARE, CONFOUNDED, True)),
    "4 + 4 bits, weak": (2, model_of([0.5, 0.5], *WEAK, CONFOUNDED, True)),
    "4 + 4 bits, three classes": (3, model_of([0.4, 0.3, 0.3], *BITS, [0.1, 0.3, 0.6], True)),
}
EFFECTS = {
    1: model_of([0.3, 0.3, 0.4], *THREE, [0.2, 0.2, 0.2], False),
    2: model_of([0.3, 0.3, 0.4], *THREE, [0.1, 0.1, 0.6], False),
    3: model_of([0.3, 0.3, 0.4], *THREE, [-0.1, 0.2, 0.6], False),
}


def discrete(model: CausalModel, table: xr.Dataset, rows: int, rng: np.random.Generator) -> Problem:
    """Draw one data set from the model's population table."""
    p = table["count"].values
    counts = rng.multinomial(rows, p / p.sum())
    seen = counts > 0
    return make_problem(
        model, {n: v[seen] for n, v in columns_of(table, model).items()}, counts[seen].astype(float)
    )


def normal(rows: int, rng: np.random.Generator) -> Problem:
    """Three normal proxies a side with one factor in common: two classes' worth of directions."""
    names = {side: [f"{side}{i}" for i in range(3)] for side in "zx"}
    factor = rng.normal(size=rows)
    columns = {n: rng.normal(size=rows) for side in "zx" for n in names[side]}
    for side in "zx":
        columns[names[side][0]] += factor
    columns |= {n: rng.integers(0, 2, rows) for n in "ty"}
    variables = {n: {"family": "normal"} for side in "zx" for n in names[side]}
    model = CausalModel(
        classes=2,
        variables=variables | {"t": BINARY, "y": BINARY | {"parents": ["t"]}},
        treatment="t",
        outcome="y",
        treatment_proxies=names["z"],
        outcome_proxies=names["x"],
    )
    return make_problem(model, columns, np.ones(rows))


def rejected(ranks: Ranks, classes: int) -> list[float]:
    """Share of arms where "at most so many classes" is rejected; none are below one class."""
    if classes < 1:
        return [np.nan] * len(ranks.arms)
    return [float(arm.p_value[classes - 1] < LEVEL) for arm in ranks.arms]


def proxies(label: str, classes: int, draw, options: argparse.Namespace, rng: np.random.Generator) -> None:
    """Print one line per sample size."""
    for rows in options.rows:
        shares = []
        for _ in range(options.runs):
            problem = draw(rows, rng)
            for n_boot in (N_BOOT, 0):
                ranks = measure_ranks(problem, n_boot, rng)
                shares.append([rejected(ranks, classes), rejected(ranks, classes - 1)])
        level, power = np.array(shares).reshape(options.runs, 2, 2, -1).mean(axis=(0, 3)).T
        print(
            f"{label:34} {rows:7,} | {level[0]:9.1%} {level[1]:9.1%} | {power[0]:9.1%} {power[1]:9.1%}",
            flush=True,
        )


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 5_000])
    parser.add_argument("--seed", type=int, default=20_26)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    print(f"{options.runs} runs, {N_BOOT} replicates, nominal level {LEVEL:.0%}")
    print(f"{'proxies':34} {'rows':>7} | {'level':>9} {'Bartlett':>9} | {'power':>9} {'Bartlett':>9}")
    for label, (classes, model) in DESIGNS.items():
        proxies(label, classes, partial(discrete, model, population(model)), options, rng)
    proxies("3 + 3 normal, one factor", 2, normal, options, rng)
    print(
        f"\n{'distinct effects of three classes':34} {'rows':>7} | {'at most 1':>9} {'at most 2':>9} rejected"
    )
    for distinct, model in EFFECTS.items():
        table = population(model)
        for rows in options.rows:
            p = [
                measure_ranks(discrete(model, table, rows, rng), N_BOOT, rng).effects.p_value
                for _ in range(options.runs)
            ]
            first, second = (np.array(p) < LEVEL).mean(axis=0)
            print(f"{distinct:34} {rows:7,} | {first:9.1%} {second:9.1%}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
