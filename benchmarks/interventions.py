"""Kumar and Sinha's simulation: recall, precision and errors of the targets found, beside the paper's curve.

Run: uv run python benchmarks/interventions.py [--nodes 4] [--rows 1024 16384] [--runs 200]
     [--methods polished lifting] [--figure FILE] [--part targets coverage]

Every run draws a network, a mixture of 4 to 16 interventions, and as many rows of the untouched network as
of the mixture. "selected" are the targets of `polished` whose Bayes factor is above 1. Errors are root mean
squares over all true and found targets; "distance" is half the sum of the absolute errors of the weights.

Part "coverage": shares of 90% bootstrap intervals (`polished`, 100 replicates) that hold the truth (means
over instances, standard errors in parentheses). "true": all true targets, one not found being a miss;
"found": those of them that were found; "large": true targets of a share above .05; "reported": all targets
found, 0 being the truth of a false one; "selected": the same of those whose Bayes factor is above 1; "given":
the true targets where they are listed as the only possible ones.
"""

import argparse
import sys
import time

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte import plot_curves
from pymc_mte.moments.intervals import percentile_interval
from pymc_mte.moments.interventions.design import Mixture, random_mixture
from pymc_mte.moments.interventions.estimate import weight_replicates
from pymc_mte.moments.interventions.methods import unmix
from pymc_mte.moments.interventions.network import learn

Array = NDArray[np.float64]
VALUES, REPLICATES = 3, 100
PAPER = {  # recall of the paper's figure 1 at M = 2^4, ..., 2^20, read off the picture (+- .004)
    4: (0.19, 0.26, 0.40, 0.52, 0.66, 0.72, 0.80, 0.86, 0.91, 0.94, 0.96, 0.97, 0.98, 0.99, 0.99, 0.99, 1),
    8: (0.04, 0.07, 0.12, 0.14, 0.21, 0.26, 0.35, 0.40, 0.46, 0.51, 0.59, 0.66, 0.71, 0.77, 0.82, 0.87, 0.88),
    12: (
        0.03,
        0.05,
        0.05,
        0.08,
        0.10,
        0.12,
        0.18,
        0.22,
        0.26,
        0.31,
        0.36,
        0.40,
        0.47,
        0.50,
        0.56,
        0.58,
        0.62,
    ),
}
COLUMNS = ("recall", "precision", "rmse", "fp_rmse", "fn_rmse", "distance", "found")


def scores(targets: NDArray[np.int64], weight: Array, mixture: Mixture) -> list[float]:
    """Compute the paper's metrics (nan where there is no false target), precision and distance."""
    true = dict(zip(map(tuple, mixture.targets.tolist()), mixture.weight, strict=True))
    found = dict(zip(map(tuple, targets.tolist()), weight, strict=True))
    error = np.array([found.get(t, 0.0) - true.get(t, 0.0) for t in true.keys() | found.keys()])
    extra = np.array([found[t] for t in found.keys() - true.keys()])
    missed = np.array([true[t] for t in true.keys() - found.keys()])
    hits = len(true.keys() & found.keys())
    spread = [float(np.sqrt((e**2).mean())) if len(e) else np.nan for e in (error, extra, missed)]
    return [hits / len(true), hits / len(found), *spread, 0.5 * float(np.abs(error).sum()), len(found)]


def run(nodes: int, rows: int, seed: int, methods: list[str]) -> dict[str, list[float]]:
    """Scores of every method on one data set; rows = 0 means exact probabilities."""
    rng = np.random.default_rng([nodes, VALUES, rows, seed])
    mixture = random_mixture(nodes, VALUES, rng)
    network, data = mixture.network, mixture.population() if rows == 0 else mixture.draw(rows, rng)
    if rows:
        network = learn(network, *mixture.draw_base(rows, rng))
    out = {}
    for method in methods:
        begun = time.perf_counter()
        answer = unmix(network, *data, method)  # type: ignore[arg-type]
        took = time.perf_counter() - begun
        support = answer.support
        out[method] = [*scores(support.targets, support.weight, mixture), took]
        if rows and method != "lifting":
            keep = answer.selected
            chosen = scores(support.targets[keep], answer.selected_weight[keep], mixture)
            out["selected"] = [*chosen, took]
            out["false alarm"] = [float(answer.misfit.p_value < 0.05)]
    return out


