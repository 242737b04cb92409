"""Normal approximations of the posterior beside NUTS: how far means are off, and how wide they are.

Laplace's approximation is `sample(..., sampler="laplace")`. Pathfinder is that of pymc-extras, on the same
PyMC model and started at the posterior mean, which is kinder than any start that is known beforehand.

Run: uv run --extra extras python benchmarks/approximations.py [--rows 5000] [--seeds 2]
"""

import argparse
import time
import warnings
from importlib.util import find_spec
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

import pymc_mte as mte

PATHFINDER: dict[str, dict[str, Any]] = {
    "1 path": {"num_paths": 1, "importance_sampling": None},
    "8 paths, PSIS": {"num_paths": 8, "importance_sampling": "psis"},
    "8 paths, PSIR": {"num_paths": 8, "importance_sampling": "psir"},
}
"""Pathfinder's settings; draws of several paths are weighed by their densities or resampled."""

Draws = dict[str, NDArray[np.float64]]


def draws_of(tree: xr.DataTree, names: list[str], *, levels: bool) -> Draws:
    """Draws of the free parameters; of two levels the second one, as in the PyMC model."""
    found = tree["posterior"].to_dataset()
    flat = {name: found[name].values.reshape(-1, *found[name].shape[2:]) for name in names}
    return {n: v[..., 1] if levels and n != "class_weight" else v for n, v in flat.items()}


def say(label: str, drawn: Draws, exact: Draws, seconds: float) -> None:
    """Print the largest difference of means in posterior SDs, and the range of ratios of SDs."""
    spread = {name: values.std(axis=0) for name, values in exact.items()}
    off = max(np.max(np.abs(drawn[n].mean(axis=0) - exact[n].mean(axis=0)) / sd) for n, sd in spread.items())
    ratio = np.concatenate([np.ravel(drawn[n].std(axis=0) / sd) for n, sd in spread.items()])
    widths = f"{ratio.min():.2f} to {ratio.max():.2f}"
    print(f"{label:28} means off by up to {off:.2f} SD, SDs {widths} times those of NUTS, {seconds:.0f} s")


def pathfinder(built: Any, start: dict[str, Any], seed: int, given: dict[str, Any]) -> xr.DataTree:
    """Run Pathfinder from near a point."""
    from pymc_extras import fit_pathfinder

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, on draws of low density
        return fit_pathfinder(
            built, jitter=0.5, initvals=start, random_seed=seed, progressbar=False, parallel=False, **given
        )


def main() -> None:
    """Sample level 3 with NUTS, then by every approximation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    model = mte.load_model("gallery:level3")
    rows = mte.simulate(model, options.rows, rng=1)
    built = mte.build_model(model, rows)
    names = [rv.name for rv in built.free_RVs]
    exact = draws_of(mte.sample(model, rows, draws=2_000, progressbar=False), names, levels=True)
    clock = time.perf_counter()
    tree = mte.sample(model, rows, draws=2_000, sampler="laplace", progressbar=False)
    say("Laplace", draws_of(tree, names, levels=True), exact, time.perf_counter() - clock)
    if find_spec("pymc_extras") is None:
        print("pymc-extras is not installed: no Pathfinder (uv sync --extra extras)")
        return
    start = {name: values.mean(axis=0) for name, values in exact.items()}
    for label, given in PATHFINDER.items():
        for seed in range(options.seeds):
            clock = time.perf_counter()
            drawn = draws_of(pathfinder(built, start, seed, given), names, levels=False)
            say(f"Pathfinder, {label}", drawn, exact, time.perf_counter() - clock)


if __name__ == "__main__":
    main()
