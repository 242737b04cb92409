"""The likelihood row by row: for covariates, missing values and sampling weights.

One matrix product gives every class's log-density of the parts that are linear in it: tables as
indicators of their cells, normal values as powers 0 to 2, covariates as uncorrelated directions.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.bayes.coefficients import add_coefficients
from pymc_mte.bayes.densities import LOG_DENSITY
from pymc_mte.bayes.priors import TABLE_CONCENTRATION, LogRatio, Prior, Tensor, add_parameter
from pymc_mte.bayes.rowlayout import RowLayout, row_layout
from pymc_mte.bayes.start import with_first_levels
from pymc_mte.data import SAMPLING_WEIGHT, has_missing
from pymc_mte.errors import ModelError
from pymc_mte.families import LINKS, binomial_coefficients
from pymc_mte.model import CausalModel
from pymc_mte.regression import draw_given

Array = NDArray[np.float64]


def needs_rows(model: CausalModel, table: xr.Dataset) -> bool:
    """Whether the likelihood cannot be collapsed: covariates, missing values or sampling weights."""
    return bool(model.covariates) or SAMPLING_WEIGHT in table or has_missing(model, table)


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
        along, coefficients = add_coefficients(model, layout, priors, pooled)
        parameters |= coefficients
    design, weight = pm.Data("design", layout.design), pm.Data("row_weight", layout.weight)
    if layout.covariates is not None:
        directions = design[:, layout.design.shape[1] - layout.covariates.values.shape[1] :]
        parameters["class_weight"] = _average_weight(model, parameters, along, directions, weight)
    data = RowData(model, layout, design, weight, pooled)
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
    return pm.Dirichlet("baseline_weight", a=concentration, dims="class", default_transform=LogRatio())


def _average_weight(
    model: CausalModel,
    parameters: Mapping[str, Tensor],
    along: Mapping[str, Tensor],
    directions: Tensor,
    weight: Tensor,
) -> Tensor:
    """Class weights averaged over the rows' covariates."""
    if "class" not in along:
        return pm.Deterministic("class_weight", parameters["baseline_weight"], dims="class")
    total = pt.log(parameters["baseline_weight"]) + directions @ along["class"]
    p = pt.exp(total - pm.math.logsumexp(total, axis=1, keepdims=True))
    return pm.Deterministic("class_weight", (weight / weight.sum()) @ p, dims="class")


