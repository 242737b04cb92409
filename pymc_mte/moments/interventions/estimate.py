"""`estimate` for models with interventions: targets and shares, labelled like a posterior."""

from typing import Any, cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.data import data_notes, fingerprint, resolve
from pymc_mte.errors import ModelError, RefusedError
from pymc_mte.interventions import base_model, target_array, target_label
from pymc_mte.model import CausalModel
from pymc_mte.moments.bootstrap import robust_se
from pymc_mte.moments.interventions.bounds import share_bounds
from pymc_mte.moments.interventions.checks import separable, smallest_base, total_variation
from pymc_mte.moments.interventions.evidence import fit_support
from pymc_mte.moments.interventions.exact import MAX_CELLS, admissible
from pymc_mte.moments.interventions.methods import Answer, Method, unmix
from pymc_mte.moments.interventions.network import Network, is_sample, learn
from pymc_mte.results import provenance
from pymc_mte.status import Note, Status, dump_notes

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

METHODS = ("polished", "lifting", "exact")

ALL_BOUNDED = 128
"""Every conceivable target gets bounds if there are no more; else the ones that were found."""

CLEAR_GAP = 3.0
"""Another excluded value is ruled out if it fits worse by this many nats."""

RARE_ROWS = 5.0
"""Fewer base rows for some values of a variable's parents are called rare."""

FALSE_ALARMS = 0.05
"""Stated rate of false alarms of the check of mechanisms."""

N_CHAINS = 4


def estimate_targets(
    model: CausalModel,
    data: Any = None,
    *,
    base: Any = None,
    method: str = "auto",
    n_boot: int = 400,
    rng: int | np.random.Generator = 0,
) -> xr.DataTree:
    """Estimate the targets of a mixture of interventions and their shares.

    Parameters
    ----------
    model : CausalModel
        A model with interventions. Its ``targets``, if listed, are the only candidates.
    data : tabulated Dataset, dataframe, mapping or path, optional
        The mixture's rows; the model's own data file by default.
    base : the same, optional
        Rows of the untouched network. By default the model's ``base`` parameters or ``base_file``.
    method : {"auto", "polished", "lifting", "exact"}
        ``polished`` (and ``auto``): likelihood, level by level along the network. ``lifting``: the
        algorithm of Kumar and Sinha (2021). ``exact``: every choice of excluded values, for networks
        of at most 256 configurations.
    n_boot : int
        Bootstrap replicates, a multiple of 4; 0 for none. Mixture and base rows are both resampled;
        the targets stay as found (``lifting`` runs anew).
    rng : int or numpy.random.Generator
        Source of the resamples.

    Returns
    -------
    xarray.DataTree
        Group ``estimate``, along ``target``: ``target_weight``, ``se_target_weight``,
        ``log_evidence`` (log Bayes factor of the target being there, in nats), ``selected`` (it is
        above 0), ``selected_weight`` (fitted to the selected ones alone), ``forced`` (level numbers, -1
        untouched); along ``variable``: ``excluded`` (level number that no target forces) and
        ``excluded_gap`` (by how many nats another one fits worse); along ``candidate``:
        ``weight_lower`` and ``weight_upper``, bounds that do without excluded values. Group
        ``posterior``: replicates of ``target_weight``.

    Raises
    ------
    RefusedError
        If no base network is known, or the network is too large for ``exact``.

    Examples
    --------
    >>> from pymc_mte import load_model, simulate
    >>> model = load_model("gallery:unknown_interventions")
    >>> found = estimate_targets(model, simulate(model, 5_000, rng=1), n_boot=0)["estimate"]
    >>> round(float(found["target_weight"].sel(target="b=0")), 1)
    0.2
    """
    if method not in ("auto", *METHODS):
        raise ModelError(f"method {method!r} is unknown; choose auto, {', '.join(METHODS)}")
    chosen = cast("Method", "polished" if method == "auto" else method)
    model, table = resolve(model, data)
    names = list(model.order)
    place = [list(model.variables).index(name) for name in names]
    rows = np.stack([table[name].values for name in names], axis=1)
    counts = np.asarray(table["count"].values, dtype=float)
    network, base_rows = _base_network(model, base)
    if chosen == "exact" and np.prod([float(s) for s in network.sizes]) > MAX_CELLS:
        raise RefusedError(
            f"method 'exact' tries every choice of excluded values and takes networks of at most {MAX_CELLS} "
            f"configurations; this one has {model.n_cells}. Use method='polished'"
        )
    assert model.interventions is not None
    listed = model.interventions.targets
    candidates = None if listed is None else target_array(model, listed)[:, place]
    answer = unmix(network, rows, counts, chosen, candidates=candidates)
    notes = data_notes(table)
    if n_boot and not is_sample(counts):
        n_boot = 0
        notes.append(Note(Status.SHARES_ONLY, "count"))
    generator = np.random.default_rng(rng)
    draws = _replicates(answer, network, rows, counts, base_rows, chosen, n_boot, generator)
    point = _label(model, answer, np.argsort(place), draws)
    point = point.assign(_bounds(model, network, answer, rows, counts, candidates, np.argsort(place)))
    notes += _notes(model, names, network, answer, counts, candidates is None, point)
    attrs = provenance(
        model,
        method=chosen,
        n=float(counts.sum()),
        n_boot=n_boot,
        fingerprint=fingerprint(model, table),
        notes=dump_notes(notes),
        total_variation=total_variation(answer.support.matrix, counts, answer.support.weight),
        misfit_p=answer.misfit.p_value,
    )
    return _tree(point, draws, attrs)


