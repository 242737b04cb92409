"""Rows against a grid: time of one gradient, and how far apart the two posteriors are.

    python benchmarks/grid.py [--rows 100000] [--width 0.15] [--sampling] [--draws 1000] [--tune 500]

The model: two binary proxies, a binary treatment, a normal outcome with class means 0, 1, 2, 5 and a
standard deviation of 1 in every class; ``--width`` is in these standard deviations. Printed are seconds
of processor time per evaluation of log-density and gradient (median, Numba), and for every answer the
distance of the two posterior modes in posterior standard deviations (normal approximation at the mode; at
such sizes mode and mean agree). ``--sampling`` compares means of draws too, which takes minutes for the rows.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import pymc as pm
from scipy import optimize

import pymc_mte as mte
from pymc_mte.bayes.gradient import compile_maps
from pymc_mte.bayes.start import with_first_levels, without_first_levels
from pymc_mte.functionals import functionals

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
ANSWERS = ("ate", "att", "effect", "effect_sd")
STEP = 1e-4


def density_of(built: pm.Model) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Compile log-density and gradient."""
    density = built.logp_dlogp_function(ravel_inputs=True)
    density.set_extra_values({})
    return density


def seconds(density: Callable[[np.ndarray], object], at: np.ndarray, repeats: int) -> float:
    """Median processor time of one evaluation."""
    times = []
    for _ in range(15):
        begin = time.thread_time()
        for _ in range(repeats):
            density(at)
        times.append((time.thread_time() - begin) / repeats)
    return float(np.median(times))


def answers_at(built: pm.Model, at: np.ndarray) -> np.ndarray:
    """Answers at a flat unconstrained point."""
    point, begin = {}, 0
    for name, value in built.initial_point().items():
        point[name] = at[begin : begin + value.size].reshape(value.shape)
        begin += value.size
    values = [point[built.rvs_to_values[built[name]].name] for name in MODEL.dims]
    inverse = [built.rvs_to_transforms[built[name]] for name in MODEL.dims]
    free = {
        name: value if t is None else t.backward(value, *built[name].owner.inputs).eval(mode="FAST_COMPILE")
        for name, value, t in zip(MODEL.dims, values, inverse, strict=True)
    }
    found = functionals(MODEL, with_first_levels(MODEL, {n: np.asarray(v) for n, v in free.items()}))
    return np.concatenate([np.ravel(found[name]) for name in ANSWERS])


def mode_of(density: Callable[[np.ndarray], tuple[float, np.ndarray]], start: np.ndarray) -> np.ndarray:
    """Flat point of the highest density."""
    scale = 1 / np.sqrt(np.abs(np.diag(hessian(density, start))))

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = density(start + scale * x)
        return -float(value), -scale * slope

    found = optimize.minimize(
        objective, np.zeros_like(start), jac=True, method="BFGS", options={"gtol": 1e-6}
    )
    return start + scale * found.x


def hessian(density: Callable[[np.ndarray], tuple[float, np.ndarray]], at: np.ndarray) -> np.ndarray:
    """Second derivatives of minus the log-density, from differences of the gradient."""
    steps = STEP * np.eye(len(at))
    rows = np.array([density(at - s)[1].copy() - density(at + s)[1] for s in steps]) / (2 * STEP)
    return (rows + rows.T) / 2


def main() -> None:
    """Print the comparison."""
    ask = argparse.ArgumentParser()
    ask.add_argument("--rows", type=int, default=100_000)
    ask.add_argument("--width", type=float, default=0.15)
    ask.add_argument("--sampling", action="store_true")
    ask.add_argument("--draws", type=int, default=1_000)
    ask.add_argument("--tune", type=int, default=500)
    given = ask.parse_args()
    table = mte.tabulate(mte.simulate(MODEL, given.rows, rng=1), MODEL)
    truth = without_first_levels(MODEL, MODEL.true_parameters())
    times, modes = [], []
    for grid in (None, given.width):
        built = mte.build_model(MODEL, table, grid=grid)
        density, start = density_of(built), compile_maps(built, truth).unconstrain(truth)
        times.append(seconds(density, start, 1 if grid is None else 50))
        modes.append(mode_of(density, start))
        patterns = built["row_count"].get_value().size
        print(f"grid={grid}: {patterns} patterns, {times[-1] * 1e3:.4f} ms", flush=True)
    print(f"grid is {times[0] / times[1]:.0f} times faster")
    one, two = (answers_at(built, mode) for mode in modes)
    slopes = [
        answers_at(built, modes[1] + s) - answers_at(built, modes[1] - s) for s in STEP * np.eye(len(start))
    ]
    slope = np.array(slopes) / (2 * STEP)
    sd = np.sqrt(np.diag(slope.T @ np.linalg.inv(hessian(density, modes[1])) @ slope))
    print(f"modes: rows {one.round(4)}, grid {two.round(4)}; apart {np.round(np.abs(one - two) / sd, 3)} SDs")
    if given.sampling:
        options = {"draws": given.draws, "tune": given.tune, "progressbar": False}
        posteriors = [
            mte.sample(MODEL, table, grid=g, **options)["posterior"].to_dataset() for g in (None, given.width)
        ]
        for name in ANSWERS:
            one, two = (p[name].mean(("chain", "draw")) for p in posteriors)
            far = np.abs(one - two) / posteriors[0][name].std(("chain", "draw"))
            print(f"means of draws, {name}: {float(far.max()):.3f} SDs apart")


if __name__ == "__main__":
    main()
