"""`estimate` for linear Gaussian networks under interventions: targets, values and shares."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.data import data_notes, fingerprint
from pymc_mte.errors import ModelError
from pymc_mte.model import CausalModel
from pymc_mte.moments.bootstrap import robust_se
from pymc_mte.moments.interventions.gaussian import LinearMixture, memberships, refit
from pymc_mte.moments.interventions.gaussian_errors import Replicates, replicates
from pymc_mte.moments.interventions.gaussian_misfit import absent_edge
from pymc_mte.moments.interventions.gaussian_search import in_order, unmix_linear, unmix_listed
from pymc_mte.moments.interventions.linear_rows import LinearProblem, linear_problem, network_parameters
from pymc_mte.results import provenance
from pymc_mte.status import Note, Status, dump_notes

Array = NDArray[np.float64]

FALSE_ALARMS = 0.05
"""Stated rate of false alarms of the check of the graph."""

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
        Maximum likelihood; targets and their number by BIC.
    n_boot : int
        Bootstrap replicates, a multiple of 4; 0 for none. One scoring step each, targets as found.
    rng : int or numpy.random.Generator
        Source of starts and resamples.

    Returns
    -------
    xarray.DataTree
        Group ``estimate``, along ``target``: ``target_weight``, ``log_evidence`` (half of what BIC loses
        without the target, in nats), ``selected`` (it is above 0), ``selected_weight``, ``overlap``
        (probability that a row of the target looks like another's); along ``target`` and ``variable``:
        ``touched`` and ``shift`` or, for ``do``, ``value`` and ``spread`` (in the variable's units, 0
        where untouched); with ``se_target_weight`` and ``se_shift`` or ``se_value`` if there are replicates;
        and the untouched equations (``intercept_b``, ``coefficient_b``, ``sd_b``). Group ``posterior``:
        replicates of shares and values.

    Raises
    ------
    RefusedError
        If no base network is known.

    Examples
    --------
    >>> from pymc_mte import load_model, simulate
    >>> model = load_model("gallery:linear_shifts")
    >>> found = estimate_linear(model, simulate(model, 4_000, rng=1), n_boot=0)["estimate"]
    >>> found["touched"].sum("variable").values.tolist()
    [0, 1, 2, 2]
    """
    if method not in ("auto", "polished"):
        raise ModelError(f"method {method!r}: linear Gaussian networks take auto or polished")
    problem = linear_problem(model, data, base)
    generator = np.random.default_rng(rng)
    if problem.candidates is None:
        mixture = unmix_linear(problem.data, problem.network, generator)
    else:
        mixture = in_order(unmix_listed(problem.data, problem.network, problem.candidates, generator))
    drawn = replicates(problem.data, mixture, n_boot, generator) if n_boot else None
    evidence = log_evidence(problem, mixture)
    member, _ = memberships(problem.data, mixture)
    edge = absent_edge(problem.data, mixture)
    notes = data_notes(problem.table)
    if edge.p_value < FALSE_ALARMS:
        names = problem.order
        detail = f"{names[edge.earlier]} -> {names[edge.later]} would add to the fit, p = {edge.p_value:.2g}"
        notes.append(Note(Status.MECHANISM_MISFIT, names[edge.later], detail))
    if problem.candidates is not None and (evidence <= 0).any():
        notes.append(Note(Status.NOT_SEPARABLE, "targets", "some listed targets have no support"))
    share = member * problem.data.counts[:, None]
    overlap = 1 - (share * member).sum(axis=0) / np.maximum(share.sum(axis=0), 1e-300)
    point = _label(problem, mixture, drawn).assign(
        log_evidence=("target", evidence),
        selected=("target", evidence > 0),
        selected_weight=("target", mixture.weight),
        overlap=("target", overlap),
    )
    attrs = provenance(
        problem.model,
        method="polished",
        n=problem.data.n,
        n_boot=n_boot,
        fingerprint=fingerprint(problem.model, problem.table),
        notes=dump_notes(notes),
        misfit_p=edge.p_value,
        bic=mixture.criterion(problem.data),
    )
    return _tree(point, mixture, drawn, problem, attrs)


def log_evidence(problem: LinearProblem, mixture: LinearMixture) -> Array:
    """Half of what BIC loses when a component is left out and the others are fitted anew: (components,)."""
    size = len(mixture.weight)
    if size == 1:
        return np.array([np.inf])
    here = mixture.criterion(problem.data)
    without = [refit(problem.data, mixture.only(np.arange(size) != k), 60) for k in range(size)]
    return np.array([0.5 * (other.criterion(problem.data) - here) for other in without])


def value_name(model: CausalModel) -> str:
    """Name of the values in results: ``shift``, or ``value`` for forced ones."""
    assert model.interventions is not None
    return "shift" if model.interventions.kind == "shift" else "value"


def _label(problem: LinearProblem, mixture: LinearMixture, drawn: Replicates | None) -> xr.Dataset:
    model, back, name = problem.model, problem.back, value_name(problem.model)
    both = ("target", "variable")
    out = xr.Dataset(
        {
            "target_weight": ("target", mixture.weight),
            "touched": (both, mixture.touched[:, back].astype("int8")),
            name: (both, mixture.value[:, back]),
        },
        coords={"target": problem.labels(mixture.touched, mixture.value), "variable": list(model.variables)},
    )
    if problem.data.kind == "do":
        out["spread"] = (both, np.where(mixture.touched, mixture.spread, 0.0)[:, back])
    for key, value in network_parameters(model, mixture.network).items():
        out[key] = (model.dims[key], value)
    out = out.assign_coords({d: c for d, c in model.coords.items() if d in out.dims})
    if drawn is not None:
        out["se_target_weight"] = ("target", robust_se(drawn.weight))
        flat = drawn.value[:, :, back].reshape(len(drawn.value), -1)
        out[f"se_{name}"] = (both, robust_se(flat).reshape(mixture.value.shape))
    return out


def _tree(
    point: xr.Dataset,
    mixture: LinearMixture,
    drawn: Replicates | None,
    problem: LinearProblem,
    attrs: dict[str, str | int | float],
) -> xr.DataTree:
    weight = mixture.weight[None, None]
    value = mixture.value[None, None][..., problem.back]
    if drawn is not None:
        weight = drawn.weight.reshape(N_CHAINS, -1, *mixture.weight.shape)
        value = drawn.value[..., problem.back].reshape(N_CHAINS, -1, *mixture.value.shape)
    lead = ("chain", "draw", "target")
    kept = xr.Dataset(
        {"target_weight": (lead, weight), value_name(problem.model): ((*lead, "variable"), value)},
        coords={
            "chain": np.arange(weight.shape[0]),
            "draw": np.arange(weight.shape[1]),
            "target": point["target"].values,
            "variable": point["variable"].values,
        },
    )
    tree = xr.DataTree.from_dict({"posterior": kept, "estimate": point})
    tree["posterior"].attrs |= {"kind": "bootstrap", "method": attrs["method"]}
    tree["estimate"].attrs |= {"kind": "point", "method": attrs["method"]}
    tree.attrs = attrs
    return tree
