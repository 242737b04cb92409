"""Measurement first: classes from proxies and treatment alone, the outcome's class means after."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.bayes.assemble import judged
from pymc_mte.bayes.groups import identification_dataset
from pymc_mte.data import fingerprint
from pymc_mte.errors import ModelError, RefusedError
from pymc_mte.functionals import functionals
from pymc_mte.identify.identification import Identification
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.network import log_joint
from pymc_mte.results import class_order, dataset, dims_of, identified_functionals
from pymc_mte.status import Note, Status, dump_notes, load_notes
from pymc_mte.variable import Variable

Array = NDArray[np.float64]

BLOCK = 4_000_000
"""Numbers that are held at once: draws x patterns x classes."""

COLLINEAR = 1e-6
"""Class probabilities with a smaller relative singular value leave the regression to rounding."""

MAX_REASONS = 3
"""Levels of the outcome's other parents that a note on an arm lists."""


def sample_outcome_last(
    model: CausalModel,
    table: xr.Dataset,
    sampled: Callable[[CausalModel, xr.Dataset], xr.DataTree],
    seed: int,
) -> xr.DataTree:
    """Sample the classes without the outcome, then regress the outcome on them, draw by draw.

    Parameters
    ----------
    model : CausalModel
        With treatment and outcome.
    table : xarray.Dataset
        Tabulated data.
    sampled : callable
        Gives the posterior of the model without its outcome.
    seed : int
        Seed of the second step's resampling.

    Returns
    -------
    xarray.DataTree
        As from `pymc_mte.sample`, without parameters of the outcome but its means; ``measurement``
        holds the first step with its checks. ``identification`` is of both steps: an answer counts as
        identified only where the likelihood without the outcome fixes the classes.
    """
    part, rows = without_outcome(model, table)
    first = sampled(part, rows)
    draws = first["posterior"].to_dataset()
    parameters = {n: draws[n].transpose("chain", "draw", *part.dims[n]).values for n in part.dims}
    lead = parameters["class_weight"].shape[:2]
    flat = {n: v.reshape(-1, *v.shape[2:]) for n, v in parameters.items()}
    means = outcome_means_given_classes(model, part, flat, table, np.random.default_rng(seed))
    by_mean, mean = _described_by_its_mean(model)
    values = parameters | {mean: means.reshape(*lead, *means.shape[1:])}
    values |= functionals(by_mean, values)
    told = load_notes(str(first.attrs["notes"]))
    order = class_order(model, {"effect": np.nansum(values["effect"], axis=(0, 1))})
    if any(note.status is Status.CLASSES_BY_PRIOR for note in told):  # they keep the prior's numbers
        order = np.arange(model.classes)
    dims = dims_of(by_mean)
    values = {n: np.take(v, order, axis=2) if dims[n][:1] == ("class",) else v for n, v in values.items()}
    ordered = values.pop(mean)
    if model.variables[str(model.outcome)].spec.values == "real":  # else mean_y may be of a part
        values[f"mean_{model.outcome}"] = ordered
    tree = xr.DataTree.from_dict({"posterior": dataset(model, values)})
    tree["posterior"].attrs |= first["posterior"].attrs
    tree["sample_stats"] = xr.DataTree(first["sample_stats"].to_dataset())
    tree["observed_data"] = xr.DataTree(table)
    tree["measurement"] = first
    own = [*open_notes(model, part, first), *unresolved_notes(model, part, table, means)]
    found = judged_in_steps(model, part, table, first, values)
    tree["identification"] = xr.DataTree(identification_dataset(replace(found, notes=(*own, *found.notes))))
    more = {"model": model.to_toml(), "fingerprint": fingerprint(model, table), "method": "measurement first"}
    tree.attrs = {**first.attrs, **more, "notes": dump_notes(_joined([*own, *told], found))}
    return tree


def judged_in_steps(
    model: CausalModel, part: CausalModel, table: xr.Dataset, first: xr.DataTree, values: Parameters
) -> Identification:
    """Judge what graph and data carry when the classes are learnt without the outcome.

    The outcome's means rest on class probabilities, so on every table of the first step: where one is
    open, nothing is identified, averages included. Nor is what no draw could answer.
    """
    found, known = judged(model, table), identified_functionals(first)
    fixed = not _open_tables(part, first)
    answered = {name: bool(np.isfinite(value).all(axis=(0, 1)).any()) for name, value in values.items()}
    flags = {
        name: answered[name] and known.get(name, fixed) and found.identified.get(name, True)
        for name in dict.fromkeys((*found.identified, *known))
        if name in answered
    }
    said = f"The classes were learnt without {model.outcome}, whose class means follow by a regression: only "
    said += "what the likelihood fixes without it can be answered."
    return replace(found, identified=flags, tested=(said, *found.tested))


