"""Coverage of 90% posterior intervals on the paper's level-3 simulation, and agreement with moments.

Run: uv run python benchmarks/posterior_coverage.py [--seeds 40] [--rows 20000]
"""

import argparse

import numpy as np

import pymc_mte as mte
from pymc_mte.bayes.checks import worst_mixing
from pymc_mte.summary import posterior_summary

NAMES = {"ate": (), "effect[class 0]": (0,), "effect[class 1]": (1,)}


def main() -> None:
    """Fit every seed; print coverage, the largest R-hat and the z of spectral against likelihood."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--model", default="gallery:level3")
    options = parser.parse_args()
    model = mte.load_model(options.model)
    truth = mte.truth(model)
    covered = dict.fromkeys(NAMES, 0)
    rhats, scores = [], []
    for seed in range(options.seeds):
        rows = mte.simulate(model, options.rows, rng=1_000 + seed)
        moments = mte.estimate(model, rows, rng=seed)
        posterior = mte.sample(model, rows, start=moments, random_seed=seed, progressbar=False)
        table = posterior_summary(posterior)
        for name, index in NAMES.items():
            value = float(truth[name.split("[")[0]].values[index])
            covered[name] += bool(table.loc[name, "lower"] <= value <= table.loc[name, "upper"])
        rhats.append(worst_mixing(posterior["posterior"].to_dataset())[0])
        scores.append(mte.compare(posterior, moments, n_boot=100, rng=seed)["z"].loc[list(NAMES)])
        print(f"seed {seed}: R-hat {rhats[-1]:.4f}, covered so far {covered}", flush=True)
    z = np.array(scores, dtype=float)
    print(f"covered of {options.seeds}: {covered} (31 to 40 of 40 expected)")
    print(f"R-hat below 1.01 in {np.mean(np.array(rhats) < 1.01):.0%}, largest {max(rhats):.4f}")
    beyond = np.mean(np.abs(z) > 2.6)
    print(f"z of spectral against likelihood: SD {np.nanstd(z, axis=0).round(2)}, beyond 2.6: {beyond:.1%}")


if __name__ == "__main__":
    main()
