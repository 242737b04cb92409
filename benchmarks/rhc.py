"""Right heart catheterisation: proximal estimates with 68 covariates, by every form of the bridge.

Run: uv run python benchmarks/rhc.py FOLDER [--replicates 1000] [--figure splits.png]

FOLDER holds rhc.parquet and rhc_covariates.parquet (Connors et al. 1996, the public teaching file: 5,735
patients; outcome: days to death, at most 30). Treatment side: pafi1, paco21; outcome side: ph1, hema1.
"""

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import pymc_mte as mte
from pymc_mte.identify.splits import as_table, split_lines
from pymc_mte.moments.proximal import doubly_robust, outcome_bridge, treatment_bridge
from pymc_mte.moments.splits import list_splits, split_effects
from pymc_mte.moments.twostage import TwoStageResult, two_stage
from pymc_mte.moments.weakproxy import anderson_rubin_set
from pymc_mte.plots.splits import plot_role_splits

Array = NDArray[np.float64]
Z, X = ["pafi1", "paco21"], ["ph1", "hema1"]
PUBLISHED = -1.66
NOT_COVARIATES = ["RHC", "survival", "t3d30", "dth30", "t_death", "death", *Z, *X]


def public_api(console: Console, frame: pd.DataFrame, replicates: int) -> None:
    """Print what `estimate` and `identify` say to a model with 68 covariates."""
    names = [name for name in frame.columns if name not in NOT_COVARIATES]
    variables = {name: {"family": "normal"} for name in [*Z, *X, "t3d30"]}
    model = mte.CausalModel(
        classes=2,
        variables=variables | {"RHC": {"family": "bernoulli"}},
        treatment="RHC",
        outcome="t3d30",
        treatment_proxies=Z,
        outcome_proxies=X,
        covariates=names,
    )
    table = Table(
        "estimate(method='bridge', bridge=...)", "ATE", "sandwich SE", "bootstrap SE", "90% interval", "s"
    )
    for bridge in ("two-stage", "outcome", "both"):
        start = time.perf_counter()
        found = mte.estimate(model, frame, bridge=bridge, n_boot=replicates // 4 * 4)
        point = found["estimate"]
        low, high = np.quantile(found["posterior"]["ate"], [0.05, 0.95])
        table.add_row(
            bridge,
            f"{float(point['ate']):.3f}",
            f"{float(point['se_delta_ate']):.3f}",
            f"{float(point['se_ate']):.3f}",
            f"{low:.2f}, {high:.2f}",
            f"{time.perf_counter() - start:.0f}",
        )
    console.print(table)
    console.print(str(mte.identify(model, frame, splits="two-stage")))


def bootstrap(y: Array, arm: Array, z: Array, x: Array, c: Array, n: int) -> Array:
    """Row bootstrap of two-stage least squares with as many proxies on both sides: (n,)."""
    rng = np.random.default_rng(1)
    given = np.column_stack([np.ones(len(y)), c])
    inner, outer = np.column_stack([arm, x, given]), np.column_stack([arm, z, given])
    out = np.full(n, np.nan)
    for i in range(n):
        rows = rng.integers(0, len(y), len(y))
        one, two = inner[rows], outer[rows]
        m = two.T @ one
        keep = np.ptp(one, axis=0) > 0  # a rare covariate may be constant in a resample
        keep[1 + x.shape[1]] = True
        out[i] = np.linalg.solve(m[np.ix_(keep, keep)], two[:, keep].T @ y[rows])[0]
    return out


def standardise(frame: pd.DataFrame) -> Array:
    """Columns of mean 0 and variance 1."""
    values = frame.to_numpy(dtype=float)
    return np.asarray((values - values.mean(axis=0)) / values.std(axis=0))


def strength(console: Console, found: TwoStageResult) -> None:
    """Print the canonical correlations and name the directions that are not supported."""
    table = Table("given covariates", "rows", "correlation 1 (p)", "correlation 2 (p)", "supported")
    for item in found.directions:
        cells = [f"{r:.3f} ({p:.2g})" for r, p in zip(item.correlation, item.p_value, strict=True)]
        names = []
        for i in item.unsupported:
            outward = item.x[:, i] / np.abs(item.x[:, i]).max()
            names.append(
                f"direction {i + 1} not: "
                + " ".join(f"{w:+.2f} {n}" for w, n in zip(outward, X, strict=True))
            )
        where = "both arms" if item.arm is None else f"arm {item.arm:g}"
        table.add_row(where, f"{item.n:g}", *cells, "; ".join(names) or "both")
    console.print(table)
    console.print("Weights of an unsupported direction are per standard deviation.\n")


def roles(console: Console, y: Array, arm: Array, z: Array, x: Array, c: Array, figure: Path | None) -> None:
    """Print how far the answer moves with the roles of the proxies; draw it if asked."""
    proxies = dict(zip([*Z, *X], [*z.T, *x.T], strict=True))
    splits, _ = list_splits(Z, X)
    tables = {
        f"{form}, {said}": as_table(
            split_effects(y, arm, proxies, splits, given, rank=rank, form=form), "1 - 0"
        )
        for form, said, given, rank in (
            ("two-stage", "covariates, all directions", c, None),
            ("bridge", "covariates, two classes", c, 2),
            ("bridge", "no covariates, two classes", None, 2),
        )
    }
    for name, found in tables.items():
        shown = Table("treatment side", "outcome side", "effect", "SE", "weakest correlation (p)", title=name)
        for row in found.itertuples():
            strength = f"{row.correlation:.3f} ({row.p:.2g})"
            shown.add_row(row.treatment_side, row.outcome_side, f"{row.ate:.2f}", f"{row.se:.2f}", strength)
        console.print(shown)
        console.print("\n".join(split_lines(found)) + "\n")
    if figure is not None:
        plot_role_splits(next(iter(tables.values()))).savefig(figure, dpi=130)


def main() -> None:
    """Print estimates, first-stage strength and the note on the doubly robust answer."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--replicates", type=int, default=1_000)
    parser.add_argument("--public", action="store_true", help="through `estimate` and `identify` instead")
    parser.add_argument("--figure", type=Path, help="where to draw the role splits")
    options = parser.parse_args()
    console = Console()
    outcomes = pd.read_parquet(options.folder / "rhc.parquet")
    frame = pd.read_parquet(options.folder / "rhc_covariates.parquet")
    if options.public:
        public_api(console, frame.assign(t3d30=outcomes["t3d30"].to_numpy()), options.replicates)
        return
    y = outcomes["t3d30"].to_numpy(dtype=float)
    arm = frame["RHC"].to_numpy().astype(np.int64)
    z, x = standardise(frame[Z]), standardise(frame[X])
    c = standardise(frame.drop(columns=NOT_COVARIATES, errors="ignore"))
    console.print(f"{len(y)} patients, {c.shape[1]} covariates; effects in days of survival, at most 30\n")
    table = Table("estimate", "effect", "SE", "90% interval", "remark")

    def add(name: str, effect: float, se: float, remark: str = "") -> None:
        table.add_row(
            name,
            f"{effect:.3f}",
            f"{se:.3f}",
            f"{effect - 1.645 * se:.2f}, {effect + 1.645 * se:.2f}" if np.isfinite(se) else "",
            remark,
        )

    full, one = two_stage(y, arm, x, z, c), two_stage(y, arm, x, z, c, rank=1)
    add("ordinary regression", full.ordinary[0], full.se_ordinary[0])
    add("two-stage, sandwich", full.effect[0], full.se[0], "trusts an unsupported direction")
    draws = bootstrap(y, arm, z, x, c, options.replicates)
    low, high = np.quantile(draws, [0.05, 0.95])
    outer_low, outer_high = np.quantile(draws, [0.025, 0.975])
    remark = f"95%: {outer_low:.2f}, {outer_high:.2f}; {options.replicates} replicates"
    table.add_row(
        "two-stage, row bootstrap",
        f"{full.effect[0]:.3f}",
        f"{draws.std():.3g}",
        f"{low:.2f}, {high:.2f}",
        remark,
    )
    add("two-stage, one direction", one.effect[0], one.se[0])
    ones = np.ones((len(y), 1))
    features = (y, arm, np.column_stack([ones, z]), np.column_stack([ones, x]))
    for rank, label in ((None, "both directions"), (2, "one direction")):
        add(f"outcome bridge per arm, {label}", *outcome_bridge(*features, c, rank=rank).contrast(1))
        for link in ("linear", "logistic"):
            for name, method in (("treatment bridge", treatment_bridge), ("doubly robust", doubly_robust)):
                found = method(*features, c, rank=rank, link=link)
                unsolved = (
                    f"no solution, {found.unsolved.max():.2g} SD short" if found.unsolved.max() > 1e-6 else ""
                )
                add(f"{name}, {link}, {label}", *found.contrast(1), unsolved)
        add(f"outcome bridge without covariates, {label}", *outcome_bridge(*features, rank=rank).contrast(1))
    console.print(table)
    strength(console, full)
    roles(console, y, arm, z, x, c, options.figure)
    console.print("Weak-proxy-robust 90% sets, two classes, no covariates, one proxy a side:")
    for i, j in itertools.product(range(2), range(2)):
        robust = anderson_rubin_set(y, arm, z[:, i], x[:, j])
        text = " or ".join(f"{a:.2f} to {b:.2f}" for a, b in robust.intervals) or "empty"
        console.print(f"  {Z[i]} and {X[j]}: {text}")
    joint = anderson_rubin_set(y, arm, z, x @ np.linalg.eigh(np.cov(x.T))[1][:, -1])
    text = " or ".join(f"{a:.2f} to {b:.2f}" for a, b in joint.intervals) or "empty, these moments reject it"
    console.print(f"  both of {', '.join(Z)} and the first component of {', '.join(X)}: {text}\n")
    console.print(
        f"Published doubly robust answer: {PUBLISHED}. The linear bridges coincide, and with both directions "
        "they use the second one, which an arm does not support; on it the positive treatment bridge has no "
        "solution in that arm, so the published form is not reproduced. With one direction every form has "
        "an answer, nearer to the ordinary regression. The published number lies between the two groups."
    )


if __name__ == "__main__":
    main()
