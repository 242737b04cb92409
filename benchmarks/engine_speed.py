"""Speed of the engine on two arms, four binary proxies, a binary outcome and two classes.

Parts (all by default): ``gradient`` (log-density and gradient by number of rows, and the automatic
marginalisation of the row-wise model where pymc-extras is installed), ``call`` (4 chains x 1,000 draws
at a million rows from call to result: cold compilation cache, fresh process with a warm one, second data
set in one process), ``ess`` (effective draws per second against a row-wise model written by hand).

Run: uv run --extra extras python benchmarks/engine_speed.py [--part gradient] [--repeats 5]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from typing import Any

import arviz as az
import numpy as np
import xarray as xr
from numpy.typing import NDArray

import pymc_mte as mte

PARTS = ("gradient", "call", "ess")
PROXIES = ("w1", "w2", "w3", "w4")
MILLION = 1_000_000

CALL = """
import sys, time
import numpy as np, pandas as pd
rows = pd.DataFrame(np.load(sys.argv[1]), columns=["w1", "w2", "w3", "w4", "t", "y"])
second = rows.sample(frac=1.0, replace=True, random_state=2)
begun = time.perf_counter()
import pymc_mte as mte
sys.path.insert(0, sys.argv[2])
from engine_speed import model
mte.sample, mte.compile
imported = time.perf_counter()
answer = mte.sample(model(), rows, progressbar=False)
first = time.perf_counter()
print(f"imports {imported - begun:.1f} s, call to result {first - imported:.1f} s", end="", flush=True)
if len(sys.argv) > 3:
    compiled = mte.compile(model(), rows)
    table = mte.tabulate(second, model())
    for what, data in (("table of counts", table), ("dataframe", second)):
        begun = time.perf_counter()
        compiled.sample(data, random_seed=1)
        print(f"; second data set from a {what} {time.perf_counter() - begun:.2f} s", end="")
    begun = time.perf_counter()
    compiled.draws(table, draws=1_000, tune=500, chains=4, cores=2)
    print(f", its aligned draws alone {time.perf_counter() - begun:.2f} s", end="")
