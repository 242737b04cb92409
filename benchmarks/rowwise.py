"""Posteriors that need every row: covariates, missing values; against a hand-written row-wise model.

Run: uv run python benchmarks/rowwise.py rhc|large|survey|missing [--data FILE] [--draws 1000] [--hand]

rhc: 5,735 rows, 4 continuous proxies, 68 covariates in class membership, treatment and outcome, 2 classes,
4 chains; simulated, or the table in FILE (Parquet; columns RHC, t3d30, pafi1, paco21, ph1, hema1, the rest
covariates). --hand adds the model that one would write by hand, sampled by nutpie as well.
large: 100,000 rows, 10 covariates. survey: 30 columns, 50,000 rows, 5% of the cells missing, 4 classes.
missing: 20% missing at random in two proxies; bias of the average effect, complete cases beside.
"""

import argparse
import os
import resource
import time
from typing import Any

import arviz as az
import numpy as np
import nutpie
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import xarray as xr
from numpy.typing import NDArray

import pymc_mte as mte
from pymc_mte.bayes.gradient import compile_density
from pymc_mte.bayes.prepare import prepare
from pymc_mte.bayes.samplers import run_sampler
from pymc_mte.data import resolve
from pymc_mte.functionals import functionals
from pymc_mte.moments.em import em
from pymc_mte.network import draw_rows
from pymc_mte.regression import draw_given

Array = NDArray[np.float64]
PROXIES = ["pafi1", "paco21", "ph1", "hema1"]
NOT_COVARIATES = ["RHC", "survival", "t3d30", "dth30", "t_death", "death", *PROXIES]


def patient_model(covariates: list[str]) -> mte.CausalModel:
    """Two classes, four continuous proxies, covariates in class membership, treatment and outcome."""
    return mte.CausalModel(
        classes=2,
        variables={name: {"family": "normal"} for name in [*PROXIES, "t3d30"]}
        | {"RHC": {"family": "bernoulli"}},
        treatment="RHC",
        outcome="t3d30",
        treatment_proxies=PROXIES[:2],
        outcome_proxies=PROXIES[2:],
        covariates=covariates,
    )


def simulated_patients(n: int, p: int, seed: int = 1) -> pd.DataFrame:
    """Rows with ``p`` correlated covariates, half of them binary."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(n, 5)) @ rng.normal(size=(5, p))
    raw = (factors + 2 * rng.normal(size=(n, p))) / 3
    raw[:, ::2] = raw[:, ::2] > rng.normal(size=(p + 1) // 2)
    names = [f"c{i}" for i in range(p)]
    model = patient_model(names)
    given = raw - raw.mean(axis=0)
    slope = lambda size: rng.normal(0, size / np.sqrt(p), p)  # noqa: E731
    parameters = {
        "baseline_weight": np.array([0.4, 0.6]),
        "p_RHC": np.array([[0.7, 0.3], [0.5, 0.5]]),
        "mean_t3d30": np.array([[22.0, 19.0], [27.0, 26.0]]),
        "sd_t3d30": np.array([8.0, 5.0]),
        "coef_RHC": slope(1.0),
        "coef_t3d30": slope(4.0),
    }
    half = slope(0.7)
    parameters["coef_class"] = np.stack([half, -half])
    for i, name in enumerate(PROXIES):
        parameters |= {f"mean_{name}": np.array([-0.8, 0.8]), f"sd_{name}": np.array([1.0, 0.8 + 0.1 * i])}
    _, columns = draw_given(model, parameters, given, n, rng)
    return pd.DataFrame({**columns, **dict(zip(names, raw.T, strict=True))})


def used(since: float = 0.0) -> float:
    """CPU seconds of this process, all threads."""
    return time.process_time() - since


def peak() -> float:
    """Largest resident memory so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def ours(model: mte.CausalModel, frame: Any, draws: int, chains: int = 4) -> xr.Dataset:
    """Sample and print where the time goes."""
    wall, cpu = time.perf_counter(), used()
    tree = mte.sample(model, frame, draws=draws, chains=chains, progressbar=False)
    wall, cpu = time.perf_counter() - wall, used(cpu)
    found = tree["posterior"].to_dataset()
    names = [n for n in found if np.ptp(found[n].values) > 0 and n != "weight_harmed"]
    rhat, ess = az.rhat(found[names]), az.ess(found[names])
    steps = float(tree["sample_stats"]["n_steps"].mean())
    print(
        f"sample(): {wall:.0f} s, {cpu:.0f} CPU s, worst R-hat "
        f"{max(float(rhat[n].max()) for n in names):.4f}, smallest ESS "
        f"{min(float(ess[n].min()) for n in names):.0f}, {steps:.1f} gradients per draw, peak {peak():.2f} GB"
    )
    print(f"ATE {float(found['ate'].mean()):.3f} ({float(found['ate'].std()):.3f})")
    return found


