"""Priors of every parameter: weakly informative on the data's scale, all replaceable."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from numpy.typing import NDArray
from pymc.logprob.transforms import Transform
from pytensor.tensor.variable import TensorVariable

from pymc_mte.errors import ModelError
from pymc_mte.model import CausalModel

type Tensor = Any
"""A symbolic PyTensor variable; PyTensor's own annotations are too partial to use."""

Prior = float | list[float] | Mapping[str, Any] | Callable[..., Any]
"""A Dirichlet concentration, a ``{dist = ..., ...}`` or ``{pooled = scale}`` table, or ``f(name, dims)``."""

TABLE_CONCENTRATION = 2.0
FEW = 32
"""Up to so many levels log-ratios are turned by a matrix."""

WIDTH = 2.5
"""Pooled standard deviations that a mean may easily lie away from the pooled mean."""

SHAPES = {"nu": (2.0, 0.1), "dispersion": (2.0, 2.0), "shape": (2.0, 1.0)}
"""Gamma priors (shape, rate) of parameters without units."""

DISTRIBUTIONS: dict[str, Any] = {
    "normal": pm.Normal,
    "student_t": pm.StudentT,
    "halfnormal": pm.HalfNormal,
    "lognormal": pm.LogNormal,
    "gamma": pm.Gamma,
    "exponential": pm.Exponential,
}
"""What ``dist`` may name in a prior table; the other keys are its PyMC arguments."""


POSITIVE = ("sigma", "tau", "nu", "lam", "alpha", "beta", "scale")
"""Arguments of these that must be positive; of a gamma ``mu`` too."""


def merge_priors(model: CausalModel, given: Mapping[str, Prior] | None) -> dict[str, Prior]:
    """Collect the priors of the model file and of the call, under result names (``p_z``, ``mean_y``).

    They are checked and not built; what the data or other options decide is checked where it is used.
    """
    shares = "class_weight" if model.interventions is None else "target_weight"
    keys = {shares: shares}
    keys |= {f"{variable}.{parameter}": name for name, (variable, parameter) in model.owners.items()}
    keys |= {name: name for name in model.coefficient_dims}
    keys |= {f"{variable}.coef": f"coef_{variable}" for variable in model.regressed}
    of_groups = {"group_effect"} if model.treatment is not None else set()
    flat: dict[str, Prior] = {}
    for key, value in model.priors.items():
        if isinstance(value, Mapping) and key in model.variables:
            flat |= {f"{key}.{parameter}": prior for parameter, prior in value.items()}
        else:
            flat[key] = value
    if not isinstance(given, Mapping | None):
        raise ModelError(f"priors: priors by parameter are wanted, as in {{'p_z': 1.0}}, got {given!r}")
    flat |= given or {}
    out: dict[str, Prior] = {}
    for key, value in flat.items():
        name = keys.get(key, key)
        if name not in {*keys.values(), *of_groups}:
            raise ModelError(
                f"priors.{key}: no such parameter; choose one of {sorted(set(keys.values()))}"
                + ("; with a group also group_effect" if of_groups else "")
            )
        out[name] = value
        if name in model.coefficient_dims:
            prior_width(name, value)
        elif name in model.dims and not (isinstance(value, Mapping) and set(value) == {"pooled"}):
            check_prior(model, name, value)
    return out


def prior_width(name: str, prior: Prior | None) -> float:
    """Read the prior of coefficients: standard deviation of the whole linear part."""
    if prior is None:
        return WIDTH
    if isinstance(prior, (int, float, np.number)) and not isinstance(prior, bool) and 0 < prior < np.inf:
        return float(prior)
    raise ModelError(
        f"prior of {name}: give a positive number, the standard deviation of the joint contribution of "
        "covariates and linear parents (log-odds, or pooled standard deviations of a continuous variable); "
        f"got {prior!r}"
    )


def check_prior(model: CausalModel, name: str, prior: Prior) -> None:
    """Refuse a prior that the parameter cannot have, before anything is compiled."""
    kind = model.kind(name)
    probability = kind.support in ("simplex", "unit")
    if callable(prior):
        _check_signature(model, name, prior)
        return
    if not isinstance(prior, Mapping):
        if not probability:
            raise ModelError(
                f"prior of {name}: give a table such as {{dist = 'normal', mu = 0, sigma = 9}}, not {prior!r}"
            )
        concentration(model, name, prior)
        return
    dist = str(prior.get("dist", ""))
    if dist not in DISTRIBUTIONS or probability:
        raise ModelError(
            f"prior of {name}: a table of probabilities takes a concentration (number or list), any "
            f"other parameter a dist among {', '.join(DISTRIBUTIONS)}; got {dict(prior)}"
        )
    arguments = {key: value for key, value in prior.items() if key != "dist"}
    known = inspect.signature(DISTRIBUTIONS[dist].dist).parameters.values()
    taken = [p.name for p in known if p.kind is not p.VAR_KEYWORD]
    if unknown := arguments.keys() - set(taken):  # PyMC would ignore them
        raise ModelError(f"prior of {name}: {dist} has no {sorted(unknown)}; it takes {taken}")
    if kind.support == "positive" and dist in ("normal", "student_t"):
        raise ModelError(
            f"prior of {name}: it is always positive, and a {dist} is not; take halfnormal, lognormal, gamma "
            "or exponential"
        )
    for key, value in arguments.items():
        _check_argument(f"prior of {name}: {key} of {dist}", dist, key, value)


