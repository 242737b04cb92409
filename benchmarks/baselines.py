"""Grouping by similar covariates cannot separate overlapping classes: baselines beside the mixture.

Run: uv run python benchmarks/baselines.py [--rows 50000] [--model NAME] [--figure FILE]
With a causal forest among them: uv run --extra forest python benchmarks/baselines.py
"""

import argparse

import pymc_mte as mte


def main() -> None:
    """Print every baseline's answers beside ours and the truth; draw them if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--model", default="gallery:paper_pair")
    parser.add_argument("--figure", default=None)
    options = parser.parse_args()
    model = mte.load_model(options.model)
    rows = mte.simulate(model, options.rows, rng=1)
    table, ours, truth = mte.baselines(model, rows), mte.estimate(model, rows, n_boot=100), mte.truth(model)
    print(table.drop(columns="assumes").to_string(float_format="{:.3f}".format))
    point = ours["estimate"].to_dataset()
    effects = ", ".join(
        f"{value:.3f} ({se:.3f})"
        for value, se in zip(point["effect"].values, point["se_effect"].values, strict=True)
    )
    print(f"mixture of effects: average {float(point['ate']):.3f}, class effects {effects}")
    print(f"truth: average {float(truth['ate']):.3f}, class effects {truth['effect'].values.round(3)}")
    if options.figure:
        mte.plot_baselines(table, ours, truth=truth).savefig(options.figure, dpi=130)


if __name__ == "__main__":
    main()