def _open_tables(part: CausalModel, first: xr.DataTree) -> list[str]:
    """Class weights and class-given tables that the likelihood of the first step leaves open."""
    dims = part.posterior_dims
    return [
        name for name, good in identified_functionals(first).items() if not good and "class" in dims[name]
    ]


def open_notes(model: CausalModel, part: CausalModel, first: xr.DataTree) -> list[Note]:
    """Say which tables of the first step are open, if any are."""
    if not (names := _open_tables(part, first)):
        return []
    attrs = first["identification"].attrs
    rank, n = int(attrs["rank"]), int(attrs["n_parameters"])
    counted = f"; the likelihood fixes {rank} of {n} parameters" if 0 <= rank < n else ""
    detail = f"open: {', '.join(names)}{counted}"
    return [Note(Status.MEASUREMENT_NOT_IDENTIFIED, f"without {model.outcome}", detail)]


def unresolved_notes(model: CausalModel, part: CausalModel, table: xr.Dataset, means: Array) -> list[Note]:
    """Name the arms whose rows do not tell the outcome of each class, and say why.

    Parameters
    ----------
    model, part : CausalModel
        The graph with and without the outcome.
    table : xarray.Dataset
        Tabulated data with the outcome.
    means : ndarray of shape (draws[, classes], *levels of the parents)
        From `outcome_means_given_classes`.
    """
    var, count = model.variables[str(model.outcome)], table["count"].values.astype(float)
    distinct, where = _distinct(part, table)
    at, sizes = _cells(model, {name: distinct[:, i] for i, name in enumerate(part.variables)})
    needed = model.classes if var.latent else 1
    lost = np.isnan(means).reshape(len(means), needed, -1).any(axis=1).mean(axis=0)
    number = np.bincount(at[where], count, minlength=lost.size)
    patterns = np.bincount(at, minlength=lost.size)
    reasons: dict[str, list[str]] = {}
    for cell in np.flatnonzero(lost):
        level = zip(var.parents, np.unravel_index(cell, sizes), strict=True)
        said = {p: f"{p} = {model.variables[p].labels[i]}" for p, i in level}
        arm = said.pop(str(model.treatment))  # always a parent of the outcome
        others = ", ".join(said.values())
        why = f"{number[cell]:,.10g} rows"
        if patterns[cell] >= needed:
            why += f" of {patterns[cell]} patterns with collinear class probabilities"
        elif patterns[cell]:
            why += (
                f" of only {patterns[cell]} pattern{'' if patterns[cell] == 1 else 's'} for {needed} classes"
            )
        why += f" in {lost[cell]:.1%} of the draws" if lost[cell] < 1 else ""
        reasons.setdefault(arm, []).append(why + (f" ({others})" if others else ""))
    notes = []
    for arm, found in reasons.items():
        shown = found[:MAX_REASONS] + ["..."] * (len(found) > MAX_REASONS)
        notes.append(Note(Status.CLASS_MEANS_UNRESOLVED, arm, "; ".join(shown)))
    return notes


def _joined(notes: list[Note], found: Identification) -> list[Note]:
    """Join the notes of both steps with those of the whole graph, each said once."""
    of_whole = [note for note in found.notes if note.status is not Status.CONSTANT_COLUMN]
    seen: dict[tuple[Status, str], Note] = {}
    for note in (*notes, *of_whole):
        seen.setdefault((note.status, note.where), note)
    return list(seen.values())


def without_outcome(model: CausalModel, table: xr.Dataset) -> tuple[CausalModel, xr.Dataset]:
    """Take the outcome out of the graph and of the patterns."""
    y = model.outcome
    if y is None:
        raise ModelError("measurement_first: this model names no outcome; add the roles")
    if model.censored:
        raise RefusedError(
            f"measurement_first: it averages {y!r}, and censored times have no averages to see"
        )
    if children := [name for name, var in model.variables.items() if y in var.parents]:
        raise ModelError(f"measurement_first: {children} follow the outcome, so its family matters to them")
    if model.variables[y].event is not None:
        raise ModelError(f"measurement_first: {y!r} is censored and has no mean without its family")
    fields = {name: getattr(model, name) for name in type(model).model_fields}
    roles = {"treatment": None, "outcome": None, "treatment_proxies": (), "outcome_proxies": ()}
    changed = {
        "name": f"{model.name} without {y}",
        "variables": {name: var for name, var in model.variables.items() if name != y},
        "priors": {key: prior for key, prior in model.priors.items() if key != y},
        "truth": None,
        "published": {},
        "reference": None,
    }
    part = CausalModel(**fields | roles | changed)
    distinct, where = _distinct(part, table)
    counts = np.zeros(len(distinct), dtype=table["count"].dtype)
    np.add.at(counts, where, table["count"].values)
    rows = xr.Dataset(
        {
            name: ("pattern", distinct[:, i].astype(table[name].dtype), table[name].attrs)
            for i, name in enumerate(part.variables)
        }
        | {"count": ("pattern", counts)},
        attrs=table.attrs,
    )
    return part, rows


