"""Power and size of the tests of assumptions, one forbidden edge at a time.

Run: uv run python benchmarks/assumptions.py [--runs 1000] [--rows 20000]

A forbidden edge shifts its child by 0.5 per SD of the parent: in log-odds, or in SDs of a normal child. Three
designs of two classes, with the proxies on the treatment side driving the treatment: one binary proxy a
side; two a side; two a side and a normal outcome. A fourth is the mirror design of the literature, where Y(1)
has the law of 1 - Y(0). "theory" is the power that the population moments give by the noncentral chi-squared
law; a test is held to 80% where theory gives 85% or more.
"""

import argparse
import itertools
import sys
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from pymc_mte import CausalModel
from pymc_mte.moments.bootstrap import Sampling
from pymc_mte.moments.edges import edge_tests
from pymc_mte.moments.likelihood import climb
from pymc_mte.moments.overid import (
    ChiSquare,
    common_span,
    commuting,
    hansen_j,
    outcome_span,
    proxy_rank,
)
from pymc_mte.moments.problem import Problem, make_problem
from pymc_mte.moments.rank import measure_ranks
from pymc_mte.moments.rank_report import rank_notes
from pymc_mte.status import Status

Array = NDArray[np.float64]
STRENGTH, LEVEL, HELD, WANTED = 0.5, 0.05, 0.85, 0.80
SIZE = (0.03, 0.07)
EDGES = ("", "x -> y", "z -> y", "t -> x", "z -> x")
PATTERNS = {"alike": (1.0, 1.0), "arm 1": (0.0, 1.0), "sign": (-1.0, 1.0)}
MATCHING = {
    "x -> y": ("span of N, arm 0", "span of N, arm 1", "commute", "score x -> y"),
    "z -> y": ("J, arm 0", "J, arm 1", "commute", "score z -> y"),
    "t -> x": ("span over arms", "score t -> x"),
    "z -> x": ("rank, arm 0", "rank, arm 1", "score z -> x"),
    "": (),
}


@dataclass(frozen=True)
class Design:
    """Two classes, equal in size; the last proxies of both sides carry the forbidden edges."""

    name: str
    z: tuple[tuple[float, float], ...]  # P(proxy = 1 | class)
    x: tuple[tuple[float, float], ...]
    t: tuple[float, float]  # P(T=1 | class) at z = 0; each z adds 0.6 to the log-odds
    y: tuple[tuple[float, float], tuple[float, float]]  # P(Y=1) or mean, rows t, columns class
    normal: bool = False
    drive: float = 0.6

    @property
    def model(self) -> CausalModel:
        """The graph without any forbidden edge."""
        z, x = ([f"{s}{i}" for i in range(len(p))] for s, p in (("z", self.z), ("x", self.x)))
        binary = {"family": "bernoulli"}
        variables = dict.fromkeys((*z, *x), binary) | {"t": {**binary, "parents": z}}
        variables["y"] = {"family": "normal" if self.normal else "bernoulli", "parents": ["t"]}
        return CausalModel(
            classes=2,
            variables=variables,
            treatment="t",
            outcome="y",
            treatment_proxies=z,
            outcome_proxies=x,
        )

    def cells(self, edge: str, pattern: tuple[float, float]) -> tuple[NDArray[np.int64], Array, Array]:
        """Cells (u, z.., x.., t), their probabilities, and the outcome's probability or mean."""
        nz, nx = len(self.z), len(self.x)
        grid = np.array(list(itertools.product((0, 1), repeat=2 + nz + nx)))
        u, z, x, t = grid[:, 0], grid[:, 1 : 1 + nz], grid[:, 1 + nz : -1], grid[:, -1]
        rows = np.arange(len(grid))
        p = np.full(len(grid), 0.5)
        for j, table in enumerate(self.z):
            p *= _bernoulli(z[:, j], np.array(table)[u])
        treated = special.expit(special.logit(np.array(self.t)[u]) + self.drive * z.sum(axis=1))
        p *= _bernoulli(t, treated)
        parent = {"": 0.0 * rows, "x": x[:, -1], "z": z[:, -1], "t": t}[edge[:1]]
        sd = 1.0 if not edge else 0.5  # of the parent, to two digits in all designs
        shift = STRENGTH * np.array(pattern)[t] * (parent - 0.5) / sd
        for j, table in enumerate(self.x):
            logit = special.logit(np.array(table)[u])
            if edge.endswith("> x") and j == nx - 1:
                logit = logit + STRENGTH * (parent - 0.5) / sd
            p *= _bernoulli(x[:, j], special.expit(logit))
        y = np.array(self.y)[t, u]
        moved = shift if edge.endswith("> y") else 0.0
        return grid, p, y + moved if self.normal else special.expit(special.logit(y) + moved)


