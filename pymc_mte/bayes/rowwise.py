"""The likelihood row by row: for covariates, linear parents, missing values and sampling weights.

Matrix products give every class's log-density of the parts that are linear in it: tables as
indicators of their cells, normal values as powers 0 to 2, what shifts a variable as uncorrelated directions.
Classes are the first axis, so that inner loops run along rows.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.bayes.coefficients import add_coefficients, class_contrasts
from pymc_mte.bayes.densities import LOG_DENSITY
from pymc_mte.bayes.priors import TABLE_CONCENTRATION, LogRatio, Prior, Tensor, add_parameter
from pymc_mte.bayes.products import products
from pymc_mte.bayes.rowlayout import RowLayout, row_layout
from pymc_mte.bayes.softplus import softplus
from pymc_mte.bayes.start import with_first_levels
from pymc_mte.data import SAMPLING_WEIGHT, has_missing
from pymc_mte.errors import ModelError
from pymc_mte.families import LINKS, binomial_coefficients
from pymc_mte.model import CausalModel
from pymc_mte.regression import draw_given

Array = NDArray[np.float64]


def needs_rows(model: CausalModel, table: xr.Dataset) -> bool:
    """Whether rows cannot be collapsed: covariates, linear parents, missing values or sampling weights."""
    return bool(model.regressed) or SAMPLING_WEIGHT in table or has_missing(model, table)


def compose_rows(model: CausalModel, table: xr.Dataset, priors: Mapping[str, Prior]) -> dict[str, Tensor]:
    """Add parameters and the observed ``rows`` (row, variable) to the current PyMC model.

    Parameters
    ----------
    model : CausalModel
        The graph, its levels resolved.
    table : xarray.Dataset
        Tabulated data.
    priors : mapping
        By result name, see `merge_priors`.

    Returns
    -------
    dict of str to tensor
        The parameters by result name.
    """
    layout = row_layout(model, table)
    hidden = ("treatment", "contrast")
    pm.modelcontext(None).add_coords({n: list(v) for n, v in model.coords.items() if n not in hidden})
    pooled = {
        v: (pm.Data(f"pooled_mean_{v}", mean), pm.Data(f"pooled_sd_{v}", sd))
        for v, (mean, sd) in layout.pooled.items()
    }
    parameters = {
        name: add_parameter(model, name, priors.get(name), *pooled.get(variable, (None, None)))
        for name, (variable, _) in model.owners.items()
    }
    along: dict[str, Tensor] = {}
    if layout.covariates is None:
        parameters["class_weight"] = add_parameter(
            model, "class_weight", priors.get("class_weight"), None, None
        )
    else:
        parameters["baseline_weight"] = _baseline(model, priors.get("class_weight"))
    if model.regressed:
        along, coefficients = add_coefficients(model, layout, priors, pooled)
        parameters |= coefficients
    data = RowData(model, layout)
    if layout.covariates is not None:
        parameters["class_weight"] = _average_weight(model, parameters, along, data)
    _observe(model, layout, parameters, along, data)
    return parameters


def _baseline(model: CausalModel, prior: Prior | None) -> Tensor:
    """Class weights at the covariates' means, under the prior of the class weights."""
    try:
        concentration = np.broadcast_to(
            np.asarray(TABLE_CONCENTRATION if prior is None else prior, dtype=float), (model.classes,)
        )
    except (TypeError, ValueError):
        raise ModelError(
            f"prior of class_weight: give a concentration, one number or one per class; got {prior!r}"
        ) from None
    if model.classes == 1:
        return pm.Dirichlet("baseline_weight", a=concentration, dims="class")
    return pm.Dirichlet(
        "baseline_weight", a=concentration, dims="class", default_transform=LogRatio(model.classes)
    )