def _distinct(part: CausalModel, table: xr.Dataset) -> tuple[Array, NDArray[np.int64]]:
    matrix = np.column_stack([table[name].values.astype(float) for name in part.variables])
    distinct, where = np.unique(matrix, axis=0, return_inverse=True)
    return distinct, where.ravel()


def _described_by_its_mean(model: CausalModel) -> tuple[CausalModel, str]:
    """Take the graph with a family of the outcome whose one parameter is its mean, and that one's name."""
    y = str(model.outcome)
    own = model.variables[y]
    changed = Variable(family="poisson", parents=own.parents, latent=own.latent)
    variables = {**model.variables, y: changed}
    return model.with_fields(variables=variables, truth=None, priors={}), f"rate_{y}"


def outcome_means_given_classes(
    model: CausalModel, part: CausalModel, parameters: Parameters, table: xr.Dataset, rng: np.random.Generator
) -> Array:
    """Regress the outcome on class probabilities, at every level of its observed parents.

    Given its parents and the class the outcome is independent of the proxies, so its mean in a pattern
    is the average of its class means by the pattern's class probabilities: the regression is right
    whatever the outcome's family, and corrects for how often a class is mistaken. Every draw weighs
    the rows by a Bayesian bootstrap of its own; within a pattern by its first two moments.

    Parameters
    ----------
    model : CausalModel
        The graph.
    part : CausalModel
        The graph without the outcome.
    parameters : mapping of str to ndarray
        Of ``part``, with one leading axis, the draws.
    table : xarray.Dataset
        Tabulated data with the outcome.
    rng : numpy.random.Generator
        Source of the bootstrap.

    Returns
    -------
    ndarray of shape (draws[, classes], *levels of the parents)
        NaN where no row has the parents' levels, or class probabilities are collinear there: too few
        patterns, or alike in all of them.
    """
    y = str(model.outcome)
    var, values, count = (
        model.variables[y],
        table[y].values.astype(float),
        table["count"].values.astype(float),
    )
    distinct, where = _distinct(part, table)
    number = np.bincount(where, count)
    mean = np.bincount(where, count * values) / number
    spread = np.sqrt(np.bincount(where, count * (values - mean[where]) ** 2) / number / (number + 1))
    columns = {name: distinct[:, i].astype(table[name].dtype) for i, name in enumerate(part.variables)}
    at, sizes = _cells(model, columns)
    draws = len(parameters["class_weight"])
    n_classes = model.classes if var.latent else 1
    out = np.full((draws, n_classes, int(np.prod(sizes))), np.nan)
    step = max(1, BLOCK // (len(distinct) * model.classes))
    for begin in range(0, draws, step):
        block = slice(begin, begin + step)
        share = np.ones((len(out[block]), len(distinct), 1))
        if var.latent:
            share = _class_probability(part, {n: v[block] for n, v in parameters.items()}, columns)
        weight = rng.gamma(number, size=share.shape[:2])
        drawn = mean + spread * rng.standard_normal(share.shape[:2])
        for cell in np.unique(at):
            out[block, :, cell] = _regression(share, weight, drawn, at == cell)
    return out.reshape(draws, *((n_classes,) if var.latent else ()), *sizes)


def _cells(model: CausalModel, columns: dict[str, Array]) -> tuple[NDArray[np.int64], tuple[int, ...]]:
    """Cell of the outcome's parents of every pattern, and the numbers of their levels."""
    parents = model.variables[str(model.outcome)].parents
    sizes = tuple(model.size(p) for p in parents)
    return np.ravel_multi_index([columns[p].astype(np.int64) for p in parents], sizes), sizes


def _class_probability(part: CausalModel, parameters: Parameters, columns: dict[str, Array]) -> Array:
    """P(class | pattern): (draws, patterns, classes)."""
    log_p = log_joint(part, parameters, columns)
    share = np.exp(log_p - log_p.max(axis=-2, keepdims=True))
    return np.moveaxis(share / share.sum(axis=-2, keepdims=True), 1, 2)


def _regression(share: Array, weight: Array, values: Array, rows: NDArray[np.bool_]) -> Array:
    """Weighted least squares of values (draws, patterns) on shares, some patterns only: (draws, classes).

    NaN in draws whose shares are collinear.
    """
    x, w, v = share[:, rows], weight[:, rows], values[:, rows]
    gram = np.einsum("dpj,dp,dpk->djk", x, w, x)
    moment = np.einsum("dpj,dp,dp->dj", x, w, v)
    size = np.linalg.eigvalsh(gram)  # squares of the singular values
    clear = size[:, 0] > COLLINEAR**2 * size[:, -1]
    out = np.full(moment.shape, np.nan)
    out[clear] = np.linalg.solve(gram[clear], moment[clear, :, None])[..., 0]
    return out
