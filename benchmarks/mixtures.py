"""Mixtures without proxies on samples: errors against the Cramer-Rao bound, seeds, time, rows needed.

Run: uv run python benchmarks/mixtures.py [--runs 100] [--rows 100000] [--only NAME ...]
Names: designs, coins, random, carcinoma, exchangeable, time, rows.
"""

import argparse
import time

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import pymc_mte as mte
from pymc_mte.data import columns_of
from pymc_mte.functionals import interventional_mean, joint_table
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.checks import cramer_rao
from pymc_mte.moments.classes import ClassProblem
from pymc_mte.moments.problem import make_problem, problem_of

Array = NDArray[np.float64]


def contrast(model: CausalModel, parameters: Parameters, x: str, y: str) -> dict[str, Array]:
    """Average effect of raising x from its first to its second level on the mean of y."""
    weight = parameters["class_weight"]
    low, high = (interventional_mean(model, parameters, {x: level}, y) for level in (0, 1))
    return {"ate": (weight * (high - low)).sum(axis=-1)}


def naive(model: CausalModel, parameters: Parameters, x: str, y: str) -> float:
    """Difference of the means of y between the levels of x, in the population."""
    joint = [joint_table(model, parameters, {x: level}, (y,)).sum(axis=0) for level in (0, 1)]
    return float(joint[1][1] / joint[1].sum() - joint[0][1] / joint[0].sum())


def batched(model: CausalModel) -> Parameters:
    """Give the true parameters a batch axis."""
    return {n: v[None] for n, v in model.true_parameters().items()}


def fitted(model: CausalModel, law: xr.Dataset, counts: Array, seed: int) -> ClassProblem:
    """Set a sample of the full table up; its parts are computed when they are asked for."""
    problem = make_problem(model, columns_of(law, model), counts, seed)
    return ClassProblem(problem=problem, rows=float(counts.sum()))


def designs(console: Console, runs: int, rows: int) -> None:
    """Median error of the average effect in three designs, beside the Cramer-Rao standard error."""
    table = Table(title=f"Average effect, n = {rows:,}, {runs} runs", title_justify="left")
    for column in (
        "design",
        "effect",
        "naive error",
        "CR error",
        "median error",
        "ratio",
        "moments",
        "moments do",
    ):
        table.add_column(column)
    for name in ("chain8", "collider9", "chain10"):
        model = mte.load_model(f"gallery:{name}")
        x, y = str(model.treatment), str(model.outcome)
        law, exact = mte.population(model), batched(model)
        p = law["count"].values / law["count"].values.sum()
        bound = float(
            cramer_rao(
                make_problem(model, columns_of(law, model), rows * p),
                exact,
                lambda q, m=model, a=x, b=y: contrast(m, q, a, b),
            )["ate"]
        )
        ate = float(contrast(model, exact, x, y)["ate"][0])
        rng = np.random.default_rng(21)
        errors, by_moments = [], []
        for run in range(runs):
            setup = fitted(model, law, rng.multinomial(rows, p).astype(float), run)
            errors.append(abs(contrast(model, setup.optima.parameters, x, y)["ate"][0] - ate))
            moments = setup.values("network", setup.problem.counts[None])
            by_moments.append(abs(contrast(model, moments, x, y)["ate"][0] - ate))
        middle, middle_moments = float(np.median(errors)), float(np.nanmedian(by_moments))
        answered = f"{np.isfinite(by_moments).mean():.0%}"
        cells = [f"{v:.4f}" for v in (ate, naive(model, model.true_parameters(), x, y) - ate, bound, middle)]
        cells += [f"{middle / bound:.2f}", f"{middle_moments:.4f}", answered]
        table.add_row(name, *cells)
        console.print(name, *cells)
    console.print(table)


def coins(console: Console, runs: int) -> None:
    """Worst error of four coins in 10,000 rows."""
    for name in ("coins16", "coins7"):
        model = mte.load_model(f"gallery:{name}")
        law, exact = mte.population(model), batched(model)
        p = law["count"].values / law["count"].values.sum()
        bound = cramer_rao(
            make_problem(model, columns_of(law, model), 10_000 * p), exact, lambda q: {"p": q["p_heads"]}
        )["p"]
        rng = np.random.default_rng(22)
        found: dict[str, list[Array]] = {"polished": [], "pencil": []}
        for run in range(runs):
            setup = fitted(model, law, rng.multinomial(10_000, p).astype(float), run)
            for method, errors in found.items():
                value = np.sort(setup.values(method, setup.problem.counts[None])["p_heads"][0])
                errors.append(np.abs(value - exact["p_heads"][0]))
        said = "; ".join(
            f"{m}: mean error of the worst coin {np.mean(v, axis=0).max():.4f}, largest error of a run "
            f"median {np.median(np.max(v, axis=1)):.4f}, worst {np.max(v):.4f}"
            for m, v in found.items()
        )
        console.print(f"{name}, n = 10,000, worst of four coins: {said}; CR error {bound.max():.4f}")
        answer = mte.estimate(model, mte.simulate(model, 10_000, rng=1), n_boot=0)
        console.print("  notes:", answer.attrs["notes"])


