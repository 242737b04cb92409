"""Coverage of bootstrap intervals and size of the test of equal effects, in repeated samples.

Run: uv run python benchmarks/calibration.py [--runs 2000] [--rows 5000] [--boot 200]
"""

import argparse
import time

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import pymc_mte as mte
from pymc_mte.alignment import match_classes
from pymc_mte.data import columns_of
from pymc_mte.model import CausalModel
from pymc_mte.moments.groups import equal_effects
from pymc_mte.moments.methods import polished_values
from pymc_mte.moments.problem import make_problem

Array = NDArray[np.float64]

DESIGNS = ("level3", "paper_pair", "three_classes")
TAIL = 0.05


def equal_design() -> CausalModel:
    """Write down a confounding class whose two effects are equal: ATE 0.2."""
    fields = {n: getattr(mte.load_model("gallery:paper_pair"), n) for n in CausalModel.model_fields}
    truth = {**fields["truth"], "y": {"p": [[0.2, 0.4], [0.5, 0.7]]}}
    return CausalModel(**fields | {"truth": truth, "name": "equal_effects"})


def one_run(
    model: CausalModel, table: xr.Dataset, counts: Array, boot: int, rng: np.random.Generator
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Estimate one sample and its resamples by the default method, aligned to the truth."""
    problem = make_problem(model, columns_of(table, model), counts)
    point = polished_values(problem, counts[None])
    resamples = rng.multinomial(int(counts.sum()), counts / counts.sum(), size=boot).astype(float)
    draws = polished_values(problem, resamples)
    order, _ = match_classes(draws["profile"], point["profile"][0])
    draws["effect"] = np.take_along_axis(draws["effect"], order, axis=1)
    draws["class_weight"] = np.take_along_axis(draws["class_weight"], order, axis=1)
    return point, draws


def coverage(console: Console, designs: list[str], runs: int, rows: int, boot: int) -> None:
    """Print the coverage of 90% percentile intervals in each design."""
    table = Table(
        title=f"Coverage of 90% percentile intervals, n = {rows:,}, {runs} runs", title_justify="left"
    )
    for column in ("design", "ate", "effects, ascending", "weights", "seconds"):
        table.add_column(column)
    for name in designs:
        model = mte.load_model(f"gallery:{name}")
        law, truth = mte.population(model), mte.truth(mte.load_model(f"gallery:{name}"))
        p = law["count"].values / law["count"].values.sum()
        rng = np.random.default_rng(11)
        hits: dict[str, list[Array]] = {"ate": [], "effect": [], "class_weight": []}
        begin = time.perf_counter()
        for _ in range(runs):
            counts = rng.multinomial(rows, p).astype(float)
            point, draws = one_run(model, law, counts, boot, rng)
            order = np.argsort(point["effect"][0])
            for key, found in hits.items():
                low, high = np.nanquantile(draws[key], [TAIL, 1 - TAIL], axis=0)
                if key != "ate":
                    low, high = low[order], high[order]
                found.append((low <= truth[key].values) & (truth[key].values <= high))
        shares = {key: np.mean(found, axis=0) for key, found in hits.items()}
        cells = [np.array2string(np.atleast_1d(shares[key]), precision=3) for key in hits]
        table.add_row(name, *cells, f"{time.perf_counter() - begin:.0f}")
        console.print(name, *cells)
    console.print(table)


def size(console: Console, runs: int, rows: int, boot: int) -> None:
    """Print how often the test of equal effects rejects at 5% when effects are equal."""
    model = equal_design()
    law = mte.population(model)
    p = law["count"].values / law["count"].values.sum()
    rng = np.random.default_rng(12)
    p_values = []
    for _ in range(runs):
        counts = rng.multinomial(rows, p).astype(float)
        point, draws = one_run(model, law, counts, boot, rng)
        p_values.append(equal_effects(point["effect"][0], draws["effect"]).p_value)
    rejected = np.array(p_values) < 0.05
    error = np.sqrt(rejected.mean() * (1 - rejected.mean()) / runs)
    console.print(
        f"equal effects: rejected in {rejected.mean():.1%} (standard error {error:.1%}) of {runs} runs"
    )


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--boot", type=int, default=200)
    parser.add_argument("--designs", nargs="*", default=DESIGNS)
    parser.add_argument("--no-size", action="store_true", help="leave the test of equal effects out")
    options = parser.parse_args()
    console = Console(width=120)
    if not options.no_size:
        size(console, min(options.runs, 1_000), options.rows, options.boot)
    coverage(console, list(options.designs), options.runs, options.rows, options.boot)


if __name__ == "__main__":
    main()
