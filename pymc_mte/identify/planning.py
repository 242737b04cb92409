"""Standard errors to expect, before rows or proxies are paid for. NumPy and pandas."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from pymc_mte.errors import ModelError
from pymc_mte.identify.jacobian import jacobian, smooth, spectrum
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.scores import from_free, gradient, to_free
from pymc_mte.randomness import as_generator
from pymc_mte.results import labels
from pymc_mte.status import Status
from pymc_mte.variable import Variable

Array = NDArray[np.float64]

N_ROWS = 20_000
"""Rows drawn for the information where the table of cells cannot be used: about 1% of an error."""

TIMES = (2, 4, 10)
"""Multiples of the number of rows in a plan."""

MAX_MORE = 2
"""Proxies to come that are tried where something is not identified."""

ANSWERS = ("ate", "att", "effect", "class_weight", "potential_outcome", "effect_sd")


def expected_errors(
    model: CausalModel, parameters: Parameters, n: float, *, rng: int | np.random.Generator = 0
) -> pd.DataFrame:
    """Tabulate the standard errors that n rows allow, from the Fisher information.

    Parameters
    ----------
    model : CausalModel
        The model.
    parameters : mapping of str to ndarray
        Parameters with the axes of ``model.dims``: a truth (`CausalModel.true_parameters`) or a fit.
    n : float
        Number of rows, above 0.
    rng : int or numpy.random.Generator
        Source of the 20,000 rows that stand for a table of cells that is too large, or not finite.

    Returns
    -------
    pandas.DataFrame
        One row per entry of every functional and parameter table: ``value``, ``se`` (Cramer-Rao, in
        the units of the value) and ``identified``, whether these parameters leave it locally
        identified. Where they do not, ``se`` is infinite.

    Raises
    ------
    ModelError
        If ``n`` is not positive or the parameters do not have the shapes that the model says.

    Notes
    -----
    Large-sample errors: with few rows, weak proxies or classes that nearly coincide real ones are
    larger. Probabilities below 1e-6 are raised to that.

    Examples
    --------
    >>> from pymc_mte import load_model
    >>> model = load_model("gallery:level3")
    >>> table = expected_errors(model, model.true_parameters(), 10_000)
    >>> float(table.loc["ate", "se"].round(3))
    0.011
    """
    _check(model, parameters, n)
    scaled, units = _in_own_units(model, parameters)
    point = _inside(model, scaled)
    slope = gradient(model, point, lambda q: smooth(model, q))
    found = spectrum(model, point, as_generator(rng), N_ROWS)
    error = {name: found.error(s) * _unit(model, units, name) / np.sqrt(n) for name, s in slope.items()}
    return _table(model, smooth(model, _inside(model, parameters)), error)


def plan_errors(
    model: CausalModel,
    parameters: Parameters,
    n: float,
    *,
    proxies: Sequence[str] | None = None,
    rng: int | np.random.Generator = 0,
) -> pd.DataFrame:
    """Tabulate expected standard errors now, with more rows, and with one more proxy.

    Parameters
    ----------
    model : CausalModel
        The model.
    parameters : mapping of str to ndarray
        As in `expected_errors`.
    n : float
        Number of rows now.
    proxies : sequence of str, optional
        Proxies to add a copy of, one at a time; all proxies by default.
    rng : int or numpy.random.Generator
        As in `expected_errors`.

    Returns
    -------
    pandas.DataFrame
        One row per entry of every functional and the class weights: ``value``, ``now``,
        ``2 times the rows``, ``4 times the rows``, ``10 times the rows``, and ``one more like z`` per
        proxy z. Infinite where not identified.

    Examples
    --------
    >>> from pymc_mte import load_model
    >>> model = load_model("gallery:level3")
    >>> plan = plan_errors(model, model.true_parameters(), 1_000)
    >>> bool(plan.loc["ate", "one more like x"] < plan.loc["ate", "now"])
    True
    """
    seed = int(as_generator(rng).integers(2**32))  # the same rows for every design
    now = expected_errors(model, parameters, n, rng=seed)
    tables = tuple(name for name in model.dims if name != "class_weight")
    shown = [label for label in now.index if label.partition("[")[0] not in tables]
    plan = now.loc[shown, ["value", "se"]].rename(columns={"se": "now"})
    for times in TIMES:
        plan[f"{times} times the rows"] = plan["now"] / np.sqrt(times)
    if proxies is None:
        proxies = (*model.treatment_proxies, *model.outcome_proxies)
    for proxy in proxies:
        larger = with_proxy_copy(model, parameters, proxy)
        plan[f"one more like {proxy}"] = expected_errors(*larger, n, rng=seed).loc[shown, "se"]
    plan.attrs = {"n": float(n)}
    return plan


def class_gaps(model: CausalModel, parameters: Parameters, n: float) -> list[dict[str, object]]:
    """Rows for a table of checks: how far neighbouring classes are apart, in standard errors.

    Neighbours in the first contrast's effect; their potential outcomes may differ where the effects tie.
    """
    if model.classes < 2 or model.treatment is None:
        return []
    scaled, units = _in_own_units(model, parameters)
    point = _inside(model, scaled)
    slope = gradient(model, point, lambda q: smooth(model, q))
    found = spectrum(model, point, np.random.default_rng(0), N_ROWS)
    values = smooth(model, point)
    rows = []
    for name, words in (("effect", "gap of effects"), ("potential_outcome", "gap of outcomes")):
        unit = _unit(model, units, name)
        value = values[name][0].reshape(model.classes, -1)
        change = slope[name].reshape(model.classes, value.shape[1], -1)
        gap = np.diff(value, axis=0)
        error = found.error(np.diff(change, axis=0)) / np.sqrt(n)
        if name == "effect":
            gap, error = gap[:, :1], error[:, :1]
        if not np.isfinite(error).all():
            continue  # not identified, and said to be
        best = np.argmax(np.abs(gap) / error, axis=1)
        for k, place in enumerate(best):
            size, se = unit * float(gap[k, place]), unit * float(error[k, place])
            apart = abs(size) > 2 * se
            arm = f", {model.treatment} = {model.arms[place]}" if name == "potential_outcome" else ""
            rows.append(
                {
                    "check": words,
                    "where": f"classes {k} and {k + 1}{arm}",
                    "value": size,
                    "se": se,
                    "p": float(2 * stats.norm.sf(abs(size) / se)) if se > 0 else np.nan,
                    "verdict": "ok" if apart else "doubt",
                    "advice": "" if apart else Status.CLASSES_TIED.value,
                }
            )
    return rows


def plan_lines(plan: pd.DataFrame) -> list[str]:
    """Say in a sentence what more rows and one more proxy would bring for the average effect."""
    name = next((label for label in plan.index if label.startswith("ate")), None)
    if name is None or not np.isfinite(plan.loc[name, "now"]):
        return []
    row = plan.loc[name]
    said = (
        f"At {plan.attrs['n']:,.0f} rows the likelihood allows a standard error of {row['now']:.2g} for "
        f"the average effect, at four times as many {row['4 times the rows']:.2g}"
    )
    copies = row.filter(like="one more like ")
    if len(copies):
        best = copies.astype(float).idxmin()
        said += f"; with {best} {copies[best]:.2g}"
    if not plan.attrs.get("simple", True):
        said += "; as if rows were drawn alone and with equal weights"
    return [said + "."]


def helpful_proxies(model: CausalModel) -> list[str]:
    """Say how many more proxies would fix what the likelihood leaves open; empty if nothing would."""
    open_now = _not_identified(model)
    for more in range(1, MAX_MORE + 1):
        extra = {f"proxy {i + 1} to come": Variable(family="bernoulli") for i in range(more)}
        fields = {key: getattr(model, key) for key in type(model).model_fields}
        fields |= {"variables": {**model.variables, **extra}, "truth": None, "priors": {}}
        fixed = [name for name in open_now if name not in _not_identified(CausalModel(**fields))]
        if fixed:
            what = "One more proxy" if more == 1 else "Two more proxies"
            kind = "(two levels, no edges to other variables)"
            return [f"{what} of the class {kind} would fix: {', '.join(fixed)}."]
    return []


def _not_identified(model: CausalModel) -> list[str]:
    found = jacobian(model)
    return [] if found is None else [n for n, good in found.identified.items() if not good and n in ANSWERS]


def with_proxy_copy(model: CausalModel, parameters: Parameters, proxy: str) -> tuple[CausalModel, Parameters]:
    """Add a proxy that is as strong as a given one and independent of it given class and parents.

    Parameters
    ----------
    model : CausalModel
        The model.
    parameters : mapping of str to ndarray
        Parameters with the axes of ``model.dims``.
    proxy : str
        The proxy to copy: same family, parents and parameters, same side, no children.

    Returns
    -------
    model : CausalModel
        With the new variable, named after the old one, as its last.
    parameters : dict of str to ndarray
        With those of the new variable.

    Raises
    ------
    ModelError
        If the variable is not a proxy.
    """
    sides = {"treatment_proxies": model.treatment_proxies, "outcome_proxies": model.outcome_proxies}
    side = next((key for key, names in sides.items() if proxy in names), None)
    if side is None:
        known = ", ".join((*model.treatment_proxies, *model.outcome_proxies)) or "none"
        raise ModelError(f"{proxy!r} is not a proxy of this model; its proxies are: {known}")
    name = f"{proxy}_copy"
    while name in model.variables:
        name += "_copy"
    fields = {key: getattr(model, key) for key in type(model).model_fields}
    fields |= {
        "variables": {**model.variables, name: model.variables[proxy]},
        side: (*sides[side], name),
        "truth": None,
        "priors": {},
    }
    copied = {
        f"{parameter}_{name}": parameters[f"{parameter}_{proxy}"]
        for parameter in model.variables[proxy].spec.parameters
    }
    return CausalModel(**fields), {**parameters, **copied}


def _check(model: CausalModel, parameters: Parameters, n: float) -> None:
    if not n > 0:
        raise ModelError(f"n must be above 0, got {n}")
    for name, shape in model.shapes.items():
        found = np.shape(parameters[name]) if name in parameters else None
        if found != shape:
            axes = ", ".join(model.dims[name]) or "no axes"
            got = "nothing" if found is None else f"the shape {found}"
            raise ModelError(f"parameters[{name!r}]: expected the shape {shape} ({axes}), got {got}")


def _inside(model: CausalModel, parameters: Parameters) -> Parameters:
    """Add a batch axis and move probabilities off zero, where scores end."""
    return from_free(model, to_free(model, {n: np.asarray(parameters[n])[None] for n in model.dims}))


def _in_own_units(model: CausalModel, parameters: Parameters) -> tuple[Parameters, dict[str, float]]:
    """Measure numbers that may be negative from their centre, in units of their spread; say the units.

    Gradients are taken in steps of fixed size, which values of 1e12 would round away. What linear parents
    tie together keeps its units.
    """
    tied = {name for edge in model.linear_edges for name in edge}
    out, units = dict(parameters), {}
    for name in model.continuous_variables:
        if model.variables[name].spec.values != "real" or name in tied:
            continue
        mean, sd = np.asarray(parameters[f"mean_{name}"]), np.asarray(parameters[f"sd_{name}"])
        away = mean - mean.mean()
        units[name] = float(np.abs(away).max() + sd.mean())
        out[f"mean_{name}"], out[f"sd_{name}"] = away / units[name], sd / units[name]
    return out, units


def _unit(model: CausalModel, units: Mapping[str, float], name: str) -> float:
    """Return the unit of a parameter or functional; functionals have the outcome's."""
    if name not in model.posterior_dims:
        return units.get(str(model.outcome), 1.0)
    if name not in model.owners or not model.kind(name).in_units:
        return 1.0
    return units.get(model.owners[name][0], 1.0)


def _table(model: CausalModel, values: Parameters, errors: Mapping[str, Array]) -> pd.DataFrame:
    rows = []
    for name in (*(name for name in errors if name not in model.dims), *model.dims):
        for label, index in labels(model, name):
            error = errors[name][index]
            row = {"functional": label, "value": values[name][(0, *index)], "se": error}
            rows.append(row | {"identified": bool(np.isfinite(error))})
    return pd.DataFrame(rows).set_index("functional")
