"""Powers against quantile bins of one continuous proxy a side, and what the rule picks.

Run: uv run python benchmarks/proxy_maps.py [--runs 200]
"""

import argparse

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from pymc_mte.model import CausalModel
from pymc_mte.moments import features
from pymc_mte.moments.problem import make_problem
from pymc_mte.moments.spectral import spectral

Array = NDArray[np.float64]

WEIGHT = {2: [0.45, 0.55], 3: [0.3, 0.35, 0.35]}
TREATED = {2: [0.4, 0.6], 3: [0.4, 0.5, 0.6]}
OUTCOME = {2: [[0.25, 0.15], [0.45, 0.85]], 3: [[0.25, 0.1], [0.35, 0.45], [0.45, 0.9]]}  # class, arm


def proxy(kind: str, centre: Array, rng: np.random.Generator) -> Array:
    """Draw one proxy around the class's centre."""
    n = len(centre)
    if kind == "normal":
        return centre + rng.normal(size=n)
    if kind == "uniform":
        return centre + np.sqrt(3) * rng.uniform(-1, 1, n)
    if kind == "t_2":
        return centre + rng.standard_t(2, n)
    if kind == "t_5":
        return centre + rng.standard_t(5, n)
    if kind == "lognormal":
        return np.exp(0.7 * (centre + rng.normal(size=n)))
    zero = rng.random(n) < 1 / (1 + np.exp(centre))
    return np.where(zero, 0.0, rng.exponential(np.exp(0.5 * centre)))


def squared_errors(kind: str, classes: int, n: int, gap: float, runs: int) -> tuple[dict[str, Array], float]:
    """Squared errors of the class effects per map and sample, and how often the rule takes powers."""
    rng = np.random.default_rng(20)
    law = np.array(OUTCOME[classes])
    model = CausalModel(
        classes=classes,
        variables={
            "z": {"family": "normal"},
            "x": {"family": "normal"},
            "t": {"family": "bernoulli"},
            "y": {"family": "bernoulli"},
        },
        treatment="t",
        outcome="y",
        treatment_proxies=["z"],
        outcome_proxies=["x"],
    )
    limit, found, taken = features.LONGEST_TAILS, {"powers": [], "bins": [], "rule": []}, 0.0
    for _ in range(runs):
        u = rng.choice(classes, size=n, p=WEIGHT[classes])
        centre = gap * (u - (classes - 1) / 2)
        t = (rng.random(n) < np.array(TREATED[classes])[u]).astype(int)
        columns = {"z": proxy(kind, centre, rng), "x": proxy(kind, centre, rng), "t": t}
        columns["y"] = (rng.random(n) < law[u, t]).astype(int)
        for name, value in (("powers", np.inf), ("bins", 0.0), ("rule", limit)):
            features.LONGEST_TAILS = value
            problem = make_problem(model, columns, np.ones(n))
            solved = spectral(problem.moments(problem.counts[None]), classes)
            outcomes = solved.potential_outcome[0]
            gap_to_truth = np.sort(outcomes[:, 1] - outcomes[:, 0]) - np.sort(law[:, 1] - law[:, 0])
            found[name].append(float((gap_to_truth**2).sum()))
            taken += (name == "rule") * np.mean([m == "powers" for m in problem.x.maps.values()]) / runs
        features.LONGEST_TAILS = limit
    return {name: np.array(value) for name, value in found.items()}, taken


def main() -> None:
    """Print median squared errors of the class effects for every kind of proxy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    options = parser.parse_args()
    console = Console(width=120)
    table = Table(title="Median squared error of the class effects by spectral", title_justify="left")
    for column in (
        "classes",
        "rows",
        "class gap",
        "proxy",
        "powers",
        "bins",
        "rule",
        "rule takes powers",
        "better",
    ):
        table.add_column(column, justify="right")
    right = cells = 0
    for classes, n, gap in ((2, 5_000, 1.0), (2, 5_000, 2.0), (3, 5_000, 1.5), (3, 20_000, 2.0)):
        for kind in ("normal", "uniform", "t_5", "t_2", "lognormal", "zero-inflated"):
            found, taken = squared_errors(kind, classes, n, gap, options.runs)
            median = {name: float(np.nanmedian(value)) for name, value in found.items()}
            better = "powers" if median["powers"] < median["bins"] else "bins"
            right += better == ("powers" if taken > 0.5 else "bins")
            cells += 1
            numbers = [f"{median[name]:.3g}" for name in ("powers", "bins", "rule")]
            table.add_row(str(classes), f"{n:,}", f"{gap}", kind, *numbers, f"{taken:.0%}", better)
    console.print(table)
    console.print(f"The rule picks the better map in {right} of {cells} cases.")


if __name__ == "__main__":
    main()
