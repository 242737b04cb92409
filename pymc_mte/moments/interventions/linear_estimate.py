"""`estimate` for linear Gaussian networks under interventions: targets, values and shares."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.data import data_notes, fingerprint
from pymc_mte.errors import ModelError
from pymc_mte.model import CausalModel
from pymc_mte.moments.bootstrap import robust_se
from pymc_mte.moments.interventions.gaussian import memberships, refit
from pymc_mte.moments.interventions.gaussian_average import Average, average, average_replicates
from pymc_mte.moments.interventions.gaussian_errors import Replicates
from pymc_mte.moments.interventions.gaussian_evidence import log_evidence
from pymc_mte.moments.interventions.gaussian_misfit import absent_edge
from pymc_mte.moments.interventions.gaussian_search import in_order, unmix_listed
from pymc_mte.moments.interventions.gaussian_sets import TargetSet, find_sets
from pymc_mte.moments.interventions.linear import FALSE_ALARMS
from pymc_mte.moments.interventions.linear_rows import LinearProblem, linear_problem, network_parameters
from pymc_mte.randomness import as_generator
from pymc_mte.results import provenance
from pymc_mte.status import Note, Status, dump_notes

Array = NDArray[np.float64]

UNCLEAR = (0.1, 0.9)
"""A target whose probability lies between these is called unclear."""

N_CHAINS = 4


def estimate_linear(
    model: CausalModel,
    data: Any = None,
    *,
    base: Any = None,
    method: str = "auto",
    n_boot: int = 400,
    rng: int | np.random.Generator = 0,
) -> xr.DataTree:
    """Estimate targets, values and shares of a mixture of interventions on a linear Gaussian network.

    Parameters
    ----------
    model : CausalModel
        A model with interventions whose variables are all normal. Its ``targets``, if listed, are the
        components, one for each.
    data : tabulated Dataset, dataframe, mapping or path, optional
        The mixture's rows; the model's own data file by default.
    base : the same, optional
        Rows of the untouched network. By default the model's ``base`` parameters or ``base_file``.
    method : {"auto", "polished"}
        Maximum likelihood; targets and their number by their evidence.
    n_boot : int
        Bootstrap replicates, a multiple of 4; 0 for none. Each takes one of the plausible sets of targets
        by its probability, and one scoring step from that set's fit.
    rng : int or numpy.random.Generator
        Source of starts and resamples.

    Returns
    -------
    xarray.DataTree
        Group ``estimate``, along ``target``: ``target_weight`` (averaged over all plausible sets of
        targets), ``inclusion_probability`` (of the target being there), ``log_evidence`` (by how many nats
        the best set with it beats the best without), ``selected`` (it is in the best set),
        ``selected_weight`` (share in the best set), ``overlap`` (probability that a row of the target looks
        like another's); along ``target`` and ``variable``: ``touched`` and ``shift`` or, for ``do``,
        ``value`` and ``spread`` (given that the target is there, in the variable's units, 0 where
        untouched); with ``se_target_weight`` and ``se_shift`` or ``se_value`` if there are replicates; along
        ``target_set``: ``included`` and ``set_probability``; and the untouched equations (``intercept_b``,
        ``coefficient_b``, ``sd_b``). Group ``posterior``: replicates of shares and values.

    Notes
    -----
    Which nodes a component touches is a choice between models, and near ties are common where components
    overlap. So the sets near the best one are weighed by Laplace's approximation of their evidence.

    Raises
    ------
    RefusedError
        If no base network is known.

    Examples
    --------
    >>> from pymc_mte import load_model, simulate
    >>> model = load_model("gallery:linear_shifts")
    >>> found = estimate_linear(model, simulate(model, 4_000, rng=1), n_boot=0)["estimate"]
    >>> found["touched"].values[found["selected"].values].sum(axis=1).tolist()
    [0, 1, 2, 2]
    """
    if method not in ("auto", "polished"):
        raise ModelError(f"method {method!r}: linear Gaussian networks take auto or polished")
    problem = linear_problem(model, data, base)
    generator = as_generator(rng)
    sets = target_sets(problem, generator)
    over, best = average(sets), sets[0].mixture
    drawn = average_replicates(problem.data, sets, over, n_boot, generator) if n_boot else None
    evidence = _evidence(problem, sets, over)
    edge = absent_edge(problem.data, best)
    notes = data_notes(problem.table)
    if edge.p_value < (FALSE_ALARMS if problem.base is None else FALSE_ALARMS / 2):
        names = problem.order
        detail = f"{names[edge.earlier]} -> {names[edge.later]} would add to the fit, p = {edge.p_value:.2g}"
        notes.append(Note(Status.MECHANISM_MISFIT, names[edge.later], detail))
    if problem.candidates is not None and (evidence <= 0).any():
        notes.append(Note(Status.NOT_SEPARABLE, "targets", "some listed targets have no support"))
    point = _label(problem, over, drawn).assign(_judged(problem, sets, over, evidence))
    unclear = (over.inclusion > UNCLEAR[0]) & (over.inclusion < UNCLEAR[1])
    if unclear.any():
        which = ", ".join(point["target"].values[unclear])
        detail = f"{len(sets)} sets of targets, the best has {sets[0].probability:.0%}; unclear: {which}"
        notes.append(Note(Status.TARGETS_UNCLEAR, "targets", detail))
    for name, value in network_parameters(model, best.network).items():
        point[name] = (model.dims[name], value)
    point = point.assign_coords({d: c for d, c in model.coords.items() if d in point.dims})
    attrs = provenance(
        problem.model,
        method="polished",
        n=problem.data.n,
        n_boot=n_boot,
        fingerprint=fingerprint(problem.model, problem.table),
        notes=dump_notes(notes),
        misfit_p=edge.p_value,
        bic=best.criterion(problem.data),
    )
    return _tree(point, over, drawn, problem, attrs)


def target_sets(problem: LinearProblem, rng: np.random.Generator) -> list[TargetSet]:
    """Find the plausible sets of targets: the listed one, else those that the search leaves open."""
    if problem.candidates is None:
        return find_sets(problem.data, problem.network, rng)
    mixture = in_order(unmix_listed(problem.data, problem.network, problem.candidates, rng))
    return [TargetSet(mixture=mixture, probability=1.0, level=log_evidence(problem.data, mixture))]


def _evidence(problem: LinearProblem, sets: list[TargetSet], over: Average) -> Array:
    """Nats between the best set with each target and the best without it: (targets,)."""
    best, level = sets[0].mixture, np.array([one.level for one in sets])
    out = np.empty(len(over.touched))
    for target in range(len(out)):
        have = over.included[:, target]
        without = [*level[~have]]
        if have[0] and len(best.weight) > 1:
            k = over.places[0].index(target)
            smaller = refit(problem.data, best.only(np.arange(len(best.weight)) != k), 60)
            without.append(log_evidence(problem.data, smaller))
        out[target] = level[have].max() - max(without, default=-np.inf)
    return out


def _judged(problem: LinearProblem, sets: list[TargetSet], over: Average, evidence: Array) -> dict[str, Any]:
    """Say what speaks for every target, and how well the rows of the best set's can be told apart."""
    best, places = sets[0].mixture, list(over.places[0])
    member, _ = memberships(problem.data, best)
    share = member * problem.data.counts[:, None]
    overlap, weight = np.full(len(evidence), np.nan), np.zeros(len(evidence))
    overlap[places] = 1 - (share * member).sum(axis=0) / np.maximum(share.sum(axis=0), 1e-300)
    weight[places] = best.weight
    return {
        "inclusion_probability": ("target", over.inclusion),
        "log_evidence": ("target", evidence),
        "selected": ("target", over.included[0] & (evidence > 0)),
        "selected_weight": ("target", weight),
        "overlap": ("target", overlap),
        "included": (("target_set", "target"), over.included.astype("int8")),
        "set_probability": ("target_set", over.probability),
    }


def value_name(model: CausalModel) -> str:
    """Name of the values in results: ``shift``, or ``value`` for forced ones."""
    assert model.interventions is not None
    return "shift" if model.interventions.kind == "shift" else "value"


def _label(problem: LinearProblem, over: Average, drawn: Replicates | None) -> xr.Dataset:
    back, name = problem.back, value_name(problem.model)
    both, value = ("target", "variable"), over.mean(over.value)
    out = xr.Dataset(
        {
            "target_weight": ("target", over.mean_weight),
            "touched": (both, over.touched[:, back].astype("int8")),
            name: (both, value[:, back]),
        },
        coords={"target": problem.labels(over.touched, value), "variable": list(problem.model.variables)},
    )
    if problem.data.kind == "do":
        out["spread"] = (both, np.where(over.touched, over.mean(over.spread), 0.0)[:, back])
    if drawn is not None:
        out["se_target_weight"] = ("target", robust_se(drawn.weight))
        flat = drawn.value[:, :, back].reshape(len(drawn.value), -1)
        out[f"se_{name}"] = (both, robust_se(flat).reshape(value.shape))
    return out


def _tree(
    point: xr.Dataset,
    over: Average,
    drawn: Replicates | None,
    problem: LinearProblem,
    attrs: dict[str, str | int | float],
) -> xr.DataTree:
    """Put point values and replicates together, the likeliest targets first, then the heaviest."""
    weight, value = over.mean_weight[None, None], over.mean(over.value)[None, None]
    if drawn is not None:
        weight = drawn.weight.reshape(N_CHAINS, -1, len(over.touched))
        value = drawn.value.reshape(N_CHAINS, -1, *over.touched.shape)
    lead = ("chain", "draw", "target")
    names = {"target_weight": (lead, weight)}
    kept = xr.Dataset(
        {**names, value_name(problem.model): ((*lead, "variable"), value[..., problem.back])},
        coords={
            "chain": np.arange(weight.shape[0]),
            "draw": np.arange(weight.shape[1]),
            "target": point["target"].values,
            "variable": point["variable"].values,
        },
    )
    order = np.lexsort((-point["target_weight"].values, ~point["selected"].values))
    tree = xr.DataTree.from_dict({"posterior": kept.isel(target=order), "estimate": point.isel(target=order)})
    tree["posterior"].attrs |= {"kind": "bootstrap", "method": attrs["method"]}
    tree["estimate"].attrs |= {"kind": "point", "method": attrs["method"]}
    tree.attrs = attrs
    return tree
