"""Published latent-class tables: best log-likelihoods, all optima, modes of the PyMC model, weights.

Per table and number of classes: the optima that unpenalised EM reaches; the mode of the built model with
flat priors on the scale of probabilities (no Jacobian), climbed by L-BFGS from the best optimum, which must
have the same log-likelihood; and the log-likelihood at the mode under the default priors, lower because
many of the probabilities are 0 or 1.

Run: uv run python benchmarks/latent_class_tables.py [--weights]

--weights also draws gss82 with flat priors by NUTS and by SMC, and prints the weights of its optima
(20 minutes).
"""

import argparse
import time

import numpy as np
from scipy.optimize import minimize

import pymc_mte as mte
from pymc_mte.bayes.density import multinomial_coefficient
from pymc_mte.bayes.gradient import compile_maps
from pymc_mte.bayes.start import without_first_levels
from pymc_mte.data import resolve
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.optima import distinct_optima, objective_of
from pymc_mte.moments.problem import Problem, problem_of

PUBLISHED = {
    ("carcinoma", 2): -317.2568,
    ("carcinoma", 3): -293.7050,
    ("carcinoma", 4): -289.2858,
    ("stouffer_toby", 2): -504.4677,
    ("gss82", 1): -2872.2296,
    ("gss82", 2): -2783.2680,
    ("gss82", 3): -2754.5454,
    ("gss82", 4): -2746.6208,
}

EDGE = 1e-7
"""Probabilities of 0 and 1 start the climb this far inside."""


def mode_of_built(model: CausalModel, table: object, start: Parameters, *, flat: bool) -> float:
    """Log-likelihood of ordered rows at the mode of the built model on the scale of probabilities."""
    built = mte.build_model(model, table, priors=dict.fromkeys(model.dims, 1.0) if flat else None)
    density = built.compile_fn([built.logp(jacobian=False), built.dlogp(jacobian=False)], mode="FAST_COMPILE")
    likelihood = built.compile_fn(built.datalogp, mode="FAST_COMPILE")
    template = built.initial_point()
    ends = np.cumsum([value.size for value in template.values()])

    def point(vector: np.ndarray) -> dict[str, np.ndarray]:
        parts = np.split(vector, ends[:-1])
        return {n: part.reshape(v.shape) for (n, v), part in zip(template.items(), parts, strict=True)}

    def height(vector: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = density(point(vector))
        return -float(value), -np.asarray(slope)

    inside = {n: np.clip(v, EDGE, None) for n, v in start.items()}
    inside = {n: v / v.sum(axis=-1, keepdims=True) for n, v in inside.items()}
    values = without_first_levels(model, inside)
    begin = compile_maps(built, values).unconstrain(values)
    found = minimize(height, begin, jac=True, method="L-BFGS-B", options={"maxiter": 2_000, "ftol": 1e-13})
    return float(likelihood(point(found.x))) - multinomial_coefficient(built)


def problem_with(name: str, classes: int) -> tuple[CausalModel, object, Problem]:
    """Model, table and problem of a gallery entry with so many classes."""
    model, table = resolve(mte.load_model(f"gallery:{name}").with_classes(classes), None)
    return model, table, problem_of(model, table, seed=0)


def weights() -> None:
    """Weights of the optima of gss82 under flat priors, by NUTS and by SMC."""
    model = mte.load_model("gallery:gss82")
    options = {"priors": dict.fromkeys(model.dims, 1.0), "random_seed": 1, "progressbar": False}
    for sampler in ("nutpie", "smc"):
        begin = time.perf_counter()
        post = mte.sample(model, sampler=sampler, draws=1_000, **options)
        group = post["modes"].to_dataset()
        print(f"{sampler}, {time.perf_counter() - begin:.0f} s; chains: {group.attrs['reading']}")
        for name in ("optimum_log_likelihood", "optimum_weight", "optimum_weight_error"):
            print(f"  {name}: {group[name].values.round(3)}")
        if "evidence" in post:
            found = post["evidence"].to_dataset()
            print(f"  log evidence {float(found['log_evidence']):.3f}, error {float(found['error']):.3f}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", action="store_true")
    options = parser.parse_args()
    for (name, classes), published in PUBLISHED.items():
        model, table, problem = problem_with(name, classes)
        found = distinct_optima(problem)
        best = {n: v[0] for n, v in found.parameters.items()}
        pulled = distinct_optima(problem, penalty=1.0)
        start = {n: v[0] for n, v in pulled.parameters.items()}
        flat, default = (
            mode_of_built(model, table, point, flat=yes) for point, yes in ((best, True), (start, False))
        )
        own = objective_of(problem, pulled.parameters, 1.0)[1][0]
        shares = ", ".join(
            f"{v:.3f} ({s:.0%})" for v, s in zip(found.log_likelihood, found.share, strict=True)
        )
        print(f"{name}, K = {classes}: published {published:.4f}; optima (share of starts) {shares}")
        print(
            f"  flat mode of the PyMC model {flat:.4f}; at the mode under default priors {default:.4f} "
            f"(by EM {own:.4f})",
            flush=True,
        )
    if options.weights:
        weights()


if __name__ == "__main__":
    main()
