"""Simulation-based calibration of every family, as proxy and, where it has a mean, as outcome.

    python benchmarks/families.py [--families gamma weibull] [--fits 1000] [--rows 200] [--draws 250]

Every model states its priors, so that truths are drawn from what is fitted whatever the data's scale.
"""

import argparse
from typing import Any

import pymc_mte as mte
from pymc_mte.families import FAMILIES

PRIORS: dict[str, Any] = {
    "location": {"dist": "lognormal", "mu": 1.0, "sigma": 0.7},
    "scale": {"dist": "gamma", "alpha": 4.0, "beta": 3.0},
    "shared": {"dist": "gamma", "alpha": 4.0, "beta": 0.5},
    "real": {"dist": "normal", "mu": 0.0, "sigma": 2.0},
    "unit": 2.0,
}


DISCRETE: dict[str, dict[str, Any]] = {
    "bernoulli": {},
    "categorical": {"levels": [1, 2, 3, 4]},
    "ordinal": {"levels": [1, 2, 3, 4]},
    "binomial": {"trials": 4},
}


def family_model(family: str) -> mte.CausalModel:
    """Two classes, a proxy and an outcome of the family, priors stated; times are censored at 4."""
    own: dict[str, Any] = {"family": family} | DISCRETE.get(family, {})
    spec = FAMILIES[family]
    as_outcome = {"family": "bernoulli"} if family in ("categorical", "ordinal") else own
    censored = {"event": "seen", "censor_at": 4.0} if spec.censored else {}
    kinds = {} if spec.discrete else spec.parameters
    priors = {
        name: PRIORS[kind.support if kind.support in ("real", "unit") else kind.scope]
        for name, kind in kinds.items()
    }
    return mte.CausalModel(
        name=family,
        classes=2,
        variables={
            "z": {"family": "bernoulli"},
            "x": own,
            "t": {"family": "bernoulli", "parents": ["z"]},
            "y": as_outcome | censored,
        },
        treatment="t",
        outcome="y",
        treatment_proxies=("z",),
        outcome_proxies=("x",),
        priors={"x": priors, "y": priors} if priors else {},
    )


def rows_of_levels(model: mte.CausalModel) -> dict[str, list[Any]]:
    """Rows that the family may have, with all levels; stated priors do not look at their values."""
    values = {
        n: [0, 1, 0, 1] if v.family == "bernoulli" else [1, 2, 3, 4] for n, v in model.variables.items()
    }
    return values | {"t": [0, 0, 1, 1], "seen": [1, 1, 1, 1]}


def main() -> None:
    """Calibrate the families that are asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--fits", type=int, default=1_000)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--draws", type=int, default=250)
    parser.add_argument("--tune", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    for family in asked.families:
        model = family_model(family)
        found = mte.calibrate(
            model,
            asked.fits,
            n=asked.rows,
            data=rows_of_levels(model),
            draws=asked.draws,
            tune=asked.tune,
            random_seed=asked.seed,
        )
        print(f"{family}: {found.attrs['verdict']}", flush=True)
        print(found["coverage"].to_dataset()["ate"].to_series().to_string(), flush=True)
        judged = found["verdict"].to_dataset()
        for name in (n for n in judged if str(n).startswith("band_p")):
            print(f"{name}: {judged[name].values.round(3).tolist()}", flush=True)
        print(f"{found.attrs['divergent']} rounds with divergences, failures {found.attrs['failures']}")


if __name__ == "__main__":
    main()
