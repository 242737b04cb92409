"""Rows against a grid: time of one gradient, and the two posteriors.

    python benchmarks/grid.py [--rows 100000] [--width 0.15] [--draws 500] [--tune 300] [--no-sampling]

The model: two binary proxies, a binary treatment, a normal outcome with class means 0, 1, 2, 5 and a
standard deviation of 1 in every class. ``--width`` is in class standard deviations. Printed are seconds
per evaluation of log-density and gradient (median, Numba), and per effect the distance of
the two posterior means in posterior standard deviations.
"""

import argparse
import time

import numpy as np

import pymc_mte as mte

B = {"family": "bernoulli"}
MODEL = mte.CausalModel(
    classes=2,
    variables={"z": B, "x": B, "t": {**B, "parents": ["z"]}, "y": {"family": "normal", "parents": ["t"]}},
    treatment="t",
    outcome="y",
    treatment_proxies=["z"],
    outcome_proxies=["x"],
    truth={
        "class_weight": [0.4, 0.6],
        "z": {"p": [0.25, 0.75]},
        "x": {"p": [0.2, 0.8]},
        "t": {"p": [[0.3, 0.6], [0.5, 0.7]]},
        "y": {"mean": [[0.0, 1.0], [2.0, 5.0]], "sd": [1.0, 1.0]},
    },
)


def gradient_seconds(table: object, grid: float | None) -> tuple[float, int]:
    """Median time of log-density and gradient, and the number of observed patterns."""
    built = mte.build_model(MODEL, table, grid=grid)
    density = built.logp_dlogp_function(ravel_inputs=True)
    density.set_extra_values({})
    at = np.full(sum(np.size(v) for v in built.initial_point().values()), 0.1)
    density(at)  # compiles
    times = []
    for _ in range(20):
        begin, repeats = time.perf_counter(), 1 if grid is None else 50
        for _ in range(repeats):
            density(at)
        times.append((time.perf_counter() - begin) / repeats)
    return float(np.median(times)), int(built["row_count"].get_value().size)


def main() -> None:
    """Print the comparison."""
    ask = argparse.ArgumentParser()
    ask.add_argument("--rows", type=int, default=100_000)
    ask.add_argument("--width", type=float, default=0.15)
    ask.add_argument("--draws", type=int, default=500)
    ask.add_argument("--tune", type=int, default=300)
    ask.add_argument("--no-sampling", action="store_true")
    given = ask.parse_args()
    table = mte.tabulate(mte.simulate(MODEL, given.rows, rng=1), MODEL)
    rows, n_rows = gradient_seconds(table, None)
    bins, n_bins = gradient_seconds(table, given.width)
    print(f"rows: {n_rows} patterns, {rows * 1e3:.3f} ms; grid: {n_bins} patterns, {bins * 1e3:.4f} ms")
    print(f"grid is {rows / bins:.0f} times faster")
    if given.no_sampling:
        return
    options = {"draws": given.draws, "tune": given.tune, "chains": 2, "progressbar": False}
    posteriors = []
    for grid in (None, given.width):
        begin = time.perf_counter()
        posteriors.append(mte.sample(MODEL, table, grid=grid, **options)["posterior"].to_dataset())
        print(f"grid={grid}: {time.perf_counter() - begin:.1f} s in all")
    for name in ("ate", "effect", "class_weight", "effect_sd"):
        one, two = (p[name].mean(("chain", "draw")) for p in posteriors)
        far = np.abs(one - two) / posteriors[0][name].std(("chain", "draw"))
        shown = f"{np.asarray(one).round(4)} and {np.asarray(two).round(4)}"
        print(f"{name}: {shown}, {float(far.max()):.3f} SDs apart")


if __name__ == "__main__":
    main()