def table(nodes: int, rows: int, options: argparse.Namespace) -> dict[str, Array]:
    """Print one row per method: means over runs, standard error of recall in parentheses."""
    runs = [run(nodes, rows, seed, options.methods) for seed in range(options.runs)]
    means = {}
    for method in runs[0]:
        values = np.array([r[method] for r in runs])
        if method == "false alarm":
            print(f"{nodes:3d} {rows:8d}  misfit flagged in {values.mean():.1%}", flush=True)
            continue
        filled = np.ma.masked_invalid(values).mean(axis=0).filled(0.0)
        means[method] = filled
        se = values[:, 0].std() / np.sqrt(len(values))
        paper = PAPER.get(nodes, ())
        place = int(np.log2(rows)) - 4 if rows else -1
        beside = f"  paper {paper[place]:.2f}" if 0 <= place < len(paper) and method == "lifting" else ""
        print(
            f"{nodes:3d} {rows:8d} {method:9s} "
            + f"{filled[0]:.3f} ({se:.3f}) "
            + " ".join(f"{v:9.4f}" for v in filled[1:6])
            + f" {filled[6]:7.1f} {filled[7]:7.2f} s{beside}",
            flush=True,
        )
    return means


def covered(nodes: int, rows: int, seed: int) -> list[float]:
    """Coverage of one data set's intervals, nan where there is nothing to cover."""
    rng = np.random.default_rng([nodes, VALUES, rows, seed])
    mixture = random_mixture(nodes, VALUES, rng)
    data, base = mixture.draw(rows, rng), mixture.draw_base(rows, rng)
    network = learn(mixture.network, *base)
    answer = unmix(network, *data, "polished")
    drawn = weight_replicates(answer, network, *data, base, "polished", REPLICATES, rng)
    ends = percentile_interval(drawn, 0.9).T
    true = dict(zip(map(tuple, mixture.targets.tolist()), mixture.weight, strict=True))
    found = list(map(tuple, answer.support.targets.tolist()))
    held = {t: low <= true.get(t, 0.0) <= high for t, (low, high) in zip(found, ends, strict=True)}
    chosen = [t for t, kept in zip(found, answer.selected, strict=True) if kept]
    given = unmix(network, *data, "polished", candidates=mixture.targets)
    ends = percentile_interval(
        weight_replicates(given, network, *data, base, "polished", REPLICATES, rng), 0.9
    )
    listed = (ends[0] <= mixture.weight) & (mixture.weight <= ends[1])
    groups = [
        [held.get(t, False) for t in true],
        [held[t] for t in true if t in held],
        [held.get(t, False) for t, weight in true.items() if weight > 0.05],
        list(held.values()),
        [held[t] for t in chosen],
        listed.tolist(),
    ]
    return [float(np.mean(group)) if group else np.nan for group in groups]


def coverage(options: argparse.Namespace) -> None:
    """Print one row per number of rows."""
    print(
        "  n     rows  "
        + "  ".join(f"{name:13s}" for name in ("true", "found", "large", "reported", "selected", "given"))
    )
    for rows in options.rows:
        seeds = range(options.first, options.first + options.runs)
        values = np.array([covered(options.nodes, rows, seed) for seed in seeds])
        se = np.nanstd(values, axis=0) / np.sqrt(np.isfinite(values).sum(axis=0))
        said = [f"{m:.3f} ({s:.3f})" for m, s in zip(np.nanmean(values, axis=0), se, strict=True)]
        print(f"{options.nodes:3d} {rows:8d}  " + "  ".join(said), flush=True)


def draw(curves: dict[int, dict[str, Array]], nodes: int, path: str) -> None:
    """Redraw the paper's figure: recall and precision against the number of rows."""
    methods, rows = list(curves[min(curves)]), sorted(curves)
    published = dict(zip([2**k for k in range(4, 21)], PAPER.get(nodes, []), strict=False))
    panels = {}
    for column in (0, 1):
        own = [[curves[m][method][column] for m in rows] for method in methods]
        paper = [published.get(m, np.nan) if column == 0 else np.nan for m in rows]
        panels[COLUMNS[column]] = (("line", "rows"), np.array([*own, paper], dtype=float))
    found = xr.Dataset(panels, {"line": [*methods, "paper"], "rows": rows})
    found["rows"].attrs["scale"] = "log"
    plot_curves(found).savefig(path, dpi=150)


def main(argv: list[str] | None = None) -> int:
    """Run the simulation and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--rows", type=int, nargs="+", default=[1024, 16384], help="0: exact probabilities")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--methods", nargs="+", default=["polished", "lifting"])
    parser.add_argument("--figure", help="file to draw recall and precision into")
    parser.add_argument("--part", nargs="+", default=["targets"], choices=["targets", "coverage"])
    parser.add_argument("--first", type=int, default=0, help="first seed of the coverage")
    options = parser.parse_args(argv)
    if "coverage" in options.part:
        coverage(options)
    if "targets" not in options.part:
        return 0
    print(
        "  n     rows method    recall      precision      rmse   fp_rmse   fn_rmse  distance   found    time"
    )
    curves = {rows: table(options.nodes, rows, options) for rows in options.rows}
    if options.figure:
        draw(curves, options.nodes, options.figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
