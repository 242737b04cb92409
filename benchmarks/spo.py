"""Moment estimators on the paper's designs: errors beside the Cramer-Rao bound, figures A and B.

Run: uv run python benchmarks/spo.py [--runs 2000] [--out results/spo]
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr
from nonnegative import component_effects, nonnegative_cp, three_way
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import pymc_mte as mte
from pymc_mte.data import columns_of
from pymc_mte.functionals import functionals
from pymc_mte.model import CausalModel
from pymc_mte.moments.joint import joint_proxies
from pymc_mte.moments.likelihood import climb
from pymc_mte.moments.methods import bridge_values, pencil_values, spectral_values
from pymc_mte.moments.problem import Problem, make_problem
from pymc_mte.moments.scores import Scores, gradient, information, inverse_information

Array = NDArray[np.float64]

PENALTY = 1.0
"""Pseudo-counts of the lightly penalised variant: the mode under Beta(2, 2) priors."""

CHUNK = 250
"""Samples climbed at a time."""

CP_UPDATES = 1_000
"""Rounds of multiplicative updates; the fit has settled then."""


def paper_model(zt: float, xy: float) -> CausalModel:
    """Write down the paper's binary simulation with edge strengths mu_zt and mu_xy, as a level-3 graph."""
    treat = [[3 / 4, 3 / 4 - zt / 2], [1 / 4 + zt / 2, 1 / 4]]
    base = np.array([[7 / 8, (7 - 6 * xy) / 8], [(1 + 6 * xy) / 8, 1 / 8]])  # (class, x)
    edge = xy > 0
    outcome = np.stack([base, 1 - base], axis=-1) if edge else np.stack([base[:, 0], 1 - base[:, 0]], -1)
    variables = {
        "z": {"family": "bernoulli"},
        "x": {"family": "bernoulli"},
        "t": {"family": "bernoulli", "parents": ["z"]},
        "y": {"family": "bernoulli", "parents": ["x", "t"] if edge else ["t"]},
    }
    proxy = {"p": [0.25, 0.75]}
    truth = {
        "class_weight": [0.5, 0.5],
        "z": proxy,
        "x": proxy,
        "t": {"p": treat},
        "y": {"p": outcome.tolist()},
    }
    return CausalModel(
        classes=2,
        variables=variables,
        treatment="t",
        outcome="y",
        treatment_proxies=["z"],
        outcome_proxies=["x"],
        truth=truth,
    )


def middle_model() -> CausalModel:
    """Write down a design with the edge z -> t whose outcome probabilities are far from 0 and 1."""
    base = paper_model(0.5, 0.0)
    fields = {name: getattr(base, name) for name in CausalModel.model_fields}
    truth = {
        "class_weight": [0.5, 0.5],
        "z": {"p": [0.3, 0.7]},
        "x": {"p": [0.2, 0.8]},
        "t": {"p": [[0.15, 0.75], [0.25, 0.85]]},
        "y": {"p": [[0.4, 0.3], [0.5, 0.75]]},
    }
    return CausalModel(**fields | {"truth": truth})


def joined_model(model: CausalModel) -> CausalModel:
    """Write the same design with the two binary proxies of each side as one 4-level variable."""
    truth = {k: v for k, v in (model.truth or {}).items() if k in ("class_weight", "t", "y")}
    variables: dict[str, object] = {}
    for side, names in (("z", model.treatment_proxies), ("x", model.outcome_proxies)):
        first, second = (model.true_parameters()[f"p_{n}"] for n in names)
        truth[side] = {"p": np.einsum("ka,kb->kab", first, second).reshape(model.classes, -1).tolist()}
        variables[side] = {"family": "categorical", "levels": [0, 1, 2, 3]}
    variables |= {n: model.variables[n] for n in ("t", "y")}
    return CausalModel(
        classes=model.classes,
        variables=variables,
        treatment="t",
        outcome="y",
        treatment_proxies=["z"],
        outcome_proxies=["x"],
        truth=truth,
    )


def likelihood(penalty: float) -> Callable[[Problem, Array], dict[str, Array]]:
    """Maximum likelihood from every sample's own spectral start."""

    def values(problem: Problem, counts: Array) -> dict[str, Array]:
        parts = []
        for first in range(0, len(counts), CHUNK):
            best, _ = climb(
                problem, counts[first : first + CHUNK], n_random=0, penalty=penalty, tolerance=1e-9
            )
            answer = functionals(problem.model, best.parameters)
            parts.append(
                {
                    "effect": answer["effect"],
                    "class_weight": best.parameters["class_weight"],
                    "ate": answer["ate"],
                }
            )
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return values


def decomposition(problem: Problem, counts: Array) -> dict[str, Array]:
    """Non-negative CP decomposition of (Z) x (T, Y) x (X), which ignores the edge z -> t."""
    model = problem.model
    names = (*model.treatment_proxies, str(model.treatment), str(model.outcome), *model.outcome_proxies)
    return component_effects(
        nonnegative_cp(three_way(problem.columns, counts, names), model.classes, CP_UPDATES)
    )