def _average_weight(
    model: CausalModel,
    parameters: Mapping[str, Tensor],
    along: Mapping[str, Tensor],
    data: "RowData",
) -> Tensor:
    """Class weights averaged over the rows' covariates."""
    if "class" not in along:
        return pm.Deterministic("class_weight", parameters["baseline_weight"], dims="class")
    total = data.directions @ (along["class"] @ class_contrasts(model.classes).T)
    total = total + pt.log(parameters["baseline_weight"])
    p = pt.exp(total - pm.math.logsumexp(total, axis=1, keepdims=True))
    return pm.Deterministic("class_weight", (data.weight / data.weight.sum()) @ p, dims="class")


def _observe(
    model: CausalModel,
    layout: RowLayout,
    parameters: Mapping[str, Tensor],
    along: Mapping[str, Tensor],
    data: "RowData",
) -> None:
    """Observe all variables of every row as one distribution, the class summed out.

    The density reads the rows from the features, which are made of them once; the observed matrix is
    what predictive draws are compared with.
    """
    base = "class_weight" if layout.covariates is None else "baseline_weight"
    values = {base: parameters[base], **{n: parameters[n] for n in model.owners}}
    values |= {f"along_{n}": v for n, v in along.items()}
    ndim = {n: v.ndim for n, v in values.items()}

    def unpacked(arguments: tuple[Any, ...]) -> dict[str, Any]:
        """Name the arguments; drop the batch axes that a distribution puts in front of them."""
        return {
            name: a.reshape(a.shape[a.ndim - ndim[name] :]) if a.ndim > ndim[name] else a
            for name, a in zip(values, arguments, strict=True)
        }

    def logp(value: Tensor, *arguments: Tensor) -> Tensor:
        log_p = log_joint_rows(model, layout, data, unpacked(arguments[:-1]))
        return (data.weight * log_add_exp(log_p, model.classes)).sum()

    def random(*arguments: Any, rng: np.random.Generator, size: Any = None) -> Array:
        drawn = unpacked(arguments[:-1])
        repeats = int(np.prod(size)) if size else 1
        out = np.stack([_draw(model, layout, drawn, rng) for _ in range(repeats)])
        return out.reshape(*(size or ()), *out.shape[1:])

    observed = pm.Data("value", layout.value)
    axes = ["(" + ",".join(f"a{i}b{j}" for j in range(n)) + ")" for i, n in enumerate(ndim.values())]
    pm.CustomDist(
        "rows",
        *values.values(),
        0.0 * observed,
        logp=logp,
        random=random,
        signature=",".join([*axes, "(r,v)"]) + "->(r,v)",
        observed=observed,
    )


class RowData:
    """Symbolic data of the density: the arrays of a `RowLayout` under the same names."""

    def __init__(self, model: CausalModel, layout: RowLayout) -> None:
        self.weight = pm.Data("row_weight", layout.weight)
        self.features = pm.Data("features", layout.features)
        # Not the priors' scale, which `calibrate` keeps while it puts other rows in.
        scale = {n: layout.pooled[n] for n in layout.normals}
        self.scale = {
            n: (pm.Data(f"feature_mean_{n}", mean), pm.Data(f"feature_sd_{n}", sd))
            for n, (mean, sd) in scale.items()
        }
        given = layout.covariates
        self.directions = None if given is None else pm.Data("directions", given.values)
        self.linear = {n: pm.Data(f"directions_{n}", found.values) for n, found in layout.linear.items()}
        place = {name: i for i, name in enumerate(model.variables)}
        outside = [n for n in layout.parent_cell if not model.variables[n].discrete]
        self.value = {n: pm.Data(f"value_{n}", layout.value[:, place[n]]) for n in outside}
        self.own_cell = {n: pm.Data(f"cell_{n}", v) for n, v in layout.own_cell.items()}
        self.parent_cell = {n: pm.Data(f"parent_cell_{n}", v) for n, v in layout.parent_cell.items()}
        self.seen = {n: pm.Data(f"seen_{n}", v) for n, v in layout.seen.items()}


