"""`estimate` for models with interventions: targets and shares, labelled like a posterior."""

from typing import Any, cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.data import data_notes, fingerprint
from pymc_mte.errors import ModelError, RefusedError
from pymc_mte.model import CausalModel
from pymc_mte.moments.bootstrap import robust_se
from pymc_mte.moments.interventions.bounds import share_bounds
from pymc_mte.moments.interventions.checks import RARE_ROWS, separable, smallest_base, total_variation
from pymc_mte.moments.interventions.evidence import fit_support
from pymc_mte.moments.interventions.exact import MAX_CELLS, admissible
from pymc_mte.moments.interventions.exclusions import CLEAR_GAP
from pymc_mte.moments.interventions.methods import Answer, Method, unmix
from pymc_mte.moments.interventions.network import Network, is_sample, learn
from pymc_mte.moments.interventions.rows import TargetProblem, target_problem
from pymc_mte.randomness import as_generator
from pymc_mte.results import provenance
from pymc_mte.status import Note, Status, dump_notes

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

METHODS = ("polished", "lifting", "exact")

ALL_BOUNDED = 128
"""Every conceivable target gets bounds if there are no more; else the ones that were found."""

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

    Notes
    -----
    Intervals hold the targets as found, and targets that are not there take a part of the others' shares, so
    with targets searched for they are too short: in simulations of four variables with three values, 4 to 16
    targets and as many base rows, 90% intervals held 75% of the true shares at 4,096 rows and 82% at 16,384,
    and 88% where the targets were listed. List the possible targets if you know them.

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
    problem = target_problem(model, data, base)
    model, network, rows, counts = problem.model, problem.network, problem.rows, problem.counts
    if chosen == "exact" and np.prod([float(s) for s in network.sizes]) > MAX_CELLS:
        raise RefusedError(
            f"method 'exact' tries every choice of excluded values and takes networks of at most {MAX_CELLS} "
            f"configurations; this one has {model.n_cells}. Use method='polished'"
        )
    if chosen == "lifting" and min(float(table.min()) for table in network.tables) <= 0:
        raise RefusedError(
            "method 'lifting' divides by the probabilities of the untouched network, and some are 0. "
            "Use method='polished'"
        )
    answer = unmix(network, rows, counts, chosen, candidates=problem.candidates)
    notes = data_notes(problem.table)
    if n_boot and not is_sample(counts):
        n_boot = 0
        notes.append(Note(Status.SHARES_ONLY, "count"))
    generator = as_generator(rng)
    draws = weight_replicates(answer, network, rows, counts, problem.base, chosen, n_boot, generator)
    point = _label(problem, answer, draws)
    point = point.assign(_bounds(problem, answer))
    notes += _notes(problem, answer, point)
    attrs = provenance(
        model,
        method=chosen,
        n=float(counts.sum()),
        n_boot=n_boot,
        fingerprint=fingerprint(model, problem.table),
        notes=dump_notes(notes),
        total_variation=total_variation(answer.support.matrix, counts, answer.support.weight),
        misfit_p=answer.misfit.p_value,
    )
    return _tree(point, draws, attrs)


def _resample(counts: Array, rng: np.random.Generator) -> Array:
    return rng.multinomial(round(counts.sum()), counts / counts.sum()).astype(float)


def weight_replicates(
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


def _label(problem: TargetProblem, answer: Answer, draws: Array) -> xr.Dataset:
    """Name the targets, in descending order of weight."""
    support, found, back = answer.support, answer.found, problem.back
    out = xr.Dataset(
        {
            "target_weight": ("target", support.weight),
            "log_evidence": ("target", answer.evidence),
            "selected": ("target", answer.selected),
            "selected_weight": ("target", answer.selected_weight),
            "forced": (("target", "variable"), support.targets[:, back]),
        },
        coords={"target": problem.labels(support.targets), "variable": list(problem.model.variables)},
    )
    if found.excluded:
        out["excluded"] = ("variable", np.array(found.excluded)[back])
    if found.gap:
        out["excluded_gap"] = ("variable", np.array(found.gap)[back])
    if len(draws):
        out["se_target_weight"] = ("target", robust_se(draws))
    return out


def _bounds(problem: TargetProblem, answer: Answer) -> dict[str, Any]:
    network, candidates = problem.network, problem.candidates
    wanted = answer.support.targets if candidates is None else candidates
    if candidates is None and np.prod([float(s + 1) for s in network.sizes]) <= ALL_BOUNDED:
        wanted = admissible(network.sizes)
    bounds = share_bounds(network, problem.rows, problem.counts, wanted, candidates)
    labels = problem.labels(wanted)
    return {
        "weight_lower": xr.DataArray(bounds[:, 0], coords={"candidate": labels}, dims="candidate"),
        "weight_upper": xr.DataArray(bounds[:, 1], coords={"candidate": labels}, dims="candidate"),
    }


def _notes(problem: TargetProblem, answer: Answer, point: xr.Dataset) -> list[Note]:
    names, network, counts = problem.order, problem.network, problem.counts
    notes = []
    lower = point["weight_lower"].values
    if problem.candidates is None:
        known = [str(c) for c, low in zip(point["candidate"].values, lower, strict=True) if low > 1e-6]
        said = ", ".join(known) or "none"
        if np.isnan(lower).any():
            said = "not computed, the network is too large"
        notes.append(Note(Status.EXCLUSION_ASSUMED, "targets", f"established without it: {said}"))
        for name, gap, value in zip(names, answer.found.gap, answer.found.excluded, strict=False):
            ever = bool((point["forced"].sel(variable=name).values[answer.selected] >= 0).any())
            if ever and gap < CLEAR_GAP and is_sample(counts):
                level = problem.model.variables[name].labels[value]
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