def random_network(rng: np.random.Generator) -> tuple[CausalModel, str, str]:
    """Sparse random network of 7 or 8 variables, one ternary, in shuffled order, with 2 or 3 classes."""
    n, k = int(rng.integers(7, 9)), int(rng.integers(2, 4))
    place = rng.permutation(n)
    three = int(rng.integers(n))
    size = {v: 3 if v == three else 2 for v in range(n)}
    variables, truth = {}, {"class_weight": (0.15 + (1 - 0.15 * k) * rng.dirichlet(np.ones(k))).tolist()}
    parents = {
        int(v): [int(w) for w in place[:i] if rng.random() < min(1.0, 1.3 / max(1, i))][:2]
        for i, v in enumerate(place)
    }
    for v in range(n):
        shape = (k, *(size[w] for w in parents[v]), size[v])
        p = 0.05 + (1 - 0.05 * size[v]) * rng.dirichlet(np.ones(size[v]), size=shape[:-1])
        family = {"family": "bernoulli"} if size[v] == 2 else {"family": "categorical", "levels": [0, 1, 2]}
        variables[f"v{v}"] = family | {"parents": [f"v{w}" for w in parents[v]]}
        truth[f"v{v}"] = {"p": (p[..., 1] if size[v] == 2 else p).tolist()}
    model = CausalModel(classes=k, variables=variables, truth=truth)
    edges = [(w, v) for v in range(n) for w in parents[v] if size[v] == 2]
    if not edges:
        return random_network(rng)
    x, y = edges[int(rng.integers(len(edges)))]
    return model, f"v{x}", f"v{y}"


def random_networks(console: Console, runs: int, rows: int) -> None:
    """Share of random networks whose effect lies within four Cramer-Rao errors."""
    rng = np.random.default_rng(23)
    z, planned, lost, from_moments, shares = [], [], [], [], []
    for run in range(runs):
        model, x, y = random_network(rng)
        law, exact = mte.population(model), batched(model)
        p = law["count"].values / law["count"].values.sum()
        problem = make_problem(model, columns_of(law, model), rows * p)
        bound = float(cramer_rao(problem, exact, lambda q, m=model, a=x, b=y: contrast(m, q, a, b))["ate"])
        setup = fitted(model, law, rng.multinomial(rows, p).astype(float), run)
        ate = float(contrast(model, exact, x, y)["ate"][0])
        z.append(abs(float(contrast(model, setup.optima.parameters, x, y)["ate"][0]) - ate) / bound)
        assert setup.plan is not None
        planned.append(bool(setup.plan.families))
        from_moments.append(setup.optima.log_likelihood - setup.optima.moment_start < 0.5)
        shares.append(setup.optima.share)
        top = setup.problem.counts @ np.log(np.maximum(p, 1e-300))
        lost.append(setup.optima.log_likelihood < top)
    good = np.sum(np.array(from_moments) & np.array(planned)) / max(1, np.sum(planned))
    console.print(
        f"random networks, n = {rows:,}, {runs} runs: within 4 CR errors {np.mean(np.array(z) <= 4):.1%}, "
        f"median z {np.median(z):.2f}, largest {np.max(z):.1f}; a plan in {np.mean(planned):.0%}; the moment "
        f"start ends at the best optimum in {good:.0%} of those; random starts there {np.mean(shares):.0%}; "
        f"best below the truth in {np.mean(lost):.0%}"
    )


def carcinoma(console: Console, seeds: int) -> None:
    """Seeds that find the published optimum of four classes, and the other published fits."""
    model = mte.load_model("gallery:carcinoma")
    table = mte.tabulate(model.data_path, model)
    for k, published in ((2, -317.2568), (3, -293.7050), (4, -289.2858)):
        other = model.with_classes(k)
        found = []
        for seed in range(seeds if k == 4 else 5):
            setup = ClassProblem(problem=problem_of(other, table, seed=seed), rows=118.0)
            found.append(setup.optima.log_likelihood)
        hit = np.abs(np.array(found) - published) < 1e-3
        said = f"{hit.sum()} of {len(found)} seeds at {published}; worst {min(found):.4f}"
        console.print(f"carcinoma, {k} classes: {said}")
    other = mte.load_model("gallery:stouffer_toby")
    setup = ClassProblem(problem=problem_of(other, mte.tabulate(other.data_path, other)), rows=216.0)
    console.print(f"Stouffer-Toby, two classes: {setup.optima.log_likelihood:.4f} (published -504.4677)")


