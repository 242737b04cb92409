"""Coverage of the 90% posterior interval of an average effect without proxies: chain of seven.

The model is compiled once; each data set of the same shape only replaces the counts.

Run: uv run python benchmarks/mixture_coverage.py [--runs 300] [--rows 3000] [--model gallery:chain7]
"""

import argparse
import time

import numpy as np
from numpy.typing import NDArray

import pymc_mte as mte

Array = NDArray[np.float64]

CHAINS, DRAWS, TUNE = 2, 500, 300


def split_rhat(draws: Array) -> float:
    """Plain split R-hat of (chain, draw)."""
    half = draws.shape[1] // 2
    parts = np.concatenate([draws[:, :half], draws[:, half : 2 * half]])
    within, between = parts.var(axis=1, ddof=1).mean(), parts.mean(axis=1).var(ddof=1)
    return float(np.sqrt((half - 1) / half + between / within))


def main() -> None:
    """Fit every sample; print coverage with its standard error, width, bias and mixing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--rows", type=int, default=3_000)
    parser.add_argument("--model", default="gallery:chain7")
    options = parser.parse_args()
    model = mte.load_model(options.model)
    law, right = mte.population(model), float(mte.truth(model)["ate"])
    p = law["count"].values / law["count"].values.sum()
    rng = np.random.default_rng(77)

    def table_of(counts: NDArray[np.int64]) -> object:
        cells = {v: law[v].values for v in model.variables}
        return mte.tabulate(cells | {"n": counts}, model, count="n")

    begun = time.perf_counter()
    compiled = mte.compile(model, table_of(np.maximum(rng.multinomial(options.rows, p), 1)))
    print(f"compiled in {time.perf_counter() - begun:.0f} s", flush=True)
    covered, errors, widths, rhats, divergent, biases = [], [], [], [], [], []
    begun = time.process_time()
    for run in range(options.runs):
        rows = table_of(rng.multinomial(options.rows, p))
        drawn = compiled.draws(rows, draws=DRAWS, tune=TUNE, chains=CHAINS, random_seed=run)
        answer = drawn["ate"].values
        low, high = np.quantile(answer, [0.05, 0.95])
        covered.append(low <= right <= high)
        errors.append(answer.mean() - right)
        biases.append(errors[-1] / answer.std())
        widths.append(high - low)
        rhats.append(split_rhat(answer))
        divergent.append(drawn.attrs["divergences"])
        if (run + 1) % 25 == 0:
            spent = time.process_time() - begun
            print(f"{run + 1} runs: covered {np.mean(covered):.3f}, {spent:.0f} s of CPU", flush=True)
    share = float(np.mean(covered))
    print(
        f"{options.model}, n = {options.rows:,}, {options.runs} samples: 90% interval of the ATE covers "
        f"{share:.1%} (Monte Carlo standard error {np.sqrt(share * (1 - share) / len(covered)):.1%})"
    )
    print(
        f"truth {right:.4f}; mean error of the posterior mean {np.mean(errors):+.4f}, median absolute error "
        f"{np.median(np.abs(errors)):.4f}, mean width {np.mean(widths):.4f}; standardised error: mean "
        f"{np.mean(biases):+.2f}, SD {np.std(biases):.2f}"
    )
    print(
        f"R-hat of the ATE above 1.01 in {np.mean(np.array(rhats) > 1.01):.1%}, largest {max(rhats):.3f}; "
        f"divergences in {np.mean(np.array(divergent) > 0):.1%} of the samples"
    )


if __name__ == "__main__":
    main()