def _check_signature(model: CausalModel, name: str, prior: Callable[..., Any]) -> None:
    """Refuse a function that cannot be called with a name and axes."""
    try:
        signature = inspect.signature(prior)
    except ValueError:  # some built-in functions have none to see
        return
    try:
        signature.bind(name, free_dims(model, name))
    except TypeError as err:
        raise ModelError(f"prior of {name}: {_own_prior(model, name)}, got {signature} ({err})") from None


def _own_prior(model: CausalModel, name: str) -> str:
    """Say what a function of the caller's must be."""
    dims = free_dims(model, name)
    shape = model.shapes[name][: len(dims)]
    axes = ", ".join(dims) or "no axes"
    return f"f(name, dims) must return a random variable (or tensor) of shape {shape} ({axes})"


def _from_function(model: CausalModel, name: str, prior: Callable[..., Any]) -> Tensor:
    """Call a function of the caller's, and refuse what it gives where that has another shape."""
    dims = free_dims(model, name)
    given = prior(name, dims)
    try:
        value = pt.as_tensor(given)
    except (TypeError, ValueError, NotImplementedError):
        raise ModelError(f"prior of {name}: {_own_prior(model, name)}, got {type(given).__name__}") from None
    if (came := shape_of(value)) != model.shapes[name][: len(dims)]:
        raise ModelError(f"prior of {name}: {_own_prior(model, name)}, got one of shape {came}")
    return value


def shape_of(value: Tensor) -> tuple[int, ...]:
    """Shape of a tensor inside a PyMC model, without computing its values where axes have names."""
    if None not in value.type.shape:
        return tuple(value.type.shape)
    found = pm.compile([], [value.shape[i] for i in range(value.ndim)], mode="FAST_COMPILE")()
    return tuple(int(length) for length in found)


def _check_argument(what: str, dist: str, key: str, value: Any) -> None:
    """Refuse an argument of a distribution that is no finite number, or has the wrong sign."""
    if isinstance(value, TensorVariable):
        return
    try:
        number = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        number = np.full(1, np.nan)
    if not np.isfinite(number).all():
        raise ModelError(f"{what} must be a finite number, got {value!r}")
    if (key in POSITIVE or (dist, key) == ("gamma", "mu")) and not (number > 0).all():
        raise ModelError(f"{what} must be positive, got {value!r}")


class LogRatio(Transform):  # type: ignore[misc]
    """Log-ratios to the geometric mean, the last one left out.

    The coordinates of PyMC's own simplex, in fewer operations to compile. Ratios to one level would
    compile as fast, but mix badly where that level is rare.

    Parameters
    ----------
    levels : int
        Length of the last axis.
    """

    name = "logratio"

    def __init__(self, levels: int) -> None:
        self.levels = levels

    def forward(self, value: Tensor, *inputs: Tensor) -> Tensor:
        """Map probabilities to unconstrained log-ratios."""
        log_value = pt.log(value)
        return log_value[..., :-1] - log_value.mean(axis=-1, keepdims=True)

    def backward(self, value: Tensor, *inputs: Tensor) -> Tensor:
        """Map log-ratios to probabilities."""
        return pt.exp(self._log_backward(value))

    def log_jac_det(self, value: Tensor, *inputs: Tensor) -> Tensor:
        """Log-determinant of `backward`: log of the number of levels, plus all log-probabilities."""
        log_p = self._log_backward(value)
        return pt.log(log_p.shape[-1].astype("float64")) + log_p.sum(axis=-1)

    def _log_backward(self, value: Tensor) -> Tensor:
        if self.levels <= FEW:  # a concatenation and its gradient are long to compile
            to_last = np.hstack([np.eye(self.levels - 1) + 1.0, np.zeros((self.levels - 1, 1))])
            ratio = (value[..., None] * to_last).sum(axis=-2)
        else:
            ratio = value + value.sum(axis=-1, keepdims=True)
            ratio = pt.concatenate([ratio, pt.zeros_like(ratio[..., :1])], axis=-1)
        ratio = ratio - ratio.max(axis=-1, keepdims=True)
        return ratio - pt.log(pt.exp(ratio).sum(axis=-1, keepdims=True))


def is_bernoulli(model: CausalModel, name: str) -> bool:
    """Whether a parameter is the table of a bernoulli variable."""
    return name in model.owners and model.variables[model.owners[name][0]].family == "bernoulli"


