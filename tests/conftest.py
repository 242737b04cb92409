"""Fixtures that all tests share, and plain re-computations that use no code of the package."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")  # before any test imports matplotlib

import itertools
import types
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

from pymc_mte import CausalModel, load_model, tabulate
from pymc_mte.data import fingerprint
from pymc_mte.functionals import functionals
from pymc_mte.results import dataset, provenance

Array = NDArray[np.float64]


def pytest_configure(config: pytest.Config) -> None:
    """Let PyMC be imported: it uses a name that PyTensor has moved. Everything else is an error."""
    config.addinivalue_line("filterwarnings", "ignore:Importing 'IfElse' from:DeprecationWarning")


settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.load_profile("repeatable")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """One stream per test, derived from its name: order and -n do not matter."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(scope="session")
def level3() -> CausalModel:
    return load_model("gallery:level3")


@pytest.fixture(scope="session")
def tools() -> types.SimpleNamespace:
    """The helpers below; session-wide, so that property-based tests may use it."""
    return types.SimpleNamespace(
        draw_level3=draw_level3,
        random_truth=random_truth,
        with_truth=with_truth,
        walk=walk,
        natural_probability=natural_probability,
        interventional=interventional,
        potential=potential,
        made_posterior=made_posterior,
    )


def _profiles(rng: np.random.Generator, classes: int, levels: int) -> Array:
    """Level probabilities per class (class, level), diagonal-dominant: class k prefers level k."""
    share = rng.uniform(0.35, 0.7)
    table = (1 - share) * rng.dirichlet(np.full(levels, 2.0), size=classes)
    table[:, :classes] += share * np.eye(classes)
    return table


def _smallest_singular_value(table: Array) -> float:
    return float(np.linalg.svd(table, compute_uv=False)[-1])


def draw_level3(
    seed: int, classes: int, z_levels: int, x_levels: int, *, x_to_y: bool = False
) -> CausalModel | None:
    """Random model with the edge z -> t (and x -> y); None if it is not well separated.

    Well separated: class weights, gaps between class effects and the smallest singular values of
    both sides' level probabilities (given the class, and the arm on the treatment side) >= 0.1.
    """
    rng = np.random.default_rng(seed)
    weight = 0.1 + (1 - 0.1 * classes) * rng.dirichlet(np.full(classes, 2.0))
    z, x = _profiles(rng, classes, z_levels), _profiles(rng, classes, x_levels)
    t = rng.uniform(0.15, 0.85, size=(classes, z_levels))
    effect = np.linspace(-0.8, 0.8, classes) + rng.uniform(-0.2, 0.2, size=classes)
    effect = np.clip(effect, -0.9, 0.9)
    low = rng.uniform(np.maximum(0.03, 0.03 - effect), np.minimum(0.97, 0.97 - effect))
    y = np.stack([low, low + effect], axis=-1)
    sides = [x]
    for arm in (1 - t, t):
        joint = z * arm
        sides.append(joint / joint.sum(axis=1, keepdims=True))
    if min(_smallest_singular_value(side) for side in sides) < 0.1:
        return None
    if np.diff(np.sort(effect)).min() < 0.1:
        return None
    if x_to_y:
        y = rng.uniform(0.05, 0.95, size=(classes, x_levels, 2))
    shuffled = rng.permutation(classes)  # the order of the classes must not matter
    truth = {"class_weight": weight, "z": z, "x": x, "t": t, "y": y}
    truth = {name: value[shuffled].tolist() for name, value in truth.items()}
    return CausalModel(
        classes=classes,
        variables={
            "z": {"family": "categorical", "levels": list(range(z_levels))},
            "x": {"family": "categorical", "levels": list(range(x_levels))},
            "t": {"family": "bernoulli", "parents": ["z"]},
            "y": {"family": "bernoulli", "parents": ["x", "t"] if x_to_y else ["t"]},
        },
        treatment="t",
        outcome="y",
        treatment_proxies=["z"],
        outcome_proxies=["x"],
        truth={
            "class_weight": truth.pop("class_weight"),
            **{name: {"p": value} for name, value in truth.items()},
        },
    )


def random_truth(model: CausalModel, rng: np.random.Generator) -> dict[str, Array]:
    """Random parameters by result name, far from the edges of their ranges."""
    out: dict[str, Array] = {}
    for name, shape in model.shapes.items():
        kind = model.kind(name)
        if kind.support == "unit":
            out[name] = rng.uniform(0.1, 0.9, size=shape)
        elif kind.support == "simplex":
            table = rng.dirichlet(np.full(shape[-1], 3.0), size=shape[:-1])
            out[name] = 0.02 + (1 - 0.02 * shape[-1]) * table
        elif kind.support == "real":
            out[name] = rng.normal(0.0, 2.0, size=shape)
        elif kind.scope == "location":
            out[name] = rng.uniform(0.5, 4.0, size=shape)
        elif kind.scope == "scale":
            out[name] = rng.uniform(0.5, 2.0, size=shape)
        else:
            out[name] = rng.uniform(3.0, 9.0, size=shape)
    return out