PAIR = ((0.25, 0.75), (0.3, 0.7))
MEAN = ((0.2, 0.5), (0.5, 0.9))
DESIGNS = (
    Design("one proxy a side", ((0.2, 0.8),), ((0.2, 0.8),), (0.35, 0.55), MEAN),
    Design("two proxies a side", PAIR, PAIR, (0.35, 0.5), MEAN),
    Design("two proxies, normal outcome", PAIR, PAIR, (0.35, 0.5), ((0.0, 1.0), (1.5, 4.0)), normal=True),
    Design(
        "mirror", ((0.25, 0.75),), ((0.25, 0.75),), (0.5, 0.5), ((0.875, 0.125), (0.125, 0.875)), drive=0.0
    ),
)


def _bernoulli(value: Array, one: Array) -> Array:
    return np.asarray(np.where(value == 1, one, 1 - one))


def _columns(design: Design, grid: NDArray[np.int64], y: Array) -> dict[str, Array]:
    names = [n for n in design.model.variables if n != "y"]
    return dict(zip(names, grid[:, 1:].T, strict=True)) | {"y": y}


def moment_tests(problem: Problem, counts: Array) -> dict[str, ChiSquare]:
    """Every test of moments that has degrees of freedom."""
    per_arm = {"J": hansen_j, "rank": proxy_rank, "span of N": outcome_span}
    found = {f"{n}, arm {t}": f(problem, counts, t) for n, f in per_arm.items() for t in (0, 1)}
    found |= {"span over arms": common_span(problem, counts, "x"), "commute": commuting(problem, counts)}
    return {name: test for name, test in found.items() if test.df.max() > 0}


def score_tests(problem: Problem, counts: Array) -> dict[str, ChiSquare]:
    """Score tests of every run, each at its own maximum-likelihood estimate."""
    fitted = climb(problem, counts, n_random=1, tolerance=1e-10)[0].parameters
    rows = []
    for i, row in enumerate(counts):
        own = replace(problem, counts=row, sampling=Sampling(counts=row))
        rows.append(edge_tests(own, {n: v[i : i + 1] for n, v in fitted.items()}))
    out = {}
    for tests in zip(*rows, strict=True):
        (parent, child) = tests[0].edges[0]
        out[f"score {parent[0]} -> {child[0]}"] = ChiSquare(
            statistic=np.array([t.statistic for t in tests]), df=np.array([t.df for t in tests])
        )
    return out


def discrete(
    design: Design,
    edge: str,
    pattern: tuple[float, float],
    options: argparse.Namespace,
    rng: np.random.Generator,
) -> tuple[dict[str, ChiSquare], dict[str, ChiSquare]]:
    """Run the tests on all samples, and on the population times the number of rows."""
    grid, p, one = design.cells(edge, pattern)
    half = len(grid) // 2  # the class is the first digit: sum it out
    table = np.stack([p * (1 - one), p * one]).reshape(2, 2, half).sum(axis=1).ravel()
    columns = _columns(design, np.tile(grid[:half], (2, 1)), np.repeat([0, 1], half))
    problem = make_problem(design.model, columns, table * options.rows)
    samples = rng.multinomial(options.rows, table / table.sum(), size=options.runs).astype(float)
    both = [samples, problem.counts[None]]
    sampled, exact = (moment_tests(problem, c) | score_tests(problem, c) for c in both)
    return sampled, exact


def normal(
    design: Design,
    edge: str,
    pattern: tuple[float, float],
    options: argparse.Namespace,
    rng: np.random.Generator,
) -> tuple[dict[str, ChiSquare], dict[str, ChiSquare]]:
    """Do the same with a normal outcome of variance 1.

    The tests are linear in the outcome and their covariances quadratic, so that two points with the mean
    and variance of a cell's rows stand for all of them: a sample is drawn by its cells' counts, means and
    variances.
    """
    grid, p, mean = design.cells(edge, pattern)

    def tests(counts: Array, means: Array, variances: Array) -> dict[str, ChiSquare]:
        y = np.concatenate([means - np.sqrt(variances), means + np.sqrt(variances)])
        weights = np.tile(counts / 2, 2)
        problem = make_problem(design.model, _columns(design, np.tile(grid, (2, 1)), y), weights)
        return moment_tests(problem, weights[None])

    runs = []
    for _ in range(options.runs):
        counts = rng.multinomial(options.rows, p).astype(float)
        some = np.maximum(counts, 1)
        spread = rng.chisquare(np.maximum(counts - 1, 1e-9)) / some
        runs.append(tests(counts, mean + rng.normal(size=len(p)) / np.sqrt(some), spread))
    sampled = {
        name: ChiSquare(
            statistic=np.concatenate([r[name].statistic for r in runs]),
            df=np.concatenate([r[name].df for r in runs]),
        )
        for name in runs[0]
    }
    return sampled, tests(p * options.rows, mean, np.ones(len(p)))