def free_dims(model: CausalModel, name: str) -> tuple[str, ...]:
    """Axes of a parameter's random variable: a bernoulli ``p`` has no level axis."""
    return model.dims[name][:-1] if is_bernoulli(model, name) else model.dims[name]


def concentration(model: CausalModel, name: str, prior: object) -> NDArray[np.float64]:
    """Spread a number or a list over a table's axes; a probability has the levels failure and success."""
    shape = (*model.shapes[name], 2) if model.kind(name).support == "unit" else model.shapes[name]
    try:
        value = np.broadcast_to(np.asarray(prior, dtype=float), shape).copy()
    except (TypeError, ValueError):
        value = np.full(shape, np.nan)
    if not ((value > 0) & np.isfinite(value)).all():
        raise ModelError(
            f"prior of {name}: give a positive concentration, one number or one for each of the "
            f"{shape[-1]} levels; got {prior!r}"
        )
    return value


def prior_record(model: CausalModel, given: Mapping[str, Prior] | None) -> dict[str, Any]:
    """Say every parameter's prior, for a result's attributes: given ones as given, defaults in words."""
    chosen = merge_priors(model, given)
    names = [*model.dims, *model.coefficient_dims, *(["group_effect"] if "group_effect" in chosen else [])]
    return {name: _default(model, name) if name not in chosen else told(chosen[name]) for name in names}


def told(prior: Any) -> Any:
    """Give a prior a form that JSON holds."""
    if callable(prior):
        return "a function of the caller"
    if isinstance(prior, Mapping):
        return {key: told(value) for key, value in prior.items()}
    return prior if isinstance(prior, str) else np.asarray(prior).tolist()


def _default(model: CausalModel, name: str) -> str:
    if name in model.coefficient_dims:
        return f"Normal, joint contribution of SD {WIDTH:g}"
    kind = model.kind(name)
    if kind.support == "simplex" and not is_bernoulli(model, name):
        return f"Dirichlet({TABLE_CONCENTRATION:g})"
    if kind.support in ("simplex", "unit"):
        return f"Beta({TABLE_CONCENTRATION:g}, {TABLE_CONCENTRATION:g})"
    if kind.support == "real":
        return f"Normal(pooled mean, {WIDTH:g} pooled SD)"
    if kind.scope == "location":
        return f"LogNormal(log pooled mean, as wide as {WIDTH:g} pooled SD)"
    if kind.in_units:
        return f"HalfNormal({WIDTH:g} pooled SD)"
    alpha, beta = SHAPES[model.owners[name][1]]
    return f"Gamma({alpha:g}, {beta:g})"


def add_parameter(
    model: CausalModel,
    name: str,
    prior: Prior | None,
    centre: Tensor,
    spread: Tensor,
) -> Tensor:
    """Create one parameter as a random variable in the current PyMC model.

    Parameters
    ----------
    model : CausalModel
        The model.
    name : str
        Name in results.
    prior : Prior, optional
        In place of the default.
    centre, spread : tensors
        Pooled mean and standard deviation of the variable, for parameters in its units. A real location
        is Normal(centre, 2.5 spread), a positive one has the median centre and, on the log scale, the
        width that a coefficient of variation of 2.5 spread / centre has; a standard deviation is
        HalfNormal(2.5 spread).
    """
    dims, kind = free_dims(model, name), model.kind(name)
    if callable(prior):
        return _from_function(model, name, prior)
    if prior is not None:
        check_prior(model, name, prior)
    if isinstance(prior, Mapping):
        arguments = {key: value for key, value in prior.items() if key != "dist"}
        try:
            return DISTRIBUTIONS[str(prior["dist"])](name, **arguments, dims=dims)
        except (TypeError, ValueError) as err:
            raise ModelError(f"prior of {name}: {prior!r} cannot be taken ({err})") from None
    if kind.support in ("simplex", "unit"):
        a = concentration(model, name, TABLE_CONCENTRATION if prior is None else prior)
        if a.ndim > len(dims):
            return pm.Beta(name, alpha=a[..., 1], beta=a[..., 0], dims=dims)
        if a.shape[-1] == 1:  # one class: nothing to transform
            return pm.Dirichlet(name, a=a, dims=dims)
        return pm.Dirichlet(name, a=a, dims=dims, default_transform=LogRatio(a.shape[-1]))
    if kind.support == "real":
        return pm.Normal(name, mu=centre, sigma=WIDTH * spread, dims=dims)
    if kind.scope == "location":
        width = pt.sqrt(pt.log1p((WIDTH * spread / centre) ** 2))
        return pm.LogNormal(name, mu=pt.log(centre), sigma=width, dims=dims)
    if kind.in_units:
        return pm.HalfNormal(name, sigma=WIDTH * spread, dims=dims)
    alpha, beta = SHAPES[model.owners[name][1]]
    return pm.Gamma(name, alpha=alpha, beta=beta, dims=dims)