def with_truth(model: CausalModel, parameters: Mapping[str, Array]) -> CausalModel:
    """Return the model with these parameters as its ``[truth]``."""
    truth: dict[str, Any] = {"class_weight": parameters["class_weight"].tolist()}
    for name, (variable, parameter) in model.owners.items():
        value = np.asarray(parameters[name])
        if model.variables[variable].family == "bernoulli":
            value = value[..., 1]
        truth.setdefault(variable, {})[parameter] = value.tolist()
    fields = {name: getattr(model, name) for name in type(model).model_fields}
    return CausalModel(**{**fields, "truth": truth})


def made_posterior(model: CausalModel, rows: xr.Dataset, *, draws: int = 20) -> xr.DataTree:
    """Tree with the groups of `sample`, its draws made up around the truth: no sampler is run."""
    rng = np.random.default_rng(7)
    parameters = {}
    for name, value in model.true_parameters().items():
        noise = np.exp(rng.normal(0.0, 0.03, size=(2, draws, *value.shape)))
        parameters[name] = value * noise
        if model.kind(name).scope == "table":
            parameters[name] /= parameters[name].sum(axis=-1, keepdims=True)
    if model.treatment is not None:
        parameters |= functionals(model, parameters)
    table = tabulate(rows, model)
    total = int(table["count"].sum())
    groups = {"posterior": dataset(model, parameters), "observed_data": table}
    for group in ("prior_predictive", "posterior_predictive"):
        drawn = {}
        if model.discrete_variables:
            shares = rng.dirichlet(np.ones(model.n_cells), size=(1, 10))
            drawn["counts"] = (("chain", "draw", "cell"), np.floor(total * shares))
        if model.continuous_variables:
            size = (1, 10, table.sizes["pattern"], len(model.continuous_variables))
            drawn["rows"] = (("chain", "draw", "row", "continuous"), rng.normal(size=size))
        groups[group] = xr.Dataset(drawn)
    flat = xr.DataArray(np.zeros((2, draws, table.sizes["pattern"])), dims=("chain", "draw", "pattern"))
    groups["log_likelihood_pattern"] = flat.to_dataset(name="log_p")
    tree = xr.DataTree.from_dict(groups)
    more = {"sampler": "nutpie", "tune": 100, "random_seed": 0, "n": float(total), "notes": "[]"}
    tree.attrs = provenance(model, method="posterior", fingerprint=fingerprint(model, table), **more)
    return tree


# Brute force: loops over every class and every cell, one factor at a time.


def walk(model: CausalModel) -> Iterator[tuple[int, dict[str, int]]]:
    """Every class with every cell of the discrete variables."""
    names = [name for name, var in model.variables.items() if var.discrete]
    ranges = [range(len(model.variables[name].labels)) for name in names]
    for u in range(model.classes):
        for cell in itertools.product(*ranges):
            yield u, dict(zip(names, cell, strict=True))


def _entry(
    model: CausalModel, parameters: Mapping[str, Array], name: str, variable: str, u: int, cell: Any
) -> Any:
    value: Any = np.asarray(parameters[name])
    if model.variables[variable].latent:
        value = value[u]
    for parent in model.variables[variable].parents:
        value = value[cell[parent]]
    return value


def natural_probability(
    model: CausalModel, parameters: Mapping[str, Array], u: int, cell: Mapping[str, int]
) -> float:
    """P(class, cell)."""
    p = float(parameters["class_weight"][u])
    for variable, level in cell.items():
        p *= float(_entry(model, parameters, f"p_{variable}", variable, u, cell)[level])
    return p


def _outcome_mean(
    model: CausalModel, parameters: Mapping[str, Array], u: int, cell: Mapping[str, int]
) -> float:
    y = str(model.outcome)
    if model.variables[y].discrete:
        return float(_entry(model, parameters, f"p_{y}", y, u, cell)[1])
    return float(_entry(model, parameters, f"mean_{y}", y, u, cell))


def interventional(model: CausalModel, parameters: Mapping[str, Array], arm: int, u: int) -> float:
    """E[Y | do(T=arm), class]: every table but the treatment's, the treatment set everywhere."""
    total = 0.0
    for v, cell in walk(model):
        y = str(model.outcome)
        if v != u or cell[str(model.treatment)] != arm or cell.get(y, 0) != 0:
            continue
        p = 1.0
        for variable, level in cell.items():
            if variable not in (model.treatment, y):
                p *= float(_entry(model, parameters, f"p_{variable}", variable, u, cell)[level])
        total += p * _outcome_mean(model, parameters, u, cell)
    return total


def potential(model: CausalModel, parameters: Mapping[str, Array], arm: int, given: int) -> float:
    """E[Y(arm) | T=given]: the treatment as it came, everything below it as under ``arm``."""
    t, y = str(model.treatment), str(model.outcome)
    below = {t}
    for variable in model.order:
        if below & set(model.variables[variable].parents):
            below.add(variable)
    top = bottom = 0.0
    for u, cell in walk(model):
        if cell[t] != arm or cell.get(y, 0) != 0:
            continue
        p = float(parameters["class_weight"][u])
        p *= float(_entry(model, parameters, f"p_{t}", t, u, cell)[given])
        for variable, level in cell.items():
            if variable not in (t, y):
                p *= float(_entry(model, parameters, f"p_{variable}", variable, u, cell)[level])
        top += p * _outcome_mean(model, parameters, u, cell)
        bottom += p
    return top / bottom