def _observe(
    model: CausalModel,
    layout: RowLayout,
    parameters: Mapping[str, Tensor],
    along: Mapping[str, Tensor],
    data: "RowData",
) -> None:
    """Observe all variables of every row as one distribution, the class summed out.

    The density reads the rows from the design, which is made of them once; the observed matrix is
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
        return (data.weight * pm.math.logsumexp(log_p, axis=1)).sum()

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

    def __init__(
        self,
        model: CausalModel,
        layout: RowLayout,
        design: Tensor,
        weight: Tensor,
        pooled: dict[str, tuple[Tensor, Tensor]],
    ) -> None:
        self.design, self.weight, self.pooled = design, weight, pooled
        place = {name: i for i, name in enumerate(model.variables)}
        outside = [n for n in layout.parent_cell if not model.variables[n].discrete]
        self.value = {n: pm.Data(f"value_{n}", layout.value[:, place[n]]) for n in outside}
        self.own_cell = {n: pm.Data(f"cell_{n}", v) for n, v in layout.own_cell.items()}
        self.parent_cell = {n: pm.Data(f"parent_cell_{n}", v) for n, v in layout.parent_cell.items()}
        self.seen = {n: pm.Data(f"seen_{n}", v) for n, v in layout.seen.items()}


def log_joint_rows(
    model: CausalModel, layout: RowLayout, data: RowData, values: Mapping[str, Tensor]
) -> Tensor:
    """Log P(class, row | covariates) as a tensor (row, class)."""
    k = model.classes
    constant = pt.zeros(k)
    rows: list[Tensor] = []
    for name, gaps in layout.tables.items():
        log_p = log_table(model, name, values[f"p_{name}"])
        if not gaps and not model.variables[name].parents:
            constant = constant + log_p[:, 0]
            log_p = log_p[:, 1:] - log_p[:, :1]
        rows.append(_to_classes(log_p, k).T)
    for name, gaps in layout.normals.items():
        powers, one = _normal_powers(values[f"mean_{name}"], values[f"sd_{name}"], *data.pooled[name])
        powers = [*powers, one] if gaps else powers
        lead = k if model.variables[name].latent else 1
        rows.append(_to_classes(pt.stack(powers, axis=-1).reshape((lead, len(powers))), k).T)
        constant = constant if gaps else constant + one
    shifts: dict[str, Tensor] = {}
    total = _linear(model, layout, data, rows, values, shifts)
    if layout.covariates is None:
        constant = constant + pt.log(values["class_weight"])
    else:
        odds = shifts.pop("class", 0.0) + pt.log(values["baseline_weight"])
        total = total + odds - pm.math.logsumexp(odds, axis=-1, keepdims=True)
    total = total + constant
    for name in layout.parent_cell:
        own = _outside(model, data, name, values, shifts.get(name))
        total = total + (own * data.seen[name][:, None] if name in data.seen else own)
    return total


def _linear(
    model: CausalModel,
    layout: RowLayout,
    data: RowData,
    rows: list[Tensor],
    values: Mapping[str, Tensor],
    shifts: dict[str, Tensor],
) -> Tensor:
    """Multiply the design once; fill ``shifts`` with the linear parts of what covariates move."""
    k = model.classes
    n_directions = 0 if layout.covariates is None else layout.covariates.values.shape[1]
    n_features = layout.design.shape[1] - n_directions
    along = {n.removeprefix("along_"): v for n, v in values.items() if n.startswith("along_")}
    widths = {n: 1 if v.ndim == 1 else k if n == "class" else model.size(n) for n, v in along.items()}
    flat = [v.reshape((n_directions, widths[n])) for n, v in along.items()]
    if not layout.design.shape[1]:
        return pt.zeros((data.design.shape[0], k))
    wide = sum(widths.values())
    blocks = []
    if n_features:
        features = pt.concatenate(rows, axis=0)
        blocks.append(pt.concatenate([features, pt.zeros((n_features, wide))], axis=1) if wide else features)
    if wide:
        joined = pt.concatenate(flat, axis=1)
        blocks.append(pt.concatenate([pt.zeros((n_directions, k)), joined], axis=1))
    product = data.design @ (pt.concatenate(blocks, axis=0) if len(blocks) > 1 else blocks[0])
    at = k
    for name, width in widths.items():
        part = product[:, at : at + width]
        shifts[name] = part if along[name].ndim == 2 else part[:, 0]
        at += width
    return product[:, :k]


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
    """Log-density of a variable that is not linear in the design: (row, class or 1)."""
    var = model.variables[name]
    if not var.discrete:
        own = {p: _at_parents(model, data, name, p, values[f"{p}_{name}"]) for p in var.spec.parameters}
        if shift is not None:
            parameter, link = LINKS[var.family]
            moved = shift[:, None] if link == "identity" else pt.exp(shift)[:, None]
            own[parameter] = own[parameter] + moved if link == "identity" else own[parameter] * moved
        return LOG_DENSITY[var.family](data.value[name][:, None], *own.values())
    log_p = log_table(model, name, values[f"p_{name}"])
    if shift is None:
        return log_p[:, data.own_cell[name]].T
    return _tilted(model, data, name, values[f"p_{name}"], log_p, shift)


def _at_parents(model: CausalModel, data: RowData, name: str, parameter: str, value: Tensor) -> Tensor:
    """Take a parameter at every row's parents: (row or 1, class or 1)."""
    dims = model.dims[f"{parameter}_{name}"]
    k = model.classes if "class" in dims else 1
    if all(d == "class" for d in dims):
        return value.reshape((1, k))
    return value.reshape((k, -1))[:, data.parent_cell[name]].T


def _tilted(
    model: CausalModel, data: RowData, name: str, value: Tensor, log_p: Tensor, shift: Tensor
) -> Tensor:
    """Log-density of a discrete variable whose log-odds covariates move: (row, class or 1)."""
    var, size = model.variables[name], model.size(name)
    level = data.own_cell[name] % size
    cells, k = data.parent_cell[name], model.classes if var.latent else 1
    if var.family == "bernoulli" or var.trials is not None:
        odds = pt.log(value) - pt.log1p(-value)
        odds = odds.reshape((k, -1))[:, cells].T if var.parents else odds.reshape((1, k))
        odds = odds + shift[:, None]
        trials = var.trials or 1
        hits = pt.cast(level, "float64")[:, None]
        log_b = pt.as_tensor(np.log(binomial_coefficients(trials)))[level][:, None] if trials > 1 else 0.0
        return log_b + hits * odds - trials * pt.softplus(odds)
    table = log_p.reshape((k, -1, size))[:, cells] if var.parents else log_p.reshape((k, 1, size))
    total = table + shift[None]
    log_all = total - pm.math.logsumexp(total, axis=-1, keepdims=True)
    return log_all[:, pt.arange(level.shape[0]), level].T


def _draw(model: CausalModel, layout: RowLayout, drawn: Mapping[str, Any], rng: np.random.Generator) -> Array:
    """Draw all variables of every row once: (row, variable)."""
    parameters = {n: np.asarray(v, dtype=float) for n, v in drawn.items() if not n.startswith("along_")}
    parameters = with_first_levels(model, parameters)
    parameters |= {
        f"coef_{n.removeprefix('along_')}": np.asarray(v).T
        for n, v in drawn.items()
        if n.startswith("along_")
    }
    given = None if layout.covariates is None else layout.covariates.values
    _, columns = draw_given(model, parameters, given, len(layout.weight), rng)
    return np.column_stack([columns[name] for name in model.variables]).astype(float)
