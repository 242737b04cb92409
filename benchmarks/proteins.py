"""Protein signalling (Sachs et al. 2005): conditions unmixed without their labels, and compared with them.

Run: uv run --with cdt python benchmarks/proteins.py [--file cyto_full_data.csv] [--conditions 3 4 5 8]

The table (7,466 cells, 11 proteins, nine conditions one after another) comes with the package cdt 0.6.
Logs are taken; the first condition is the untouched system, the chosen others are mixed. The graph is the
consensus one in its usual acyclic form. Per condition: how many cells, which component has most of them and
what share, what that component shifts, and by how many error sds. "rand" is the adjusted Rand index of
components against conditions, 0 by chance and 1 at best.
"""

import argparse
import csv
import importlib.util
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pymc_mte.moments.interventions.gaussian import LinearRows, memberships
from pymc_mte.moments.interventions.gaussian_misfit import absent_edge
from pymc_mte.moments.interventions.gaussian_sets import find_sets
from pymc_mte.moments.interventions.linear import learn_linear, missing_edge, moments_of

NAMES = ("plcg", "PIP3", "PIP2", "PKC", "PKA", "praf", "pmek", "p44/42", "pakts473", "P38", "pjnk")
EDGES = {
    "PIP3": ["plcg"],
    "PIP2": ["plcg", "PIP3"],
    "PKA": ["PKC"],
    "praf": ["PKC", "PKA"],
    "pmek": ["PKC", "PKA", "praf"],
    "p44/42": ["PKA", "pmek"],
    "pakts473": ["PKA", "p44/42"],
    "P38": ["PKC", "PKA"],
    "pjnk": ["PKC", "PKA"],
}
CONDITIONS = (
    ("cd3cd28", 853, "untouched"),
    ("cd3cd28+icam2", 902, "none of the 11"),
    ("+akt inhibitor", 911, "pakts473"),
    ("+G06976", 723, "PKC"),
    ("+psitectorigenin", 810, "PIP2"),
    ("+U0126", 799, "pmek"),
    ("+LY294002", 848, "pakts473, by PIP3"),
    ("PMA", 913, "PKC"),
    ("b2cAMP", 707, "PKA"),
)


def default_file() -> Path:
    """Find the table inside an installed cdt, without importing it."""
    found = importlib.util.find_spec("cdt")
    if found is None or found.origin is None:
        raise SystemExit("cdt is not installed: run with `uv run --with cdt`, or pass --file")
    return Path(found.origin).parent / "data" / "resources" / "cyto_full_data.csv"


def read(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Read logs of the values, proteins in the order of `NAMES`, and the condition of every cell."""
    with path.open() as lines:
        rows = list(csv.DictReader(lines))
    values = np.log(np.array([[float(row[name]) for name in NAMES] for row in rows]))
    return values, np.repeat(np.arange(len(CONDITIONS)), [n for _, n, _ in CONDITIONS])


def rand_index(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    """Agreement of two partitions beyond chance (Hubert and Arabie)."""
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1)

    def pairs(counts: NDArray[np.float64]) -> float:
        return float((counts * (counts - 1) / 2).sum())

    rows, columns = pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    chance = rows * columns / pairs(np.array([float(len(a))]))
    return (pairs(table) - chance) / (0.5 * (rows + columns) - chance)


def main(argv: list[str] | None = None) -> int:
    """Unmix, and print a line per condition."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--conditions", type=int, nargs="+", default=[3, 4, 5, 8], help="1 to 8")
    parser.add_argument("--components", type=int, default=10, help="most components")
    options = parser.parse_args(argv)
    values, label = read(options.file or default_file())
    parents = tuple(tuple(NAMES.index(p) for p in EDGES.get(name, [])) for name in NAMES)
    base, chosen = values[label == 0], np.isin(label, options.conditions)
    network = learn_linear(parents, base)
    edge = missing_edge(network, base)
    print(f"base: {len(base)} cells; an edge missing {NAMES[edge[0]]} -> {NAMES[edge[1]]}: p = {edge[2]:.1g}")
    data = LinearRows(kind="shift", rows=values[chosen], counts=np.ones(chosen.sum()), base=moments_of(base))
    sets = find_sets(data, network, np.random.default_rng(0), options.components)
    best = sets[0].mixture
    found = memberships(data, best)[0].argmax(axis=1)
    true = np.searchsorted(sorted(options.conditions), label[chosen])
    print(
        f"{len(best.weight)} components, {len(sets)} sets of targets, the best has {sets[0].probability:.0%}"
    )
    for place, condition in enumerate(sorted(options.conditions)):
        share = np.bincount(found[true == place], minlength=len(best.weight)) / (true == place).sum()
        top = int(share.argmax())
        shifts = best.value[top] / best.network.sd
        order = [i for i in np.argsort(-np.abs(shifts)) if best.touched[top, i]]
        said = ", ".join(f"{NAMES[i]}{shifts[i]:+.1f}" for i in order) or "nothing"
        name, number, target = CONDITIONS[condition]
        print(
            f"{name:18s} {number:4d} cells, acts on {target:18s}: component {top} ({share[top]:.0%}): {said}"
        )
    print(f"rand {rand_index(true, found):.3f}; an edge missing: p = {absent_edge(data, best).p_value:.1g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
