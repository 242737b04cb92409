"""Standard errors to expect, before rows or proxies are paid for. NumPy and pandas."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pymc_mte.errors import ModelError
from pymc_mte.identify.jacobian import Spectrum, smooth, spectrum
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.scores import from_free, gradient, to_free
from pymc_mte.results import labels

Array = NDArray[np.float64]

N_ROWS = 20_000
"""Rows drawn for the information where the table of cells cannot be used: about 1% of an error."""

TIMES = (2, 4, 10)
"""Multiples of the number of rows in a plan."""


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
    point = _inside(model, parameters)
    slope = gradient(model, point, lambda q: smooth(model, q))
    return _table(model, point, slope, spectrum(model, point, np.random.default_rng(rng), N_ROWS), n)


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
    seed = int(np.random.default_rng(rng).integers(2**32))  # the same rows for every design
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
    return plan


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


def _table(
    model: CausalModel, point: Parameters, slope: dict[str, Array], found: Spectrum, n: float
) -> pd.DataFrame:
    values = smooth(model, point)
    rows = []
    for name in (*(name for name in slope if name not in model.dims), *model.dims):
        error = found.error(slope[name]) / np.sqrt(n)
        for label, index in labels(model, name):
            row = {"functional": label, "value": values[name][(0, *index)], "se": error[index]}
            rows.append(row | {"identified": bool(np.isfinite(error[index]))})
    return pd.DataFrame(rows).set_index("functional")
