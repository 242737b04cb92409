"""Costs with many zeros, fitted as what they are and as a normal variable: bias of the average effect.

    python benchmarks/hurdle.py [--samples 20] [--rows 20000] [--posteriors 0]

Prints, per way of fitting, the mean error of the average effect in standard deviations of the estimates
over the samples, and in standard errors (the median one that the fit itself reports). The first two fits are
maximum likelihood of all variables jointly; the bridge takes no family. With --posteriors the first so many
samples are also fitted as normal with the measurement first: classes from proxies, outcome after.
"""

import argparse
from typing import Any

import numpy as np

from pymc_mte import CausalModel, estimate, sample, simulate, tabulate, truth
from pymc_mte.functionals import functionals
from pymc_mte.moments.likelihood import fit_likelihood
from pymc_mte.moments.problem import Problem, problem_of
from pymc_mte.moments.scores import Scores, gradient, information, inverse_information

TRUE = {
    "class_weight": [0.4, 0.6],
    "z": {"p": [[0.6, 0.3, 0.1], [0.15, 0.25, 0.6]]},
    "x": {"p": [[0.6, 0.3, 0.1], [0.15, 0.25, 0.6]]},
    "t": {"p": [[0.7, 0.6, 0.5], [0.4, 0.3, 0.2]]},
    "y": {
        "mean": [[8.0, 6.0], [3.0, 4.0]],
        "sd": [6.0, 3.0],
        "p_zero": [[0.3, 0.5], [0.6, 0.4]],
    },
}


def model_of(family: str) -> CausalModel:
    """Two classes, three-level proxies, and an outcome of this family."""
    variables: dict[str, Any] = {
        "z": {"family": "categorical", "levels": [0, 1, 2]},
        "x": {"family": "categorical", "levels": [0, 1, 2]},
        "t": {"family": "bernoulli", "parents": ["z"]},
        "y": {"family": family},
    }
    return CausalModel(
        classes=2,
        variables=variables,
        treatment="t",
        outcome="y",
        treatment_proxies=("z",),
        outcome_proxies=("x",),
        truth=TRUE if family == "hurdle_gamma" else None,
    )


def likelihood_answer(problem: Problem) -> tuple[float, float]:
    """Average effect by maximum likelihood, and the standard error that its information gives."""
    model, counts = problem.model, problem.counts
    point, _ = fit_likelihood(problem)
    score = Scores(model, problem.columns).by_pattern(point)
    inverse = inverse_information(information(score, counts))
    slope = gradient(model, point, lambda p: {"ate": functionals(model, p)["ate"]})["ate"]
    return float(functionals(model, point)["ate"][0]), float(np.sqrt(slope @ inverse @ slope))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--posteriors", type=int, default=0)
    asked = parser.parse_args()
    right = model_of("hurdle_gamma")
    ate = float(truth(right)["ate"])
    found: dict[str, list[tuple[float, float]]] = {"hurdle_gamma": [], "normal": [], "bridge": []}
    errors: list[float] = []
    for seed in range(asked.samples):
        rows = simulate(right, asked.rows, rng=seed)
        for family in ("hurdle_gamma", "normal"):
            model = model_of(family)
            found[family].append(likelihood_answer(problem_of(model, tabulate(rows, model))))
        point = estimate(right, rows, method="bridge", n_boot=0)["estimate"]
        found["bridge"].append((float(point["ate"]), float(point["se_delta_ate"])))
        if seed < asked.posteriors:
            options: dict[str, Any] = {"draws": 400, "random_seed": seed, "progressbar": False}
            post = sample(model_of("normal"), rows, measurement_first=True, **options)
            ates = post["posterior"]["ate"].values
            errors.append((float(ates.mean()) - ate) / float(ates.std()))
            print(f"measurement first, sample {seed}: off by {errors[-1]:.2f} posterior SDs", flush=True)
    print(f"average effect {ate:.3f}; {asked.samples} samples of {asked.rows} rows")
    for name, answers in found.items():
        value, se = np.array(answers).T
        bias, spread = value.mean() - ate, value.std(ddof=1)
        far = np.mean(abs(value - ate) > 5 * se)
        print(
            f"{name:>13}: mean {value.mean():7.3f}, bias {bias:7.3f} = {bias / spread:6.2f} SDs of the "
            f"estimates = {bias / np.median(se):6.2f} median SEs; error beyond 5 SEs in {far:.0%}"
        )


if __name__ == "__main__":
    main()
