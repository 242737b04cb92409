"""Simulation-based calibration of a family in a second a round: one climb instead of all optima.

    python benchmarks/families_one_climb.py [--family hurdle_negative_binomial] [--fits 1000] [--seed 1]

Chains start at the end of a single likelihood climb, which also says which class is which; modes are
neither searched nor weighed. So it checks model, draws, sampler and matching with many rounds.
"""

import argparse
from typing import Any

import numpy as np
import xarray as xr
from families import family_model, rows_of_levels
from numpy.typing import NDArray

import pymc_mte as mte
from pymc_mte.alignment import match_classes, take_classes
from pymc_mte.bayes.compiled import CompiledPosterior
from pymc_mte.bayes.learnt import prior_draws
from pymc_mte.bayes.samplers import sample_density
from pymc_mte.bayes.start import with_first_levels, without_first_levels
from pymc_mte.calibration import PRIOR_DATA, _result, rows_of
from pymc_mte.data import columns_of, resolve
from pymc_mte.functionals import functionals
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.em import em, random_starts
from pymc_mte.moments.methods import class_profile, pooled_scales
from pymc_mte.results import class_order, dims_of

SHOWN = ("ate", "att", "arm_mean", "effect_sd", "class_weight", "effect", "potential_outcome")
KEPT = {"positive": (0.05, 20.0), "unit": (0.02, 0.98)}
"""Starts are moved away from bounds where a climb may end."""

OPTIONS = {"draws": 400, "tune": 400, "target_accept": 0.9, "cores": 1, "progressbar": False}
THIN = 8


def ordered(model: CausalModel, values: Parameters, order: NDArray[np.int64]) -> Parameters:
    """Take the classes of every draw in an order of its own."""
    dims = dims_of(model)
    by_class = {n for n in values if dims.get(n, ())[:1] == ("class",)}
    return {n: take_classes(v, order, 1) if n in by_class else v for n, v in values.items()}


def climb(model: CausalModel, table: xr.Dataset, rng: np.random.Generator) -> Parameters:
    """End of one climb, classes by effect: a batch of one."""
    columns, counts = columns_of(table, model), table["count"].values.astype(float)[None]
    start = random_starts(model, columns, counts, rng)
    point = em(model, columns, counts, start, penalty=1.0, max_iterations=150).parameters
    return ordered(model, point, class_order(model, point | functionals(model, point)))


def draws_from(
    compiled: CompiledPosterior, model: CausalModel, table: xr.Dataset, point: Parameters, seed: int
) -> Parameters:
    """Thinned draws of two chains."""
    start = without_first_levels(model, {n: v[0] for n, v in point.items()})
    start = {n: np.clip(v, *KEPT.get(model.kind(n).support, (None, None))) for n, v in start.items()}
    density = compiled.density.with_data(mte.build_model(model, table), keep=PRIOR_DATA)
    vector = np.clip(density.maps.unconstrain(start), -4, 4)
    raw = sample_density(density, [vector, vector], seed, OPTIONS)["posterior"]
    values = with_first_levels(model, {n: raw[n].values for n in model.posterior_dims})
    return {n: v.reshape(-1, *v.shape[2:])[::THIN] for n, v in values.items()}


def place(
    compiled: CompiledPosterior, truth: Parameters, table: xr.Dataset, rng: np.random.Generator
) -> Parameters:
    """Place of the truth among the draws, per quantity."""
    model, table = resolve(compiled.model, table)
    point = climb(model, table, rng)
    scales = pooled_scales(model, columns_of(table, model), table["count"].values.astype(float))
    pivot = class_profile(model, point, scales)[0]
    drawn = draws_from(compiled, model, table, point, int(rng.integers(2**31)))

    def quantities(values: Parameters) -> Parameters:
        values = values | functionals(model, values)
        return ordered(model, values, match_classes(class_profile(model, values, scales), pivot)[0])

    ours, right, out = quantities(drawn), quantities({n: v[None] for n, v in truth.items()}), {}
    for name in SHOWN:
        below, equal = ((f(ours[name], right[name])).sum(axis=0) for f in (np.less, np.equal))
        out[name] = (below + rng.random(below.shape) * (equal + 1)) / (len(ours[name]) + 1)
    return out


def main() -> None:
    """Run the rounds that are asked for and print the verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", default="hurdle_negative_binomial")
    parser.add_argument("--fits", type=int, default=1_000)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    rng = np.random.default_rng(asked.seed)
    start: Any = rows_of_levels(family_model(asked.family))
    compiled = mte.compile(family_model(asked.family), start)
    model = compiled.model
    truths = prior_draws(model, compiled.built, asked.fits, asked.seed, (None, np.ones(1)), by_effect=False)
    places = []
    for i in range(asked.fits):
        truth = {name: truths[name][i] for name in model.posterior_dims}
        places.append(place(compiled, truth, rows_of(model, truth, asked.rows, rng), rng))
    found = _result(model, places)
    print(f"{asked.family}: {found.attrs['verdict']}")
    band, coverage = found["verdict"].to_dataset(), found["coverage"].to_dataset().sel(level=0.9)
    for name in SHOWN:
        p, covered = band[f"band_p_{name}"].values.round(3), coverage[name].values.round(3)
        print(f"  {name}: band p {p.tolist()}, 90% covers {covered.tolist()}")


if __name__ == "__main__":
    main()