def theory(test: ChiSquare) -> float:
    """Power at the 5% point by the population's noncentrality."""
    df = int(test.df[0])
    if df == 0:
        return LEVEL
    return float(stats.ncx2.sf(stats.chi2.isf(LEVEL, df), df, max(float(test.statistic[0]), 1e-12)))


def many_proxies(options: argparse.Namespace, rng: np.random.Generator) -> None:
    """Sizes with many moderate proxies, where directions are hard to estimate.

    The limit from which tests are withheld was chosen on P = .4 and .6 by class, equal in size; the other
    designs were not looked at before. Printed, and marked above 7%: in small samples the tests promise less.
    """
    for (share, low, high), d, n in (
        *itertools.product([(0.5, 0.4, 0.6)], (5, 10), (3_000, 10_000)),
        *itertools.product([(0.3, 0.35, 0.6)], (4, 7), (2_000, 8_000)),
    ):
        side = ((low, high),) * d
        model = Design("", side, side, (low, high), MEAN).model
        found: dict[str, list[float]] = {}
        for _ in range(options.runs):
            u = rng.binomial(1, share, n)
            columns = {v: rng.binomial(1, np.where(u == 1, high, low)) for v in model.variables if v != "y"}
            columns["y"] = rng.binomial(1, np.array(MEAN)[columns["t"], u])
            problem = make_problem(model, columns, np.ones(n))
            if measure_ranks(problem, 0, rng).supported < 2:
                continue
            for name, test in moment_tests(problem, problem.counts[None]).items():
                found.setdefault(name, []).append(float(test.p_value[0]))
        cells = []
        for name, values in found.items():
            p = np.array(values)[np.isfinite(values)]
            rate, tested = float((p < LEVEL).mean()), len(p) / len(values)
            said = f" (tested {tested:.0%})" * (tested < 1) + " ABOVE" * (rate > SIZE[1])
            cells.append(f"{name} {rate:.3f}{said}")
        print(f"{d} proxies a side, P {low} and {high}, n = {n:,}: " + "; ".join(cells), flush=True)


def alarms(options: argparse.Namespace, rng: np.random.Generator) -> bool:
    """Share of samples with the weak-proxy alarm, for weak and strong proxies."""
    from weak_proxies import CELLS, design

    model = DESIGNS[0].model
    fine = True
    for strength, low, high in ((0.02, 0.95, 1.0), (0.4, 0.0, 0.05)):
        p = design(strength, "z")
        columns = dict(zip(("z0", "x0", "t", "y"), CELLS.T, strict=True))
        problem = make_problem(model, columns, p * 2_000)
        hits = 0
        for row in rng.multinomial(2_000, p, size=options.runs).astype(float):
            own = replace(problem, counts=row, sampling=Sampling(counts=row))
            notes = rank_notes(own, measure_ranks(own, 200, rng))
            hits += any(n.status is Status.WEAK_PROXIES for n in notes)
        share = hits / options.runs
        fine &= low <= share <= high
        print(
            f"correlation {strength}, n = 2,000: weak-proxy alarm {share:.1%}, wanted {low:.0%} to {high:.0%}"
        )
    return fine


def main() -> int:
    """Print rejection rates; exit with 1 if a size or a power misses."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=4)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    print(
        f"{options.runs} runs of {options.rows} rows; rejections at 5%, theory in brackets; * matching test"
    )
    failed = []
    for design in DESIGNS:
        print(f"\n{design.name}")
        for edge, (label, pattern) in itertools.product(EDGES, PATTERNS.items()):
            if not edge.endswith("> y") and label != "alike":
                continue
            sampled, exact = (normal if design.normal else discrete)(design, edge, pattern, options, rng)
            cells = []
            for name, test in sampled.items():
                rate, power = float((test.p_value < LEVEL).mean()), theory(exact[name])
                matching = name in MATCHING[edge]
                miss = (not edge and not SIZE[0] <= rate <= SIZE[1]) or (
                    matching and power >= HELD and rate < WANTED
                )
                failed += [(design.name, edge, label, name, rate)] if miss else []
                said = "no power" if edge and power < 0.2 else f"{power:.2f}"
                cells.append(f"{name}{'*' * matching} {rate:.3f} [{said}]{' MISS' * miss}")
            what = f"{edge} ({label})" if edge.endswith("> y") else edge or "no forbidden edge"
            print(f"  {what:20} " + "; ".join(cells), flush=True)
    fine = alarms(options, rng)
    many_proxies(options, rng)
    print("missed: " + (", ".join(map(str, failed)) or "nothing"))
    return int(bool(failed) or not fine)


if __name__ == "__main__":
    sys.exit(main())