def _base_network(model: CausalModel, base: Any) -> tuple[Network, tuple[Ints, Array] | None]:
    """Return the untouched network, and the rows that it was learnt from if it was."""
    names = list(model.order)
    parents = tuple(tuple(names.index(p) for p in model.variables[v].parents) for v in names)
    stated = model.interventions
    assert stated is not None
    if base is None and stated.base is not None:
        tables = base_model(model).true_parameters()
        return Network(parents=parents, tables=tuple(tables[f"p_{v}"] for v in names)), None
    if base is None and stated.base_file is not None:
        from pymc_mte.modelfile import resolve_beside

        base = resolve_beside(stated.base_file, model._folder)
    if base is None:
        raise RefusedError(
            "the untouched network is not known: pass rows of it as `base`, name their file in "
            "interventions.base_file, or state its parameters in interventions.base"
        )
    _, table = resolve(model, base)
    rows = np.stack([table[name].values for name in names], axis=1)
    counts = np.asarray(table["count"].values, dtype=float)
    empty = tuple(np.ones(model.shapes[f"p_{v}"]) for v in names)
    return learn(Network(parents=parents, tables=empty), rows, counts), (rows, counts)


def _resample(counts: Array, rng: np.random.Generator) -> Array:
    return rng.multinomial(round(counts.sum()), counts / counts.sum()).astype(float)


def _replicates(
    answer: Answer,
    network: Network,
    rows: Ints,
    counts: Array,
    base_rows: tuple[Ints, Array] | None,
    method: Method,
    n_boot: int,
    rng: np.random.Generator,
) -> Array:
    """Weights of the found targets on resamples of mixture and base rows: (replicates, targets)."""
    targets = answer.support.targets
    out = np.zeros((n_boot, len(targets)))
    place = {tuple(target): i for i, target in enumerate(targets.tolist())}
    for replicate in range(n_boot):
        drawn = _resample(counts, rng)
        seen = drawn > 0
        learnt = network
        if base_rows is not None and network.base_counts is not None:
            learnt = learn(network, base_rows[0], _resample(base_rows[1], rng))
        if method == "lifting":
            found = unmix(learnt, rows[seen], drawn[seen], method).support
            for target, weight in zip(found.targets.tolist(), found.weight, strict=True):
                if tuple(target) in place:
                    out[replicate, place[tuple(target)]] = weight
        else:
            out[replicate] = fit_support(learnt, rows[seen], drawn[seen], targets, 1e-2).weight
    return out


def _label(model: CausalModel, answer: Answer, back: Ints, draws: Array) -> xr.Dataset:
    """Name the targets, in descending order of weight."""
    support, found = answer.support, answer.found
    forced = support.targets[:, back]
    out = xr.Dataset(
        {
            "target_weight": ("target", support.weight),
            "log_evidence": ("target", answer.evidence),
            "selected": ("target", answer.selected),
            "selected_weight": ("target", answer.selected_weight),
            "forced": (("target", "variable"), forced),
        },
        coords={"target": [target_label(model, t) for t in forced], "variable": list(model.variables)},
    )
    if found.excluded:
        out["excluded"] = ("variable", np.array(found.excluded)[back])
    if found.gap:
        out["excluded_gap"] = ("variable", np.array(found.gap)[back])
    if len(draws):
        out["se_target_weight"] = ("target", robust_se(draws))
    return out