def phases(model: mte.CausalModel, frame: Any, draws: int) -> None:
    """Print the time of preparation and of sampling, and that of one gradient."""
    resolved, table = resolve(model, frame)
    wall = time.perf_counter()
    ready = prepare(resolved, table, start=None, priors=None, chains=4, seed=0)
    print(f"starts and model: {time.perf_counter() - wall:.1f} s")
    gradient_time("ours", ready.built, ready.starts[0])
    wall, cpu = time.perf_counter(), used()
    options = {"draws": draws, "tune": 500, "target_accept": 0.9, "progressbar": False}
    run_sampler(ready, "nutpie", 0, options | {"cores": os.cpu_count() or 1})
    print(f"compiling and sampling: {time.perf_counter() - wall:.1f} s, {used(cpu):.1f} CPU s")


def gradient_time(label: str, built: pm.Model, point: dict[str, Array]) -> None:
    """Print CPU milliseconds per log-density with gradient, compiled as `sample` compiles it."""
    density = compile_density(built, point)
    x = density.maps.unconstrain(point)
    best = np.inf
    for _ in range(5):
        cpu = used()
        for _ in range(20):
            density(x)
        best = min(best, used(cpu) / 20)
    print(f"{label}: {len(x)} parameters, {1e3 * best:.2f} ms per gradient")


def hand_written(frame: pd.DataFrame, names: list[str]) -> pm.Model:
    """Write the same likelihood down row by row, on standardised covariates."""
    x = frame[names].to_numpy(dtype=float)
    x = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
    y, t = frame["t3d30"].to_numpy(dtype=float), frame["RHC"].to_numpy(dtype=int)
    with pm.Model() as model:
        a_class, b_class = pm.Normal("a_class", 0, 1.5), pm.Normal("b_class", 0, 0.3, shape=x.shape[1])
        a_t, b_t = pm.Normal("a_t", 0, 1.5, shape=2), pm.Normal("b_t", 0, 0.3, shape=x.shape[1])
        mean = pm.Normal("mean", y.mean(), 2.5 * y.std(), shape=(2, 2))
        b_y, sd = pm.Normal("b_y", 0, y.std(), shape=x.shape[1]), pm.HalfNormal("sd", 2.5 * y.std(), shape=2)
        odds, log_p = a_class + x @ b_class, []
        for u in range(2):
            part = -pt.softplus(-odds if u else odds)
            for name in PROXIES:
                z = frame[name].to_numpy(dtype=float)
                own = pm.Normal.dist(
                    pm.Normal(f"m_{name}_{u}", z.mean(), 2.5 * z.std()),
                    pm.HalfNormal(f"s_{name}_{u}", 2.5 * z.std()),
                )
                part = part + pm.logp(own, z)
            part = part + pm.logp(pm.Bernoulli.dist(logit_p=a_t[u] + x @ b_t), t)
            part = part + pm.logp(pm.Normal.dist(mean[u][t] + x @ b_y, sd[u]), y)
            log_p.append(part)
        pm.Potential("rows", pm.math.logsumexp(pt.stack(log_p), axis=0).sum())
    return model


def rhc(path: str | None, draws: int, hand: bool) -> None:
    """Time the RHC-size job, ours and by hand."""
    frame = simulated_patients(5_735, 68) if path is None else pd.read_parquet(path)
    names = [name for name in frame.columns if name not in NOT_COVARIATES]
    model = patient_model(names)
    print(f"{len(frame):,} rows, {len(names)} covariates")
    phases(model, frame, draws)
    ours(model, frame, draws)
    if not hand:
        return
    built = hand_written(frame, names)
    drawn = pm.draw(built.free_RVs, random_seed=1, mode="FAST_COMPILE")
    gradient_time("by hand", built, {v.name: x for v, x in zip(built.free_RVs, drawn, strict=True)})
    wall, cpu = time.perf_counter(), used()
    with built:
        compiled = nutpie.compile_pymc_model(built)
        tree = nutpie.sample(
            compiled,
            draws=draws,
            tune=500,
            chains=4,
            cores=os.cpu_count(),
            target_accept=0.9,
            progress_bar=False,
        )
    steps = float(tree["sample_stats"]["n_steps"].mean())
    found = tree["posterior"].to_dataset()[["b_t", "b_y"]]
    print(
        f"by hand: {time.perf_counter() - wall:.0f} s, {used(cpu):.0f} CPU s, {steps:.1f} gradients a draw, "
        f"R-hat of coefficients {max(float(az.rhat(found)[n].max()) for n in found):.3f}"
    )


def large(draws: int) -> None:
    """Memory and time at 100,000 rows with 10 covariates."""
    frame = simulated_patients(100_000, 10)
    ours(patient_model([f"c{i}" for i in range(10)]), frame, draws)