print()
"""


def model() -> mte.CausalModel:
    """Build the model of all measurements."""
    proxy = {"family": "bernoulli"}
    return mte.CausalModel(
        name="speed",
        classes=2,
        variables={
            **dict.fromkeys(PROXIES, proxy),
            "t": {"family": "bernoulli"},
            "y": {"family": "bernoulli", "parents": ["t"]},
        },
        treatment="t",
        outcome="y",
        treatment_proxies=list(PROXIES[:2]),
        outcome_proxies=list(PROXIES[2:]),
        truth={
            "class_weight": [0.6, 0.4],
            **{name: {"p": [0.15, 0.85]} for name in PROXIES},
            "t": {"p": [0.3, 0.7]},
            "y": {"p": [[0.2, 0.5], [0.6, 0.8]]},
        },
    )


def rows_of(n: int, seed: int = 1) -> xr.Dataset:
    """Simulate rows."""
    return mte.simulate(model(), n, rng=seed)


def microseconds(call: Any, seconds: float = 1.0) -> float:
    """Median time of a call."""
    call()
    spent: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(spent) < 5:
        begun = time.perf_counter()
        call()
        spent.append(time.perf_counter() - begun)
    return 1e6 * float(np.median(spent))


def row_wise(rows: xr.Dataset) -> Any:
    """Write the posterior as one would by hand: class summed out, row by row."""
    import pymc as pm
    import pytensor.tensor as pt

    data = {name: rows[name].values.astype(float) for name in (*PROXIES, "t", "y")}
    with pm.Model() as built:
        columns = {name: pm.Data(f"{name}_rows", value)[:, None] for name, value in data.items()}
        weight = pm.Dirichlet("class_weight", np.full(2, 2.0))
        total = pt.log(weight)[None]
        for name in (*PROXIES, "t"):
            p = pm.Beta(f"p_{name}", 2.0, 2.0, shape=2)
            total = total + columns[name] * pt.log(p) + (1 - columns[name]) * pt.log1p(-p)
        p = pm.Beta("p_y", 2.0, 2.0, shape=(2, 2))  # arm, class
        for arm, share in ((0, 1 - columns["t"]), (1, columns["t"])):
            y = columns["y"]
            total = total + share * (y * pt.log(p[arm]) + (1 - y) * pt.log1p(-p[arm]))
        pm.Potential("rows", pm.math.logsumexp(total, axis=1).sum())
    return built


def marginalised(rows: xr.Dataset) -> Any:
    """Let pymc-extras marginalise the row-wise model with an explicit class."""
    import pymc as pm
    from pymc_extras.marginal import marginalize

    n = rows.sizes["row"]
    with pm.Model() as built:
        weight = pm.Dirichlet("class_weight", np.full(2, 2.0))
        latent = pm.Categorical("latent", weight, shape=n)
        for name in (*PROXIES, "t"):
            p = pm.Beta(f"p_{name}", 2.0, 2.0, shape=2)
            pm.Bernoulli(name, p[latent], observed=rows[name].values)
        p = pm.Beta("p_y", 2.0, 2.0, shape=(2, 2))
        pm.Bernoulli("y", p[rows["t"].values, latent], observed=rows["y"].values)
    return marginalize(built, ["latent"])


def gradient_time(built: Any) -> float:
    """Microseconds of log-density and gradient of any PyMC model."""
    from pymc_mte.bayes.gradient import compile_density

    point = {
        rv.name: np.full(rv.eval().shape, 0.5 if rv.name != "class_weight" else 1 / 2)
        for rv in built.free_RVs
    }
    density = compile_density(built, point)
    x = density.maps.unconstrain(point) + 0.1
    return microseconds(lambda: density(x))


def measure_gradient(_: int) -> None:
    """Print the times by rows; the row-wise forms at the largest."""
    ours = {n: gradient_time(mte.build_model(model(), rows_of(n))) for n in (1_000, 10_000, 100_000, MILLION)}
    print("log-density and gradient:", ", ".join(f"n = {n:,}: {us:.1f} us" for n, us in ours.items()))
    print(f"n = 1,000,000 over n = 1,000: {ours[MILLION] / ours[1_000]:.2f} (at most 1.5 wanted)")
    by_hand = gradient_time(row_wise(rows_of(MILLION)))
    print(f"row-wise by hand, n = 1,000,000: {by_hand:,.0f} us, {by_hand / ours[MILLION]:,.0f} times slower")
    if find_spec("pymc_extras") is None:
        print("pymc-extras is not installed: no automatic marginalisation (uv sync --extra extras)")
        return
    automatic = gradient_time(marginalised(rows_of(MILLION)))
    ratio = automatic / ours[MILLION]
    print(f"pymc_extras.marginalize, same rows: {automatic:,.0f} us, {ratio:,.0f} times ours (10,000 wanted)")


def measure_call(_: int) -> None:
    """Print the times from call to aligned result, each in its own process."""
    rows = rows_of(MILLION)
    here = os.path.dirname(os.path.abspath(__file__))
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/rows.npy"
        np.save(file, np.column_stack([rows[name].values for name in (*PROXIES, "t", "y")]).astype("int8"))
        flags = os.environ | {"PYTENSOR_FLAGS": f"base_compiledir={folder}/cache"}
        for name, more in (
            ("cold cache", []),
            ("fresh process, warm cache", []),
            ("one process", ["second"]),
        ):
            command = [sys.executable, "-c", CALL, file, here, *more]
            done = subprocess.run(command, env=flags, capture_output=True, text=True, check=True)
            print(f"{name}: {done.stdout.strip()}", flush=True)
    print("wanted, call to result: under 30 s cold, 8 s warm, 2 s for the second data set")


def measure_ess(repeats: int) -> None:
    """Print medians of the smallest effective draws per second of sampling."""
    from pymc_mte.bayes.gradient import compile_density
    from pymc_mte.bayes.samplers import sample_density

    values = model().true_parameters()
    point = {n: v if n == "class_weight" else v[..., 1] for n, v in values.items()}
    for n in (1_000, 10_000, 100_000, MILLION):
        forms = {"patterns": mte.build_model(model(), rows_of(n))}
        if n <= 10_000:
            forms["rows"] = row_wise(rows_of(n))
        rates = {}
        for form, built in forms.items():
            at = {rv.name: _shaped(point[rv.name], form) for rv in built.free_RVs}
            density = compile_density(built, at)
            start = density.maps.unconstrain(at)
            found = []
            for seed in range(repeats):
                noisy = [
                    start + 0.1 * np.random.default_rng([seed, c]).normal(size=start.size) for c in range(4)
                ]
                options = {
                    "draws": 1_000,
                    "tune": 500,
                    "cores": 2,
                    "target_accept": 0.9,
                    "progressbar": False,
                }
                begun = time.perf_counter()
                drawn = sample_density(density, noisy, seed, options)["posterior"].to_dataset()
                spent = time.perf_counter() - begun
                found.append(min(float(az.ess(drawn)[v].min()) for v in drawn.data_vars) / spent)
            rates[form] = float(np.median(found))
        said = ", ".join(f"{form} {rate:,.0f}" for form, rate in rates.items())
        more = f", ratio {rates['patterns'] / rates['rows']:.1f}" if "rows" in rates else ""
        print(f"effective draws per second, n = {n:,}: {said}{more}", flush=True)


def _shaped(value: NDArray[np.float64], form: str) -> NDArray[np.float64]:
    """Tables of the hand-written form have the arm first."""
    return value.T if form == "rows" and value.ndim == 2 else value


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    run = {"gradient": measure_gradient, "call": measure_call, "ess": measure_ess}
    for part in options.part or PARTS:
        run[part](options.repeats)


if __name__ == "__main__":
    main()