def _bounds(
    model: CausalModel,
    network: Network,
    answer: Answer,
    rows: Ints,
    counts: Array,
    candidates: Ints | None,
    back: Ints,
) -> dict[str, Any]:
    wanted = answer.support.targets if candidates is None else candidates
    if candidates is None and np.prod([float(s + 1) for s in network.sizes]) <= ALL_BOUNDED:
        wanted = admissible(network.sizes)
    bounds = share_bounds(network, rows, counts, wanted, candidates)
    labels = [target_label(model, target) for target in wanted[:, back]]
    return {
        "weight_lower": xr.DataArray(bounds[:, 0], coords={"candidate": labels}, dims="candidate"),
        "weight_upper": xr.DataArray(bounds[:, 1], coords={"candidate": labels}, dims="candidate"),
    }


def _notes(
    model: CausalModel,
    names: list[str],
    network: Network,
    answer: Answer,
    counts: Array,
    searched: bool,
    point: xr.Dataset,
) -> list[Note]:
    notes = []
    lower = point["weight_lower"].values
    if searched:
        known = [str(c) for c, low in zip(point["candidate"].values, lower, strict=True) if low > 1e-6]
        said = ", ".join(known) or "none"
        if np.isnan(lower).any():
            said = "not computed, the network is too large"
        notes.append(Note(Status.EXCLUSION_ASSUMED, "targets", f"established without it: {said}"))
        for name, gap, value in zip(names, answer.found.gap, answer.found.excluded, strict=False):
            ever = bool((point["forced"].sel(variable=name).values[answer.selected] >= 0).any())
            if ever and gap < CLEAR_GAP and is_sample(counts):
                level = model.variables[name].labels[value]
                notes.append(Note(Status.EXCLUSION_UNCLEAR, name, f"chosen {level!r} by {gap:.2g} nats"))
    elif np.isnan(lower).any():
        notes.append(Note(Status.MECHANISM_MISFIT, "targets", "no shares of the candidates give these rows"))
    node, entry, fewest = smallest_base(network)
    if entry <= 0 or fewest < RARE_ROWS:
        detail = f"smallest probability {entry:.2g}, fewest rows for given parents {fewest:.0f}"
        notes.append(Note(Status.RARE_BASE, names[node], detail))
    if not separable(answer.support.matrix):
        notes.append(Note(Status.NOT_SEPARABLE, "targets"))
    misfit = answer.misfit
    if misfit.p_value < FALSE_ALARMS:
        detail = f"{misfit.z:.1f} standard errors, p = {misfit.p_value:.2g} over all cells tested"
        notes.append(Note(Status.MECHANISM_MISFIT, names[misfit.node], detail))
    elif not is_sample(counts):
        distance = total_variation(answer.support.matrix, counts, answer.support.weight)
        if distance > 1e-6:
            notes.append(Note(Status.MECHANISM_MISFIT, "targets", f"distance of the fit {distance:.2g}"))
    return notes


def _tree(point: xr.Dataset, draws: Array, attrs: dict[str, str | int | float]) -> xr.DataTree:
    weight = point["target_weight"].values
    values = draws.reshape(N_CHAINS, -1, len(weight)) if len(draws) else weight[None, None]
    replicates = xr.Dataset(
        {"target_weight": (("chain", "draw", "target"), values)},
        coords={
            "chain": np.arange(values.shape[0]),
            "draw": np.arange(values.shape[1]),
            "target": point["target"].values,
        },
    )
    order = np.argsort(-weight, kind="stable")
    tree = xr.DataTree.from_dict(
        {"posterior": replicates.isel(target=order), "estimate": point.isel(target=order)}
    )
    tree["posterior"].attrs |= {"kind": "bootstrap", "method": attrs["method"]}
    tree["estimate"].attrs |= {"kind": "point", "method": attrs["method"]}
    tree.attrs = attrs
    return tree
