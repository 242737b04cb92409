"""Unknown interventions on linear Gaussian networks: targets found, and coverage of 90% intervals.

Run: uv run python benchmarks/linear_interventions.py [--kind shift do] [--runs 100] [--rows 10000]
     [--nodes 6] [--components 4] [--size 1.0] [--wrong]

Every run draws a graph (each edge with probability .6, coefficients .25 to 1 in size, error sd 1), an
untouched component and others that touch one or two nodes by +-size error sd, weights Dirichlet(5) of at
least .1, and as many untouched rows as rows of the mixture. "F1" compares targets as sets of nodes; "all"
is the share of runs without an error; coverage counts a target that was not found as a miss, "given found"
leaves it out. "truth" is how often BIC prefers the true targets to those found (a failure of the search).
--wrong takes one edge out of the graph that is fitted, and "flagged" is then how often that is noticed at
5%; without it, the share of false alarms.
"""

import argparse
import sys
import time

import numpy as np
from numpy.typing import NDArray

from pymc_mte.moments.interventions.gaussian import Kind, LinearMixture, LinearRows, refit
from pymc_mte.moments.interventions.gaussian_errors import replicates
from pymc_mte.moments.interventions.gaussian_misfit import absent_edge
from pymc_mte.moments.interventions.gaussian_search import unmix_linear
from pymc_mte.moments.interventions.linear import LinearNetwork, learn_linear, missing_edge, moments_of

Array = NDArray[np.float64]
Parents = tuple[tuple[int, ...], ...]


def random_mixture(options: argparse.Namespace, rng: np.random.Generator) -> LinearMixture:
    """Draw a network and its components."""
    nodes, components = options.nodes, options.components
    parents: Parents = tuple(tuple(j for j in range(i) if rng.random() < 0.6) for i in range(nodes))
    slopes = np.zeros((nodes, nodes))
    for i, above in enumerate(parents):
        for j in above:
            slopes[i, j] = rng.choice([-1, 1]) * rng.uniform(0.25, 1)
    touched = np.zeros((components, nodes), dtype=bool)
    for k in range(1, components):
        while len(np.unique(touched[: k + 1], axis=0)) <= k:
            touched[k] = False
            touched[k, rng.permutation(nodes)[: rng.integers(1, 3)]] = True
    value = np.where(touched, options.size * rng.choice([-1, 1], size=touched.shape), 0.0)
    weight = rng.dirichlet(np.full(components, 5.0))
    while weight.min() < 0.1:
        weight = rng.dirichlet(np.full(components, 5.0))
    network = LinearNetwork(parents=parents, intercept=np.zeros(nodes), coefficient=slopes, sd=np.ones(nodes))
    spread = np.where(touched, 1e-3, 1.0)
    return LinearMixture(network=network, weight=weight, touched=touched, value=value, spread=spread)


def draw(kind: Kind, mixture: LinearMixture, label: NDArray[np.int64], rng: np.random.Generator) -> Array:
    """Draw one row per label; forced values are exact."""
    nodes = len(mixture.network.sd)
    rows = np.zeros((len(label), nodes))
    for i in range(nodes):
        free = rows @ mixture.network.coefficient[i] + rng.normal(size=len(label))
        own = mixture.value[label, i]
        rows[:, i] = free + own if kind == "shift" else np.where(mixture.touched[label, i], own, free)
    return rows


def f1(true: NDArray[np.bool_], found: NDArray[np.bool_]) -> float:
    """Agree on targets, each counted as often as it occurs."""
    left = [tuple(t) for t in found]
    hits = 0
    for target in map(tuple, true):
        if target in left:
            left.remove(target)
            hits += 1
    return 2 * hits / (len(true) + len(found))


def run(kind: Kind, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """One data set: what was found, and how often intervals hold the truth."""
    rng = np.random.default_rng([seed, options.nodes, options.rows])
    truth = random_mixture(options, rng)
    parents = truth.network.parents
    base = draw(kind, truth, np.zeros(options.rows, dtype=np.int64), rng)
    rows = draw(kind, truth, rng.choice(options.components, size=options.rows, p=truth.weight), rng)
    if options.wrong:
        strongest = np.unravel_index(np.abs(truth.network.coefficient).argmax(), (options.nodes,) * 2)
        parents = tuple(tuple(j for j in above if (i, j) != strongest) for i, above in enumerate(parents))
    network = learn_linear(parents, base)
    data = LinearRows(kind=kind, rows=rows, counts=np.ones(len(rows)), base=moments_of(base))
    begun = time.process_time()
    found = unmix_linear(data, network, rng)
    drawn = replicates(data, found, 400, rng)
    out = {"seconds": time.process_time() - begun, "F1": f1(truth.touched, found.touched)}
    oracle = refit(data, LinearMixture(**{**_fields(truth), "network": network}))
    out |= {
        "all": float(out["F1"] == 1),
        "truth": float(oracle.criterion(data) < found.criterion(data) - 0.5),
    }
    alarm = min(absent_edge(data, found).p_value, missing_edge(network, base)[2])
    return out | {"flagged": float(alarm < 0.05)} | _coverage(truth, found, drawn)


def _fields(mixture: LinearMixture) -> dict[str, object]:
    return {name: getattr(mixture, name) for name in ("weight", "touched", "value", "spread")}


def _coverage(truth: LinearMixture, found: LinearMixture, drawn: object) -> dict[str, float]:
    low, high = np.quantile(drawn.weight, [0.05, 0.95], axis=0)  # type: ignore[attr-defined]
    low_value, high_value = np.quantile(drawn.value, [0.05, 0.95], axis=0)  # type: ignore[attr-defined]
    weights, values, missed, missed_values = [], [], 0, 0
    for k, target in enumerate(truth.touched):
        places = np.flatnonzero((found.touched == target).all(axis=1))
        if not len(places):
            missed, missed_values = missed + 1, missed_values + int(target.sum())
            continue
        j = places[0]
        weights.append(low[j] <= truth.weight[k] <= high[j])
        inside = (low_value[j] - 1e-3 <= truth.value[k]) & (truth.value[k] <= high_value[j] + 1e-3)
        values += inside[target].tolist()
    return {
        "weights": sum(weights) / (len(weights) + missed),
        "values": sum(values) / max(len(values) + missed_values, 1),
        "weights given found": float(np.mean(weights)) if weights else np.nan,
        "values given found": float(np.mean(values)) if values else np.nan,
    }


def main(argv: list[str] | None = None) -> int:
    """Run the simulation and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kind", nargs="+", default=["shift", "do"])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--nodes", type=int, default=6)
    parser.add_argument("--components", type=int, default=4)
    parser.add_argument("--size", type=float, default=1.0)
    parser.add_argument("--wrong", action="store_true")
    parser.add_argument("--every", type=int, default=25, help="print the running means this often")
    options = parser.parse_args(argv)
    for kind in options.kind:
        runs: list[dict[str, float]] = []
        for seed in range(options.runs):
            runs.append(run(kind, seed, options))
            if (seed + 1) % options.every == 0 or seed + 1 == options.runs:
                means = {key: np.nanmean([r[key] for r in runs]) for key in runs[0]}
                print(kind, seed + 1, "  ".join(f"{k} {v:.3f}" for k, v in means.items()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
