"""Coverage of 90% intervals and size of the test of equal effects, in repeated samples.

Run: uv run python benchmarks/calibration.py [--runs 2000] [--rows 5000] [--boot 200] [--seed 2024]

Seeds 101 (400 runs) were looked at to choose the interval that is printed; others are for reports.
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
from pymc_mte.functionals import functionals
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.bootstrap import robust_se
from pymc_mte.moments.groups import equal_effects
from pymc_mte.moments.intervals import bias_corrected_interval, percentile_interval
from pymc_mte.moments.methods import polished_values
from pymc_mte.moments.problem import Problem, make_problem
from pymc_mte.moments.scores import Scores, gradient, information, inverse_information

Array = NDArray[np.float64]

DESIGNS = ("level3", "paper_pair", "three_classes")
ANSWERS = ("ate", "effect", "class_weight")
LEVEL = 0.9
WIDTH = 1.6449
"""Standard errors on each side of a normal 90% interval."""


def equal_design() -> CausalModel:
    """Write down a confounding class whose two effects are equal: ATE 0.2."""
    fields = {n: getattr(mte.load_model("gallery:paper_pair"), n) for n in CausalModel.model_fields}
    truth = {**fields["truth"], "y": {"p": [[0.2, 0.4], [0.5, 0.7]]}}
    return CausalModel(**fields | {"truth": truth, "name": "equal_effects"})


def one_run(
    model: CausalModel, table: xr.Dataset, counts: Array, boot: int, rng: np.random.Generator
) -> tuple[Problem, dict[str, Array], dict[str, Array]]:
    """Estimate one sample and its resamples by the default method, classes in ascending effect."""
    problem = make_problem(model, columns_of(table, model), counts)
    point = polished_values(problem, counts[None])
    resamples = rng.multinomial(int(counts.sum()), counts / counts.sum(), size=boot).astype(float)
    draws = polished_values(problem, resamples)
    matched, _ = match_classes(draws["profile"], point["profile"][0])
    ascending = np.argsort(point["effect"][0])
    for name in ("effect", "class_weight"):
        draws[name] = np.take_along_axis(draws[name], matched, axis=1)[:, ascending]
        point[name] = point[name][:, ascending]
    return problem, point, draws


def joined(values: dict[str, Array]) -> Array:
    """Put the average, the effects and the weights side by side: (batch, answers)."""
    return np.concatenate([values[n].reshape(len(values["ate"]), -1) for n in ANSWERS], axis=1)


def information_errors(problem: Problem) -> Array:
    """Compute standard errors of the joined answers from the information matrix."""
    model, fitted = problem.model, problem.cache["point"]

    def answers(parameters: Parameters) -> dict[str, Array]:
        return functionals(model, parameters) | {"class_weight": parameters["class_weight"]}

    score = Scores(model, problem.columns).by_pattern(fitted)
    inverse = inverse_information(information(score, problem.counts))
    slopes, order = gradient(model, fitted, answers), np.argsort(answers(fitted)["effect"][0])
    slope = np.concatenate([slopes["ate"][None], slopes["effect"][order], slopes["class_weight"][order]])
    return np.sqrt(np.einsum("ij,jk,ik->i", slope, inverse, slope))


def intervals(draws: Array, point: Array, errors: Array) -> dict[str, Array]:
    """Every interval that was tried, by name: (2, answers)."""
    percentile, robust = percentile_interval(draws, LEVEL), WIDTH * robust_se(draws)
    return {
        "percentile": percentile,
        "bias-corrected": bias_corrected_interval(draws, point, LEVEL),
        "basic": 2 * point - percentile[::-1],
        "normal, robust error": np.stack([point - robust, point + robust]),
        "normal, information": np.stack([point - WIDTH * errors, point + WIDTH * errors]),
    }


def coverage(console: Console, designs: list[str], runs: int, rows: int, boot: int, seed: int) -> None:
    """Print the coverage of 90% intervals of every kind in each design."""
    title = f"Coverage of 90% intervals, n = {rows:,}, {runs} runs, {boot} resamples, seed {seed}"
    error = np.sqrt(LEVEL * (1 - LEVEL) / runs)
    table = Table(title=f"{title} (standard error {error:.3f})", title_justify="left")
    for column in ("design", "interval", "ate", "effects, ascending", "weights", "seconds"):
        table.add_column(column)
    for name in designs:
        model = mte.load_model(f"gallery:{name}")
        law, found = mte.population(model), mte.truth(model)
        p = law["count"].values / law["count"].values.sum()
        order = np.argsort(found["effect"].values)
        truth = np.concatenate(
            [np.atleast_1d(found["ate"]), found["effect"][order], found["class_weight"][order]]
        )
        hits: dict[str, list[Array]] = {}
        begin = time.perf_counter()
        for run in range(runs):
            rng = np.random.default_rng([seed, run])
            problem, point, draws = one_run(model, law, rng.multinomial(rows, p).astype(float), boot, rng)
            errors = information_errors(problem)
            for kind, (low, high) in intervals(joined(draws), joined(point)[0], errors).items():
                hits.setdefault(kind, []).append((low <= truth) & (truth <= high))
        seconds = f"{time.perf_counter() - begin:.0f}"
        for kind, answers in hits.items():
            share = np.mean(answers, axis=0)
            k = model.classes
            cells = [" ".join(f"{v:.3f}" for v in part) for part in np.split(share, [1, 1 + k])]
            table.add_row(name, kind, *cells, seconds)
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
        _, point, draws = one_run(model, law, counts, boot, rng)
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
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--designs", nargs="*", default=DESIGNS)
    parser.add_argument("--no-size", action="store_true", help="leave the test of equal effects out")
    options = parser.parse_args()
    console = Console(width=120)
    if not options.no_size:
        size(console, min(options.runs, 1_000), options.rows, options.boot)
    coverage(console, list(options.designs), options.runs, options.rows, options.boot, options.seed)


if __name__ == "__main__":
    main()
