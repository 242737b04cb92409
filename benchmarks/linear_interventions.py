"""Unknown interventions on linear Gaussian networks: targets found, and coverage of 90% intervals.

Run: uv run python benchmarks/linear_interventions.py [--kind shift do] [--runs 100] [--first 0]
     [--rows 10000] [--nodes 6] [--components 4] [--size 1.0] [--wrong]

Every run draws a graph (each edge with probability .6, coefficients .25 to 1 in size, error sd 1), an
untouched component and others that touch one or two nodes by +-size error sd, weights Dirichlet(5) of at
least .1, and as many untouched rows as rows of the mixture. "F1" compares the most probable set of targets
with the truth, as sets of nodes; "all" is the share of runs without an error; "mean p" is the probability
that the true set was given. Coverage is of 90% intervals of the average over sets: "weights" and "values" of
the true targets, one that was not met being a miss; "reported" of the selected targets' weights, 0 being
the truth of a wrong one; "given truth" of one scoring step from the true targets. "truth" is how often the
true targets are more probable than those found (a failure of the search). --wrong takes the strongest edge
out of the graph that is fitted. "flagged" is how often `estimate` then notices at 5%, "base" how often the
test on the base rows alone does, "both" if each is made at 2.5%; without --wrong, shares of false alarms.
"""

import argparse
import sys
import time

import numpy as np
from numpy.typing import NDArray

from pymc_mte.moments.interventions.gaussian import Kind, LinearMixture, LinearRows, refit
from pymc_mte.moments.interventions.gaussian_average import Average, average, average_replicates
from pymc_mte.moments.interventions.gaussian_errors import Replicates
from pymc_mte.moments.interventions.gaussian_evidence import log_evidence
from pymc_mte.moments.interventions.gaussian_misfit import absent_edge
from pymc_mte.moments.interventions.gaussian_sets import TargetSet, find_sets
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
    sets = find_sets(data, network, rng)
    over, best = average(sets), sets[0].mixture
    drawn = average_replicates(data, sets, over, 400, rng)
    out = {"seconds": time.process_time() - begun, "F1": f1(truth.touched, best.touched)}
    fields = {name: getattr(truth, name) for name in ("weight", "touched", "value", "spread")}
    oracle = refit(data, LinearMixture(network=network, **fields))
    alone = [TargetSet(mixture=oracle, probability=1.0, level=log_evidence(data, oracle))]
    given = average(alone)
    out |= {
        "all": float(out["F1"] == 1),
        "mean p": sum(one.probability for one in sets if f1(truth.touched, one.mixture.touched) == 1),
        "truth": float(alone[0].level > sets[0].level + 0.5),
    }
    out |= _coverage(truth, over, drawn)
    sure = _coverage(truth, given, average_replicates(data, alone, given, 400, rng))
    out |= {"weights given truth": sure["weights"], "values given truth": sure["values"]}
    alarm, base_alarm = absent_edge(data, best).p_value, missing_edge(network, base)[2]
    both = min(alarm, base_alarm) < 0.025
    return out | {"flagged": float(alarm < 0.05), "base": float(base_alarm < 0.05), "both": float(both)}


def _coverage(truth: LinearMixture, over: Average, drawn: Replicates) -> dict[str, float]:
    """Shares of true targets' weights and values, and of reported weights, that intervals hold."""
    low, high = np.quantile(drawn.weight, [0.05, 0.95], axis=0)
    low_value, high_value = np.quantile(drawn.value, [0.05, 0.95], axis=0)
    weights, values, matched = [], [], {}
    centre = over.mean(over.value)
    for k, target in enumerate(truth.touched):
        places = np.flatnonzero((over.touched == target).all(axis=1))
        if not len(places):
            weights, values = [*weights, False], values + [False] * int(target.sum())
            continue
        j = int(places[np.abs(centre[places] - truth.value[k]).sum(axis=1).argmin()])
        matched[j] = truth.weight[k]
        weights.append(low[j] <= truth.weight[k] <= high[j])
        inside = (low_value[j] - 1e-3 <= truth.value[k]) & (truth.value[k] <= high_value[j] + 1e-3)
        values += inside[target].tolist()
    reported = [low[j] <= matched.get(int(j), 0.0) <= high[j] for j in np.flatnonzero(over.included[0])]
    return {
        "weights": float(np.mean(weights)),
        "values": float(np.mean(values)) if values else np.nan,
        "reported": float(np.mean(reported)),
    }


def main(argv: list[str] | None = None) -> int:
    """Run the simulation and print its table: means over runs, standard errors in parentheses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kind", nargs="+", default=["shift", "do"])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--nodes", type=int, default=6)
    parser.add_argument("--components", type=int, default=4)
    parser.add_argument("--size", type=float, default=1.0)
    parser.add_argument("--wrong", action="store_true")
    parser.add_argument("--every", type=int, default=25, help="print the running means this often")
    options = parser.parse_args(argv)
    for kind in options.kind:
        runs: list[dict[str, float]] = []
        for number in range(1, options.runs + 1):
            runs.append(run(kind, options.first + number - 1, options))
            if number % options.every == 0 or number == options.runs:
                table = {key: np.array([r[key] for r in runs]) for key in runs[0]}
                said = [
                    f"{k} {np.nanmean(v):.3f} ({np.nanstd(v) / np.sqrt(number):.3f})"
                    for k, v in table.items()
                ]
                print(kind, number, "  ".join(said), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
