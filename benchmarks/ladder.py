"""The ladder of estimators on simulated samples: calibration when the graph is right, power when it is not.

Bridge, spectral and maximum likelihood are set against each other as `mte.ladder` and `compare` do; no
posterior is needed. Printed per pair of rungs: SD of z (1 when calibrated) and how often the joint test
rejects at 5%.

Run: uv run python benchmarks/ladder.py [--runs 500] [--boot 100] [--design NAME ...]
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import special
from spo import middle_model, paper_model

import pymc_mte as mte
from pymc_mte.model import CausalModel
from pymc_mte.moments.ladder import climb_ladder
from pymc_mte.moments.problem import make_problem
from pymc_mte.network import cell_columns

Array = NDArray[np.float64]

LEVEL = 0.05


def law(model: CausalModel) -> Array:
    """Cell probabilities of a model's truth."""
    return np.asarray(mte.population(model)["count"].values)


def without_edge(model: CausalModel, parent: str, child: str) -> CausalModel:
    """Leave one edge out of a graph (and its truth, which no longer fits)."""
    fields = {name: getattr(model, name) for name in CausalModel.model_fields}
    var = model.variables[child]
    cut = var.model_copy(update={"parents": tuple(p for p in var.parents if p != parent)})
    return CausalModel(**fields | {"variables": dict(model.variables) | {child: cut}, "truth": None})


def control_arm_model() -> CausalModel:
    """Write down a design in which x acts on the outcome in the control arm only."""
    base = special.logit(np.array([[0.3, 0.6], [0.5, 0.7]]))  # (class, arm), for x = 0
    shift = np.array([[0.0, 0.0], [2.0, 0.0]])  # (x, arm)
    outcome = special.expit(base[:, None, :] + shift)
    model = paper_model(1.0, 0.5)
    fields = {name: getattr(model, name) for name in CausalModel.model_fields}
    truth = {
        "class_weight": [0.5, 0.5],
        "z": {"p": [0.25, 0.75]},
        "x": {"p": [0.25, 0.75]},
        "t": {"p": [[0.75, 0.25], [0.5, 0.25]]},
        "y": {"p": outcome.tolist()},
    }
    return CausalModel(**fields | {"truth": truth})


def right(model: CausalModel) -> tuple[CausalModel, Array]:
    """Fit the graph that generated the rows."""
    return model, law(model)


def no_z_to_t() -> tuple[CausalModel, Array]:
    """Fit the paper's generator (mu_zt = 1, mu_xy = 0) by a graph without z -> t."""
    model = paper_model(1.0, 0.0)
    return without_edge(model, "z", "t"), law(model)


def x_to_y(model: CausalModel) -> tuple[CausalModel, Array]:
    """Fit a generator with x -> y by the graph without it."""
    return without_edge(model, "x", "y"), law(model)


DESIGNS: dict[str, tuple[str, int, Callable[[], tuple[CausalModel, Array]]]] = {
    "paper": ("right: the paper's generator", 5_000, lambda: right(paper_model(1.0, 0.0))),
    "middle": ("right: outcomes from .3 to .75, strong z -> t", 20_000, lambda: right(middle_model())),
    "pair": ("right: two binary proxies a side", 5_000, lambda: right(mte.load_model("gallery:paper_pair"))),
    "no z -> t": ("wrong: z -> t left out", 20_000, no_z_to_t),
    "control arm": ("wrong: x -> y in the control arm only", 60_000, lambda: x_to_y(control_arm_model())),
    "paper x -> y": ("wrong: the paper's x -> y, mu_xy = .5", 20_000, lambda: x_to_y(paper_model(1.0, 0.5))),
}


def measure(model: CausalModel, cells: Array, n: int, runs: int, boot: int, seed: int) -> None:
    """Draw samples, climb the ladder on each and print calibration and power."""
    columns, rng = cell_columns(model), np.random.default_rng(seed)
    found: dict[tuple[str, str], list[tuple[Array, float, int]]] = {}
    names: dict[tuple[str, str], list[str]] = {}
    for _ in range(runs):
        problem = make_problem(model, columns, rng.multinomial(n, cells).astype(float))
        for gap in climb_ladder(problem, boot, rng, errors=False).gaps:
            found.setdefault(gap.rungs, []).append((gap.z, gap.p_value, gap.df))
            names[gap.rungs] = [label for _, label, _ in gap.entries]
    for rungs, answers in found.items():
        z, p = np.array([a[0] for a in answers]), np.array([a[1] for a in answers])
        spread = ", ".join(
            f"{label} {sd:.2f}" for label, sd in zip(names[rungs], z.std(axis=0, ddof=1), strict=True)
        )
        share, df = np.mean(p < LEVEL), np.median([a[2] for a in answers])
        rejected = ", ".join(f"{s:.0%}" for s in np.mean(np.abs(z) > 1.96, axis=0)[:2])
        print(
            f"  {rungs[0]} - {rungs[1]}: joint test rejects {share:.1%} (df {df:g}); |z| > 1.96 of ate, att:"
        )
        print(f"    {rejected}; SD of z: {spread}", flush=True)


def main() -> None:
    """Measure every design asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--boot", type=int, default=100)
    parser.add_argument("--rows", type=int, default=None, help="instead of the design's own number")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--design", nargs="*", choices=list(DESIGNS), default=list(DESIGNS))
    options = parser.parse_args()
    for name in options.design:
        said, rows, make = DESIGNS[name]
        model, cells = make()
        n = options.rows or rows
        start = time.perf_counter()
        print(f"{name} ({said}), n = {n:,}, {options.runs} samples")
        measure(model, cells, n, options.runs, options.boot, options.seed)
        print(f"  {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