METHODS = {
    "pencil": pencil_values,
    "spectral": spectral_values,
    "polished": likelihood(0.0),
    "polished, penalised": likelihood(PENALTY),
}
COMPARED = {**METHODS, "non-negative CP": decomposition}
"""The methods that binary proxies, one a side, allow."""


def errors(values: dict[str, Array], truth: dict[str, Array]) -> tuple[Array, Array]:
    """Squared errors of the effects, and of effects and weights, classes sorted by effect."""
    order = np.argsort(values["effect"], axis=1)
    effect = np.take_along_axis(values["effect"], order, 1) - truth["effect"]
    weight = np.take_along_axis(values["class_weight"], order, 1) - truth["class_weight"]
    return (effect**2).sum(1), (effect**2).sum(1) + (weight**2).sum(1)


def sorted_truth(model: CausalModel) -> dict[str, Array]:
    """Compute true effects and weights, sorted by effect."""
    found = mte.truth(model)
    return {name: found[name].values for name in ("effect", "class_weight", "ate")}


def bound(model: CausalModel) -> Array:
    """Cramer-Rao covariance of the class effects for one row."""
    table = mte.population(model)
    parameters = {n: v[None] for n, v in model.true_parameters().items()}
    score = Scores(model, columns_of(table, model)).by_pattern(parameters)
    inverse = inverse_information(information(score, table["count"].values))
    slope = gradient(model, parameters, lambda p: functionals(model, p))["effect"]
    return np.asarray(slope @ inverse @ slope.T)


def samples(model: CausalModel, n: int, runs: int, rng: np.random.Generator) -> tuple[Problem, Array]:
    """Draw count tables of many samples at once; features are those of the population."""
    table = mte.population(model)
    p = table["count"].values
    return make_problem(model, columns_of(table, model), p * n), rng.multinomial(
        n, p / p.sum(), size=runs
    ).astype(float)


def design(console: Console, name: str, model: CausalModel, sizes: tuple[int, ...], runs: int) -> None:
    """Print median squared effect errors and RMSE against the bound for one design."""
    truth, covariance = sorted_truth(model), bound(model)
    rng = np.random.default_rng(1)
    draws = rng.multivariate_normal(np.zeros(model.classes), covariance, size=100_000)
    table = Table(title=f"{name}: median squared effect error; RMSE against Cramer-Rao", title_justify="left")
    for column in (
        "rows",
        "method",
        "median",
        "bound's median",
        "RMSE / bound (worst class, its error)",
        "no answer",
        "seconds",
    ):
        table.add_column(column, justify="right")
    for n in sizes:
        problem, counts = samples(model, n, runs, rng)
        for label, method in METHODS.items():
            begin = time.perf_counter()
            values = method(problem, counts)
            seconds = time.perf_counter() - begin
            effect = np.sort(values["effect"], axis=1) - truth["effect"]
            ok = np.isfinite(effect).all(axis=1)
            squared = effect[ok] ** 2
            ratio, error = rmse_ratio(squared, np.diag(covariance) / n) if ok.any() else (np.nan, np.nan)
            median = np.median(squared.sum(1)) if ok.any() else np.nan
            best = np.median((draws**2).sum(1)) / n
            table.add_row(
                f"{n:,}",
                label,
                f"{median:.3g}",
                f"{best:.3g}",
                f"{ratio:.3f} ({error:.3f})",
                f"{1 - ok.mean():.1%}",
                f"{seconds:.1f}",
            )
    console.print(table)


def rmse_ratio(squared: Array, variance: Array) -> tuple[float, float]:
    """Largest root-mean-square error over classes, in Cramer-Rao standard deviations, and its error."""
    mean = squared.mean(axis=0)
    ratio = np.sqrt(mean / variance)
    error = ratio * squared.std(axis=0) / np.sqrt(len(squared)) / (2 * mean)
    worst = int(ratio.argmax())
    return float(ratio[worst]), float(error[worst])


def generator(console: Console, runs: int) -> None:
    """Print mean errors on the paper's generator at n = 1,000, on common samples."""
    whole = Table(title="Paper's generator, n = 1,000: mean MTE error (standard error)", title_justify="left")
    for column in ("mu_zt", *METHODS, "polished / pencil", "penalised / pencil"):
        whole.add_column(column, justify="right")
    alone = Table(title="The same, effects alone", title_justify="left")
    for column in ("mu_zt", *COMPARED, "Cramer-Rao"):
        alone.add_column(column, justify="right")
    for zt in (0.0, 0.5, 1.0):
        model = paper_model(zt, 0.0)
        found = mean_errors(model, 1_000, runs, 2)
        mean = {label: values[1].mean() for label, values in found.items()}
        ratios = [mean[m] / mean["pencil"] for m in ("polished", "polished, penalised")]
        cells = [with_error(found[label][1]) for label in METHODS]
        whole.add_row(f"{zt}", *cells, *(f"{ratio:.3f}" for ratio in ratios))
        bounded = f"{np.trace(bound(model)) / 1_000:.4f}"
        alone.add_row(f"{zt}", *(with_error(values[0]) for values in found.values()), bounded)
    console.print(whole)
    console.print(alone)