def exchangeable(console: Console, runs: int) -> None:
    """Test seven different raters against interchangeable ones, by parametric bootstrap."""
    raters = mte.load_model("gallery:carcinoma")
    alike = mte.load_model("gallery:carcinoma_exchangeable")
    table = mte.tabulate(raters.data_path, raters)
    columns = columns_of(table, raters)
    yes = np.sum([columns[v] for v in raters.variables], axis=0)
    n, k = 7, raters.classes

    def gain(counts: Array, seed: int) -> tuple[float, Parameters]:
        total = np.bincount(yes, weights=counts, minlength=n + 1)
        own = ClassProblem(problem=make_problem(raters, columns, counts, seed), rows=118.0).optima
        sums = make_problem(alike, {"yes": np.arange(n + 1)}, total, seed)
        same = ClassProblem(problem=sums, rows=118.0).optima
        ways = np.array([float(np.prod([(n - j) / (j + 1) for j in range(s)])) for s in range(n + 1)])
        return 2 * (own.log_likelihood - (same.log_likelihood - total @ np.log(ways))), same.parameters

    observed, point = gain(table["count"].values.astype(float), 0)
    cells = np.indices((2,) * n).reshape(n, -1)
    columns = {v: cells[i] for i, v in enumerate(raters.variables)}
    yes = cells.sum(axis=0)
    p = point["p_yes"][0][:, None] ** yes * (1 - point["p_yes"][0][:, None]) ** (n - yes)
    law = point["class_weight"][0] @ p
    rng = np.random.default_rng(24)
    null = [gain(rng.multinomial(118, law / law.sum()).astype(float), i)[0] for i in range(runs)]
    console.print(
        f"carcinoma, {k} classes: different raters gain 2 x log-likelihood = {observed:.1f} on {k * (n - 1)} "
        f"more parameters; in {runs} samples of interchangeable raters the gain is {np.mean(null):.1f} on "
        f"average and at most {max(null):.1f}"
    )


def clock(console: Console) -> None:
    """Seconds for a chain of eight at a million rows."""
    model = mte.load_model("gallery:chain8")
    rows = mte.simulate(model, 1_000_000, rng=1)
    frame = {v: rows[v].values for v in model.variables}
    mte.estimate(model, mte.simulate(model, 1_000, rng=1), n_boot=0)  # imports
    begin = time.perf_counter()
    table = mte.tabulate(frame, model)
    counted = time.perf_counter()
    setup = ClassProblem(problem=problem_of(model, table), rows=1e6)
    assert setup.moment_start is not None
    solved = time.perf_counter()
    assert setup.optima.converged
    climbed = time.perf_counter()
    mte.estimate(model, table, n_boot=0)
    console.print(
        f"chain8, n = 1,000,000: counting {counted - begin:.2f} s, moments {solved - counted:.2f} s, "
        f"climbs {climbed - solved:.2f} s; estimate with all checks {time.perf_counter() - climbed:.2f} s"
    )


def rows_needed(console: Console) -> None:
    """Rows after which the Cramer-Rao error of the worst class parameter is 0.05."""
    table = Table(
        title="Rows needed for an error of 0.05 in the worst coin or table (Cramer-Rao)", title_justify="left"
    )
    for column in ("mixture", "classes", "separation", "rows"):
        table.add_column(column)
    for k in (2, 3, 4, 5):
        for gap in (0.1, 0.2):
            p = 0.5 + gap * (np.arange(k) - (k - 1) / 2)
            for label, n in (("coins, 2K - 1 draws", 2 * k - 1), ("coins, 4K draws", 4 * k)):
                model = CausalModel(
                    classes=k,
                    variables={"heads": {"family": "binomial", "trials": n}},
                    truth={"class_weight": [1 / k] * k, "heads": {"p": p.tolist()}},
                )
                table.add_row(label, str(k), f"{gap}", f"{needed(model, 'p_heads'):,.0f}")
            n = 2 * k - 1
            rng = np.random.default_rng(25)
            means = {f"v{i}": {"p": rng.permutation(p).tolist()} for i in range(n)}
            model = CausalModel(
                classes=k,
                variables={v: {"family": "bernoulli"} for v in means},
                truth={"class_weight": [1 / k] * k, **means},
            )
            table.add_row("product, 2K - 1 bits", str(k), f"{gap}", f"{needed(model, 'p_v0'):,.0f}")
    console.print(table)


def needed(model: CausalModel, name: str) -> float:
    """Rows for a Cramer-Rao error of 0.05, which falls as their root."""
    law = mte.population(model)
    problem = make_problem(model, columns_of(law, model), law["count"].values.astype(float))
    error = cramer_rao(problem, batched(model), lambda q: {name: q[name]})[name].max()
    return float((error / 0.05) ** 2)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--only", nargs="*", default=None)
    options = parser.parse_args()
    console = Console(width=140)
    jobs = {
        "designs": lambda: designs(console, options.runs, options.rows),
        "coins": lambda: coins(console, options.runs),
        "random": lambda: random_networks(console, options.runs, options.rows),
        "carcinoma": lambda: carcinoma(console, 100),
        "exchangeable": lambda: exchangeable(console, options.runs),
        "time": lambda: clock(console),
        "rows": lambda: rows_needed(console),
    }
    for name, job in jobs.items():
        if options.only is None or name in options.only:
            begin = time.perf_counter()
            job()
            console.print(f"({name}: {time.perf_counter() - begin:.0f} s)")


if __name__ == "__main__":
    main()
