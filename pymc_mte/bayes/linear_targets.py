"""The Bayesian model of interventions on a linear Gaussian network: the target of a row is summed out."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.bayes.mixture import unbatch
from pymc_mte.bayes.priors import LogRatio, Prior, Tensor, add_parameter, merge_priors
from pymc_mte.bayes.targets import CONCENTRATION, SHARES, concentration
from pymc_mte.errors import ModelError
from pymc_mte.model import CausalModel
from pymc_mte.moments.interventions.gaussian import LinearMixture, refit
from pymc_mte.moments.interventions.linear_estimate import target_sets, value_name
from pymc_mte.moments.interventions.linear_rows import LinearProblem, linear_problem

Array = NDArray[np.float64]


WIDTH = 2.5
"""Prior sd of shifts and coefficients, in error sds (per sd of the parent); see `pymc_mte.bayes.priors`."""

DEFAULTS = SHARES | {
    "intercept": f"Normal(base mean, {WIDTH:g} base SD, wider where parents lie far from 0)",
    "coefficient": f"Normal(0, {WIDTH:g} base SD of the variable per base SD of the parent)",
    "sd": f"HalfNormal({WIDTH:g} base SD)",
    "change_sd": "HalfNormal(1 SD of the rows)",
}
"""Default priors in words, but for the values of interventions."""

CHANGE = {
    "shift": f"Normal(0, {WIDTH:g} error SD)",
    "do": f"Normal(mean of the rows, {WIDTH:g} SD of the rows)",
}
"""Default priors of the values, by kind of intervention."""

SAMPLED, LEAST = 4, 0.05
"""Most sets of targets that are sampled, and the smallest probability of one."""


def starting_sets(problem: LinearProblem, start: Any, seed: int) -> list[tuple[LinearMixture, float]]:
    """Return sets of targets with their probabilities: those of an answer of `estimate`, else found anew."""
    if start is None:
        found = [(one.mixture, one.probability) for one in target_sets(problem, np.random.default_rng(seed))]
    elif _answers(start["estimate"].to_dataset(), problem):
        point = start["estimate"].to_dataset().sel(variable=list(problem.order))
        pairs = zip(point["included"].values.astype(bool), point["set_probability"].values, strict=True)
        found = [(_stated(problem, point.isel(target=np.flatnonzero(has))), float(p)) for has, p in pairs]
    else:
        raise ModelError("start: this result holds no targets; pass an answer of `estimate` for this model")
    likely = [(mixture, p) for mixture, p in found[:SAMPLED] if p >= LEAST]
    total = sum(p for _, p in likely)
    return [(mixture, p / total) for mixture, p in likely]


def _answers(point: xr.Dataset, problem: LinearProblem) -> bool:
    return "included" in point and set(point["variable"].values) == set(problem.order)


def _stated(problem: LinearProblem, point: xr.Dataset) -> LinearMixture:
    """Fit the targets of one set, from their values in an answer."""
    touched = point["touched"].values.astype(bool)
    spread = point["spread"].values if "spread" in point else np.ones(touched.shape)
    weight = np.maximum(point["target_weight"].values, 1e-3)
    mixture = LinearMixture(
        network=problem.network,
        weight=weight / weight.sum(),
        touched=touched,
        value=point[value_name(problem.model)].values,
        spread=np.where(touched, np.maximum(spread, problem.network.narrowest), 1.0),
    )
    return refit(problem.data, mixture)


def build_linear(
    model: CausalModel,
    data: Any = None,
    *,
    base: Any = None,
    start: Any = None,
    priors: Mapping[str, Prior] | None = None,
) -> pm.Model:
    """Build the model of shares and values for the most probable targets; see `pymc_mte.build_model`."""
    problem = linear_problem(model, data, base)
    return build_changes(problem, starting_sets(problem, start, 0)[0][0], priors)


def build_changes(
    problem: LinearProblem, mixture: LinearMixture, priors: Mapping[str, Prior] | None = None
) -> pm.Model:
    """Build the model of shares and values over given targets.

    Free variables: ``target_weight``, ``change`` (one value per touched place, row by row of the targets;
    a shift in error sds, a forced value in its units), ``change_sd`` where forced values vary, and, for a
    learnt base, ``intercept_b``, ``coefficient_b`` and ``sd_b``.
    Observed: ``rows``, and for a learnt base ``base_b`` per variable.
    """
    model, kind = problem.model, problem.data.kind
    chosen = merge_priors(model, priors)
    size, touched = len(mixture.weight), mixture.touched
    coords = {"target": problem.labels(touched, mixture.value)}
    with pm.Model(coords=coords | {d: c for d, c in model.coords.items() if d != "class"}) as built:
        weight = pm.Dirichlet(
            "target_weight",
            a=concentration(chosen.get("target_weight", CONCENTRATION), size),
            dims="target",
            **({"default_transform": LogRatio(size)} if size > 1 else {}),
        )
        equations = _equations(problem, chosen)
        value, spread = _changes(problem, mixture)
        if kind == "shift":
            value = value * problem.network.sd
        _mixture(problem, weight, value, spread, touched, equations)
    return built


def _equations(problem: LinearProblem, chosen: Mapping[str, Prior]) -> tuple[Tensor, Tensor, Tensor]:
    """Return intercepts, coefficients (node, parent) and sds: known, or learnt with base rows observed."""
    network, order = problem.network, problem.order
    if problem.base is None:
        return pt.as_tensor(network.intercept), pt.as_tensor(network.coefficient), pt.as_tensor(network.sd)
    rows = np.repeat(problem.base[0], problem.base[1].astype(int), axis=0)
    mean, scale = rows.mean(axis=0), rows.std(axis=0)
    intercepts, sds, table = [], [], pt.zeros(network.coefficient.shape)
    for i, name in enumerate(order):
        above = list(network.parents[i])
        steepness = scale[i] / scale[above]
        wide = np.sqrt(scale[i] ** 2 + ((steepness * mean[above]) ** 2).sum())  # at zero, not at their means
        intercept = f"intercept_{name}"
        location = add_parameter(problem.model, intercept, chosen.get(intercept), mean[i], wide)
        sd = add_parameter(problem.model, f"sd_{name}", chosen.get(f"sd_{name}"), 0.0, scale[i])
        mu: Tensor = location
        if above:
            slopes = f"coefficient_{name}"
            slope = add_parameter(problem.model, slopes, chosen.get(slopes), 0.0, steepness)
            mu = location + pt.dot(pm.Data(f"base_parents_{name}", rows[:, above]), slope)
            table = pt.set_subtensor(table[i, above], slope)
        pm.Normal(f"base_{name}", mu, sd, observed=rows[:, i])
        intercepts.append(location)
        sds.append(sd)
    return pt.stack(intercepts), table, pt.stack(sds)


def _changes(problem: LinearProblem, mixture: LinearMixture) -> tuple[Tensor, Tensor]:
    """Values (shifts in error sds) and spreads of all targets: (target, node)."""
    touched = mixture.touched
    value, spread = pt.zeros(touched.shape), pt.ones(touched.shape)
    places = np.nonzero(touched)
    if not len(places[0]):
        return value, spread
    if problem.data.kind == "shift":
        change = pm.Normal("change", 0.0, WIDTH, shape=len(places[0]))
        return pt.set_subtensor(value[places], change), spread
    centre, scale = problem.data.rows.mean(axis=0), problem.data.rows.std(axis=0)
    change = pm.Normal("change", centre[places[1]], WIDTH * scale[places[1]], shape=len(places[0]))
    width = pt.as_tensor(mixture.spread[places])
    varies = varying(problem, mixture)[places]
    if varies.any():
        learnt = pm.HalfNormal("change_sd", scale[places[1]][varies], shape=int(varies.sum()))
        width = pt.set_subtensor(width[np.flatnonzero(varies)], learnt)
    return pt.set_subtensor(value[places], change), pt.set_subtensor(spread[places], width)


def varying(problem: LinearProblem, mixture: LinearMixture) -> NDArray[np.bool_]:
    """Which forced values vary: a constant has no spread to learn."""
    wide = mixture.spread > 2 * problem.network.narrowest
    return mixture.touched & wide & (problem.data.kind == "do")


def _mixture(
    problem: LinearProblem,
    weight: Tensor,
    value: Tensor,
    spread: Tensor,
    touched: NDArray[np.bool_],
    equations: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Observe the mixture's rows."""
    shifted = problem.data.kind == "shift"
    flags, parents = touched.astype(float), problem.network.parents

    def logp(rows: Tensor, w: Tensor, v: Tensor, s: Tensor, *rest: Tensor) -> Tensor:
        w, v, s = unbatch(w, 1), unbatch(v, 2), unbatch(s, 2)
        c, b, sd, n, _ = (unbatch(r, d) for r, d in zip(rest, (1, 2, 1, 1, 2), strict=True))
        z = (rows - c - pt.dot(rows, b.T)) / sd
        plain = -0.5 * (z**2).sum(axis=1) - pt.log(sd).sum() - 0.5 * len(parents) * np.log(2 * np.pi)
        if shifted:
            d = v / sd
            ratio = pt.dot(z, d.T) - 0.5 * (d**2).sum(axis=1)
        else:
            away = -0.5 * ((rows[:, None, :] - v) / s) ** 2 - pt.log(s / sd) + 0.5 * z[:, None, :] ** 2
            ratio = (away * flags).sum(axis=2)
        return (n * (plain + pm.math.logsumexp(ratio + pt.log(w), axis=1))).sum()

    def random(*a: Any, rng: np.random.Generator, size: Any = None) -> Array:
        shapes = (1, 2, 2, 1, 2, 1, 1, 2)
        w, v, s, c, b, sd, n, _ = (np.reshape(x, np.shape(x)[-d:]) for x, d in zip(a, shapes, strict=True))
        drawn = []
        for _ in range(int(np.prod(size)) if size else 1):
            label = rng.choice(len(w), size=len(n), p=w / w.sum())
            out = np.zeros((len(n), len(sd)))
            for i in range(len(sd)):
                free = c[i] + out @ b[i] + sd[i] * rng.normal(size=len(n))
                forced = v[label, i] + s[label, i] * rng.normal(size=len(n))
                out[:, i] = free + v[label, i] if shifted else np.where(touched[label, i], forced, free)
            drawn.append(out)
        return np.stack(drawn).reshape(*(size or ()), *drawn[0].shape)

    rows = pm.Data("observed_rows", problem.data.rows)
    pm.CustomDist(
        "rows",
        weight,
        value,
        spread,
        *equations,
        pm.Data("count", problem.data.counts),
        0.0 * rows,
        logp=logp,
        random=random,
        signature="(k),(k,p),(k,p),(p),(p,p),(p),(r),(r,p)->(r,p)",
        observed=rows,
    )