def away_from_the_boundary(console: Console, runs: int) -> None:
    """Print mean errors of the effects where the decomposition's bias hurts."""
    model = middle_model()
    title = "Outcome probabilities from .3 to .75, edge z -> t: mean squared error of the effects"
    table = Table(title=f"{title} (standard error)", title_justify="left")
    for column in ("rows", *COMPARED, "Cramer-Rao"):
        table.add_column(column, justify="right")
    for n in (1_000, 10_000, 100_000):
        found = mean_errors(model, n, runs, 4)
        bounded = f"{np.trace(bound(model)) / n:.2g}"
        table.add_row(f"{n:,}", *(with_error(values[0]) for values in found.values()), bounded)
    console.print(table)


PANELS = (("level 2 to 3", "zt"), ("level 3 to 4", "xy"))
LABELS = ("A (level 2 to 3): strength of z -> t", "B (level 3 to 4): strength of x -> y")


def mean_errors(model: CausalModel, n: int, runs: int, seed: int) -> dict[str, tuple[Array, Array]]:
    """Squared errors (see `errors`) of all methods on the samples where all have an answer."""
    problem, counts = samples(model, n, runs, np.random.default_rng(seed))
    truth = sorted_truth(model)
    found = {label: errors(method(problem, counts), truth) for label, method in COMPARED.items()}
    ok = np.all([np.isfinite(values[1]) for values in found.values()], axis=0)
    return {label: (values[0][ok], values[1][ok]) for label, values in found.items()}


def with_error(values: Array) -> str:
    """Mean and its standard error."""
    return f"{values.mean():.3g} ({values.std() / np.sqrt(len(values)):.1g})"


def figures(out: Path, runs: int) -> None:
    """Redraw figures A and B of the paper, our estimators beside the textbook one."""
    grid = np.round(np.arange(0, 1.01, 0.1), 1)
    names, without, bridge = ("pencil", "spectral", "polished"), "polished without z -> t", "bridge (average)"
    found = np.full((2, len(names) + 2, len(grid)), np.nan)
    for i, value in enumerate(grid):
        for panel, model in enumerate((paper_model(value, 0.0), paper_model(1.0, value))):
            truth, graph = sorted_truth(model), paper_model(0.5, 0.0)
            problem, counts = samples(model, 1_000, runs, np.random.default_rng(3))
            problem = make_problem(graph, problem.columns, problem.counts)
            for j, label in enumerate(names):
                found[panel, j, i] = np.nanmean(errors(METHODS[label](problem, counts), truth)[1])
            if panel == 0:
                flat = make_problem(mte.load_model("gallery:level2"), problem.columns, problem.counts)
                found[panel, -2, i] = np.nanmean(errors(METHODS["polished"](flat, counts), truth)[1])
            else:
                gap = bridge_values(problem, counts)["ate"] - truth["ate"]
                found[panel, -1, i] = np.nanmean(gap**2)
    said = {"scale": "log", "long_name": "mean squared error"}
    curves = xr.Dataset(
        {name: (("line", along), found[panel], said) for panel, (name, along) in enumerate(PANELS)},
        coords={"line": [*names, without, bridge]}
        | {
            along: (along, grid, {"long_name": label})
            for (_, along), label in zip(PANELS, LABELS, strict=True)
        },
    )
    out.mkdir(parents=True, exist_ok=True)
    mte.plot_curves(curves).savefig(out / "paper_figures.png", dpi=130)


def main() -> None:
    """Run all designs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--out", type=Path, default=Path("results/spo"))
    options = parser.parse_args()
    console = Console(width=130)
    generator(console, options.runs)
    away_from_the_boundary(console, options.runs)
    pair, three = mte.load_model("gallery:paper_pair"), mte.load_model("gallery:three_classes")
    runs = max(200, options.runs // 2)
    design(console, "Paper's level 3", paper_model(1.0, 0.0), (20_000,), runs)
    design(console, "Two binary proxies a side, as bits", pair, (1_000, 20_000, 500_000), runs)
    design(
        console, "Two binary proxies a side, joined to 4 levels", joined_model(pair), (1_000, 500_000), runs
    )
    joint = joint_proxies(pair)
    design(console, "Two binary proxies a side, polished with proxies='joint'", joint, (1_000, 500_000), runs)
    design(
        console,
        "Three classes, four binary proxies a side",
        three,
        (2_000, 20_000, 200_000),
        runs,
    )
    figures(options.out, min(options.runs, 300))


if __name__ == "__main__":
    main()