def log_add_exp(value: Tensor, classes: int) -> Tensor:
    """Log of the sum of exponentials over the first axis, of known length, in elementwise steps.

    A class may have density 0, whichever number it bears.

    PyTensor's own logsumexp is several times slower here: it reduces over the short axis and its
    gradient is not fused with what surrounds it.
    """
    total = value[0]
    for k in range(1, classes):
        first = total > value[k]  # not `maximum`, whose gradient counts ties twice
        top, low = pt.switch(first, total, value[k]), pt.switch(first, value[k], total)
        total = top + softplus(pt.switch(top > -np.inf, low - top, 0.0))
    return total


def log_joint_rows(
    model: CausalModel, layout: RowLayout, data: RowData, values: Mapping[str, Tensor]
) -> Tensor:
    """Log P(class, row | covariates) as a tensor (class, row)."""
    k = model.classes
    constant = pt.zeros(k)
    columns: list[Tensor] = []
    for name, gaps in layout.tables.items():
        log_p = log_table(model, name, values[f"p_{name}"])
        if not gaps and not model.variables[name].parents:
            constant = constant + log_p[:, 0]
            log_p = log_p[:, 1:] - log_p[:, :1]
        columns.append(_to_classes(log_p, k))
    for name, gaps in layout.normals.items():
        powers, one = _normal_powers(values[f"mean_{name}"], values[f"sd_{name}"], *data.scale[name])
        powers = [*powers, one] if gaps else powers
        lead = k if model.variables[name].latent else 1
        columns.append(_to_classes(pt.stack(powers, axis=-1).reshape((lead, len(powers))), k))
        constant = constant if gaps else constant + one
    shifts = _shifts(model, data, values)
    if layout.covariates is None:
        constant = constant + pt.log(values["class_weight"])
        total = constant[:, None]
    else:
        odds = pt.log(values["baseline_weight"])[:, None]
        if "class" in shifts:  # not a product of matrices: BLAS would start threads for a sum of k - 1 terms
            odds = odds + sum(row[:, None] * shifts["class"][j] for j, row in enumerate(class_contrasts(k).T))
        total = odds - log_add_exp(odds, k) + constant[:, None]
    if columns:
        total = total + _per_class(data.features, pt.concatenate(columns, axis=1), k)
    for name in layout.parent_cell:
        own = _outside(model, data, name, values, shifts.get(name))
        total = total + (own * data.seen[name] if name in data.seen else own)
    return total + pt.zeros_like(data.weight)


def _per_class(features: Tensor, vectors: Tensor, classes: int) -> Tensor:
    return pt.stack(products(features, [vectors[k] for k in range(classes)]))


