"""Calibration of the posterior: simulation-based, and coverage of 90% intervals in three fixed designs.

One compilation per design; the sizes asked for are 1,000 simulations and 2,000 fits a design.

Run: uv run python benchmarks/calibration_posterior.py [--part sbc] [--simulations 1000] [--fits 2000]
"""

import argparse
import os
import time

import numpy as np

import pymc_mte as mte
from pymc_mte.calibration import rows_of

PARTS = ("sbc", "coverage")
SAID = {"ate": (), "effect[class 0]": (0,), "effect[class 1]": (1,)}


def designs() -> dict[str, mte.CausalModel]:
    """List fixed truths: the paper's level 3, a Poisson outcome, unequal classes, three-level proxies."""
    counts = mte.CausalModel(
        name="poisson_outcome",
        classes=2,
        variables={
            "z": {"family": "bernoulli"},
            "x": {"family": "bernoulli"},
            "t": {"family": "bernoulli"},
            "y": {"family": "poisson", "parents": ["t"]},
        },
        treatment="t",
        outcome="y",
        treatment_proxies=["z"],
        outcome_proxies=["x"],
        truth={
            "class_weight": [0.45, 0.55],
            "z": {"p": [0.2, 0.75]},
            "x": {"p": [0.15, 0.8]},
            "t": {"p": [0.35, 0.65]},
            "y": {"rate": [[1.0, 2.0], [3.0, 6.0]]},
        },
    )
    levels = {"family": "categorical", "levels": [0, 1, 2]}
    unequal = mte.CausalModel(
        name="three_level_proxies",
        classes=2,
        variables={
            "z": levels,
            "x": levels,
            "t": {"family": "bernoulli", "parents": ["z"]},
            "y": {"family": "bernoulli", "parents": ["t"]},
        },
        treatment="t",
        outcome="y",
        treatment_proxies=["z"],
        outcome_proxies=["x"],
        truth={
            "class_weight": [0.25, 0.75],
            "z": {"p": [[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]},
            "x": {"p": [[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]]},
            "t": {"p": [[0.3, 0.5, 0.7], [0.4, 0.6, 0.7]]},
            "y": {"p": [[0.2, 0.7], [0.6, 0.4]]},
        },
    )
    return {
        "level3": mte.load_model("gallery:level3"),
        "poisson outcome": counts,
        "three-level proxies": unequal,
    }


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--simulations", type=int, default=1_000)
    parser.add_argument("--fits", type=int, default=2_000)
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--design", action="append")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    parts = options.part or PARTS
    chosen = {name: m for name, m in designs().items() if not options.design or name in options.design}
    for name, model in chosen.items():
        if "sbc" in parts:
            simulate_calibration(name, model, options.simulations)
        if "coverage" in parts:
            cover(name, model, options.fits, options.rows)


def simulate_calibration(name: str, model: mte.CausalModel, simulations: int) -> None:
    """Print the verdict, the tails of the band and coverage of the 90% intervals."""
    checked = mte.calibrate(model, simulations, progressbar=False)
    told = {k: checked.attrs[k] for k in ("failures", "divergent", "seconds_per_fit")}
    print(f"{name}: {checked.attrs['verdict']}; {told}")
    verdict, coverage = checked["verdict"].to_dataset(), checked["coverage"].to_dataset().sel(level=0.9)
    low, high = float(coverage["lower"]), float(coverage["upper"])
    for quantity in checked["prior_sbc"].to_dataset().data_vars:
        p, covered = verdict[f"band_p_{quantity}"].values.round(3), coverage[quantity].values.round(3)
        print(f"  {quantity}: band p {p.tolist()}, 90% covers {covered.tolist()} ({low:.3f} to {high:.3f})")


def cover(name: str, model: mte.CausalModel, fits: int, rows: int) -> None:
    """Print coverage of the 90% interval of the ATE and of each class effect."""
    truth, right = mte.truth(model), model.true_parameters()
    rng = np.random.default_rng(11)
    compiled = mte.compile(model, rows_of(model, right, rows, rng))
    covered = dict.fromkeys(SAID, 0)
    divergent = switching = 0
    begun = time.perf_counter()
    for fit in range(fits):
        drawn = compiled.draws(rows_of(model, right, rows, rng), random_seed=fit)
        divergent += drawn.attrs["divergences"] > 0
        switching += drawn.attrs["switching_share"] > 0.01
        for label, index in SAID.items():
            variable = label.split("[")[0]
            low, high = np.quantile(drawn[variable].values[(..., *index)], [0.05, 0.95])
            covered[label] += bool(low <= float(truth[variable].values[index]) <= high)
        if (fit + 1) % 100 == 0:
            print(f"  {fit + 1} fits: {covered}", flush=True)
    shares = {label: f"{count / fits:.3f}" for label, count in covered.items()}
    error, spent = np.sqrt(0.09 / fits), (time.perf_counter() - begun) / fits
    print(
        f"{name}, n = {rows:,}, {fits} fits: 90% intervals cover {shares} (0.87 to 0.93 wanted, standard "
        f"error {error:.3f}); divergences in {divergent}, labels switch in {switching}; {spent:.2f} s a fit"
    )


if __name__ == "__main__":
    main()