def survey_rows(
    n: int, columns: int, classes: int, seed: int = 1
) -> tuple[mte.CausalModel, dict[str, Array]]:
    """Binary and three-level answers of several classes, 5% of the cells missing."""
    rng = np.random.default_rng(seed)
    three = {"family": "categorical", "levels": [0, 1, 2]}
    variables = {f"q{i}": three if i % 3 == 0 else {"family": "bernoulli"} for i in range(columns)}
    model = mte.CausalModel(classes=classes, variables=variables, data={"missing": "sum"})
    parameters = {"class_weight": np.full(classes, 1 / classes)}
    parameters |= {
        n: rng.dirichlet(np.ones(s[-1]), size=s[:-1]) for n, s in model.shapes.items() if n != "class_weight"
    }
    _, rows = draw_rows(model, parameters, n, rng)
    return model, {name: np.where(rng.random(n) < 0.05, np.nan, column) for name, column in rows.items()}


def survey(draws: int, n: int) -> None:
    """Fit a survey of 30 columns with missing cells, 4 classes."""
    model, rows = survey_rows(n, 30, 4)
    print(f"{len(np.unique(np.column_stack(list(rows.values())), axis=0)):,} patterns in {n:,} rows")
    wall, cpu = time.perf_counter(), used()
    tree = mte.sample(model, rows, draws=draws, tune=300, chains=2, progressbar=False)
    found = tree["posterior"].to_dataset()
    rhat = max(float(az.rhat(found)[n].max()) for n in model.dims)
    print(
        f"{time.perf_counter() - wall:.0f} s, {used(cpu):.0f} CPU s, R-hat {rhat:.3f}, weights "
        f"{found['class_weight'].mean(('chain', 'draw')).values.round(3)}, peak {peak():.2f} GB"
    )


def missing(repeats: int, n: int) -> None:
    """Bias of the average effect by maximum likelihood, a fifth of two proxies' values missing at random."""
    model = mte.CausalModel(
        classes=2,
        variables={name: {"family": "bernoulli"} for name in ("z1", "z2", "x1", "x2", "t", "y")},
        treatment="t",
        outcome="y",
        treatment_proxies=["z1", "z2"],
        outcome_proxies=["x1", "x2"],
    )
    rng = np.random.default_rng(1)
    pair = lambda p: np.stack([1 - np.array(p), np.array(p)], axis=-1)  # noqa: E731
    truth = {"class_weight": np.array([0.45, 0.55]), "p_t": pair([0.35, 0.6])}
    truth |= {f"p_{v}": pair([0.2, 0.75]) for v in ("z1", "z2", "x1", "x2")}
    truth["p_y"] = pair([[0.3, 0.2], [0.45, 0.85]])
    wanted = float(functionals(model, truth)["ate"])
    sizes = (2, 3, 2, 3, 2, 2)
    levels = np.indices(sizes).reshape(6, -1)
    levels[1], levels[3] = levels[1] - 1, levels[3] - 1  # -1: missing
    columns = dict(zip(model.variables, levels, strict=True))
    counts: dict[str, list[Array]] = {"all values": [], "summed out": [], "complete cases": []}
    for _ in range(repeats):
        _, rows = draw_rows(model, truth, n, rng)
        drawn = {name: column.copy() for name, column in rows.items()}
        for name in ("z2", "x2"):
            gone = rng.random(n) < np.where(rows["y"] == 1, 0.33, 0.05)  # depends on what is seen
            drawn[name] = np.where(gone, -1, rows[name])
        whole = (drawn["z2"] >= 0) & (drawn["x2"] >= 0)
        for label, part in (("all values", rows), ("summed out", drawn), ("complete cases", drawn)):
            used_rows = whole if label == "complete cases" else np.ones(n, dtype=bool)
            cell = [part[v][used_rows] + (v in ("z2", "x2")) for v in model.variables]
            counts[label].append(np.bincount(np.ravel_multi_index(cell, sizes), minlength=levels.shape[1]))
    print(f"true ATE {wanted:.4f}; {repeats} samples of {n:,} rows")
    for label, drawn_counts in counts.items():
        start = {name: value[None] for name, value in truth.items()}
        fitted = em(model, columns, np.array(drawn_counts, dtype=float), start, tolerance=1e-9)
        ate = functionals(model, fitted.parameters)["ate"]
        se = ate.std(ddof=1)
        print(
            f"{label}: bias {ate.mean() - wanted:+.4f} = {(ate.mean() - wanted) / se:+.2f} SE "
            f"(+- {1 / np.sqrt(repeats):.2f}), SE {se:.4f}"
        )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("job", choices=["rhc", "large", "survey", "missing"])
    parser.add_argument("--data")
    parser.add_argument("--draws", type=int, default=1_000)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--hand", action="store_true")
    given = parser.parse_args()
    if given.job == "rhc":
        rhc(given.data, given.draws, given.hand)
    elif given.job == "large":
        large(given.draws)
    elif given.job == "survey":
        survey(given.draws, given.rows)
    else:
        missing(400, 5_000)


if __name__ == "__main__":
    main()