def _shifts(model: CausalModel, data: RowData, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Linear parts of what has one: (row,), or (contrast or level, row); every matrix is read once."""
    columns: dict[str, dict[str, list[Tensor]]] = {}  # by matrix: its own of a variable, or the covariates'
    for argument, value in values.items():
        if argument.startswith("along_"):
            name = argument.removeprefix("along_")
            width = model.classes - 1 if name == "class" else model.size(name) if value.ndim == 2 else 0
            own = [value[:, i] for i in range(width)] if width else [value]
            columns.setdefault(name if name in data.linear else "", {})[name] = own
    parts: dict[str, list[Tensor]] = {}
    for matrix, vectors in columns.items():
        directions = data.linear[matrix] if matrix else data.directions
        found = iter(products(directions, [vector for own in vectors.values() for vector in own]))
        parts |= {name: [next(found) for _ in own] for name, own in vectors.items()}
    return {n: pt.stack(own) if values[f"along_{n}"].ndim == 2 else own[0] for n, own in parts.items()}


def log_table(model: CausalModel, name: str, value: Tensor) -> Tensor:
    """Log P(level | class, parents) of a discrete variable as a tensor (class or 1, cell)."""
    var = model.variables[name]
    if var.family == "bernoulli":
        log_p = pt.stack([pt.log1p(-value), pt.log(value)], axis=-1)
    elif var.trials is not None:
        s = np.arange(var.trials + 1.0)
        log_p = s * pt.log(value)[..., None] + (var.trials - s) * pt.log1p(-value)[..., None]
        log_p = log_p + np.log(binomial_coefficients(var.trials))
    else:
        log_p = pt.log(value)
    cells = int(np.prod([model.size(v) for v in (*var.parents, name)]))
    return log_p.reshape((model.classes if var.latent else 1, cells))


def _to_classes(value: Tensor, k: int) -> Tensor:
    """Repeat what no class changes: (class, ...)."""
    return value if value.type.shape[0] == k else pt.ones((k, 1)) * value


def _normal_powers(mean: Tensor, sd: Tensor, centre: float, scale: float) -> tuple[list[Tensor], Tensor]:
    """Coefficients of the standardised value, its square and 1 in the normal log-density."""
    m, precision = (mean - centre) / scale, (scale / sd) ** 2
    one = -0.5 * m * m * precision - pt.log(sd) - 0.5 * np.log(2 * np.pi)
    return [m * precision, -0.5 * precision], one


def _outside(
    model: CausalModel,
    data: RowData,
    name: str,
    values: Mapping[str, Tensor],
    shift: Tensor | None,
) -> Tensor:
    """Log-density of a variable that is not linear in the features: (class or 1, row)."""
    var = model.variables[name]
    if not var.discrete:
        own = {p: _at_parents(model, data, name, p, values[f"{p}_{name}"]) for p in var.spec.parameters}
        if shift is not None:
            parameter, link = LINKS[var.family]
            own[parameter] = own[parameter] + shift if link == "identity" else own[parameter] * pt.exp(shift)
        return LOG_DENSITY[var.family](data.value[name], *own.values())
    log_p = log_table(model, name, values[f"p_{name}"])
    if shift is None:
        return log_p[:, data.own_cell[name]]
    return _tilted(model, data, name, values[f"p_{name}"], log_p, shift)


def _at_parents(model: CausalModel, data: RowData, name: str, parameter: str, value: Tensor) -> Tensor:
    """Take a parameter at every row's parents: (class or 1, row or 1)."""
    dims = model.dims[f"{parameter}_{name}"]
    k = model.classes if "class" in dims else 1
    if all(d == "class" for d in dims):
        return value.reshape((k, 1))
    return value.reshape((k, -1))[:, data.parent_cell[name]]


def _tilted(
    model: CausalModel, data: RowData, name: str, value: Tensor, log_p: Tensor, shift: Tensor
) -> Tensor:
    """Log-density of a discrete variable whose log-odds are shifted: (class or 1, row)."""
    var, size = model.variables[name], model.size(name)
    level = data.own_cell[name] % size
    cells, k = data.parent_cell[name], model.classes if var.latent else 1
    if var.family == "bernoulli" or var.trials is not None:
        odds = pt.log(value) - pt.log1p(-value)
        odds = odds.reshape((k, -1))[:, cells] if var.parents else odds.reshape((k, 1))
        odds = odds + shift
        trials = var.trials or 1
        hits = pt.cast(level, "float64")
        log_b = pt.as_tensor(np.log(binomial_coefficients(trials)))[level] if trials > 1 else 0.0
        return log_b + hits * odds - trials * softplus(odds)
    table = log_p.reshape((k, -1, size))[:, cells] if var.parents else log_p.reshape((k, 1, size))
    total = table + shift.T
    log_all = total - pm.math.logsumexp(total, axis=-1, keepdims=True)
    return log_all[:, pt.arange(level.shape[0]), level]


def _draw(model: CausalModel, layout: RowLayout, drawn: Mapping[str, Any], rng: np.random.Generator) -> Array:
    """Draw all variables of every row once: (row, variable)."""
    parameters = {n: np.asarray(v, dtype=float) for n, v in drawn.items() if not n.startswith("along_")}
    parameters = with_first_levels(model, parameters)
    along = {n.removeprefix("along_"): np.asarray(v) for n, v in drawn.items() if n.startswith("along_")}
    if "class" in along:
        along["class"] = along["class"] @ class_contrasts(model.classes).T
    parameters |= {f"coef_{n}": (layout.directions(n).to_covariates @ v).T for n, v in along.items()}
    _, columns = draw_given(model, parameters, layout.centred, len(layout.weight), rng)
    return np.column_stack([columns[name] for name in model.variables]).astype(float)
