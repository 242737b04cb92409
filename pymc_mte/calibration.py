"""`calibrate`: do posterior probabilities mean what they say? Simulation-based calibration of any model."""

import json
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rich.progress import Progress
from scipy.stats import binom

from pymc_mte.alignment import match_classes, take_classes
from pymc_mte.bayes.compiled import CompiledPosterior, compile
from pymc_mte.bayes.learnt import prior_draws
from pymc_mte.bayes.prepare import Prepared
from pymc_mte.bayes.priors import Prior
from pymc_mte.bayes.reference import with_terms_of
from pymc_mte.bayes.sample import sampling_options
from pymc_mte.bayes.samplers import sample_density
from pymc_mte.bayes.start import with_first_levels
from pymc_mte.covariates import covariate_names
from pymc_mte.data import columns_of, complete_rows, resolve
from pymc_mte.errors import DataError, RefusedError, whole_number
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.modelfile import need_model
from pymc_mte.moments.methods import class_profile
from pymc_mte.network import Columns, draw_rows, log_sum_classes
from pymc_mte.regression import (
    centred_covariates,
    draw_given,
    given_rows,
    log_joint_given,
)
from pymc_mte.results import dims_of, provenance
from pymc_mte.standardised import functionals_given
from pymc_mte.status import dump_notes
from pymc_mte.summary import BY_CLASS, LABEL_FREE
from pymc_mte.variable import Variable

Array = NDArray[np.float64]

LEVELS = (0.5, 0.8, 0.9)
"""Intervals whose coverage is tabulated."""

KOLMOGOROV = 1.63
"""Largest distance of 99% of uniform samples from uniform, times the root of their size."""

BAND = 0.99
"""Probability of the simultaneous band."""

POINTS = 100
"""Points at which the empirical distribution function is held against its band."""

PRIOR_DATA = "pooled_"
"""Data that priors are scaled by are named so; they stay those of the first data in all rounds."""

UNRELATED = 100
"""Times that unit rows are repeated where columns are to be unrelated: correlations of 0.05 to 0.1 remain."""

FIT = "log_likelihood"
"""A quantity of every model: it sees errors that no single parameter shows."""


def calibrate(
    model: CausalModel,
    n_simulations: int = 1_000,
    *,
    n: int = 1_000,
    data: Any = None,
    priors: Mapping[str, Prior] | None = None,
    draws: int = 250,
    tune: int = 300,
    chains: int = 2,
    random_seed: int = 0,
    progressbar: bool = True,
) -> xr.DataTree:
    """Check by simulation that posterior probabilities mean what they say.

    Parameters are drawn from the prior, rows from the parameters, and the posterior of the rows is
    sampled: over many rounds the truth must be at a uniformly distributed place among the draws.
    The model is compiled once. Covariates are not drawn: all rounds have the same. Linear parents are:
    their centres, and the scale of their coefficients' prior, stay those of the first data.

    Parameters
    ----------
    model : CausalModel
        The graph and families.
    n_simulations : int
        Rounds; a thousand show errors of a few percent.
    n : int
        Rows per round.
    data : tabulated Dataset, dataframe, mapping or path, optional
        Gives levels and the scale of the default priors, which stays the same in all rounds; the
        model's own data file by default, else standard deviation 1 and mean 0, or the stated centre
        (counts and positive numbers: mean 2). A model with covariates needs them: the covariates of ``n``
        of these rows, drawn once with replacement (of every row once where there are ``n``), are kept. Rows
        with missing values are left out.
    priors : mapping, optional
        See `build_model`.
    draws, tune, chains : int
        Of every fit.
    random_seed : int
        Seed of everything.
    progressbar : bool
        Whether the rounds are counted on the screen.

    Returns
    -------
    xarray.DataTree
        ``prior_sbc``: the place of the truth among the draws, in [0, 1], per quantity and round;
        ``arviz.plot_ecdf_pit(result)`` draws it. ``coverage``: share of rounds whose interval of
        each ``level`` holds the truth. ``verdict``: ``band_p`` per quantity, the probability that a
        calibrated posterior strays as far anywhere, and ``inside`` the simultaneous 99% band.
        Attributes: ``verdict`` in words, ``simulations``, ``failures`` (counted by reason, left
        out), ``divergent`` (rounds with divergences, kept), ``seconds_per_fit``.
        Class-level quantities are aligned draw by draw to the optimum that starts the chains,
        the truth too. With covariates their coefficients are quantities as well.

    Raises
    ------
    RefusedError
        If the model has no posterior, or has strata.
    DataError
        If the model has covariates and there are no data.

    Examples
    --------
    >>> from pymc_mte import load_model
    >>> checked = calibrate(load_model("gallery:level3"), 4, n=200, draws=50, tune=100, progressbar=False)
    >>> dict(checked["prior_sbc"]["ate"].sizes)
    {'chain': 1, 'draw': 4}
    """
    need_model("calibrate", model)
    n_simulations, n = whole_number("n_simulations", n_simulations), whole_number("n", n)
    options = sampling_options(draws=draws, tune=tune, chains=chains, cores=1)
    chains, random_seed = options.pop("chains"), whole_number("random_seed", random_seed, 0)
    if model.strata:
        raise RefusedError("calibrate takes no strata; list them as covariates")
    rng = np.random.default_rng(random_seed)
    people = fixed_people(model, data, n, rng) if model.covariates else None
    own = data if data is not None or model.data_path is not None else _unit_scale(model)
    if people is not None:
        own = tabulated(model, columns_of(people, model), people)
    compiled = compile(model, own, priors=priors)
    ready, _ = compiled.prepare(own, chains=1, random_seed=random_seed)
    given = given_rows(compiled.model, ready.table)
    truths = prior_draws(
        compiled.model, ready.built, n_simulations, random_seed, given, ready.by_prior is None
    )
    options["progressbar"] = False
    seeds = rng.integers(2**31, size=n_simulations).tolist()
    places: list[Parameters] = []
    failures: Counter[str] = Counter()
    divergent, begun = 0, time.perf_counter()
    with Progress(disable=not progressbar) as progress:
        task = progress.add_task("calibrating", total=n_simulations)
        for i in range(n_simulations):
            truth = {name: truths[name][i] for name in compiled.model.posterior_dims}
            table = rows_of(compiled.model, truth, n, rng, people)
            try:
                steering = {**options, "chains": chains, "seed": seeds[i]}
                place, stray = _place(compiled, truth, table, steering, rng)
            except (ValueError, RuntimeError, np.linalg.LinAlgError) as err:
                failures[f"{type(err).__name__}: {err}"[:100]] += 1
            else:
                places.append(place)
                divergent += stray > 0
            progress.advance(task)
    if not places:
        raise RuntimeError(f"every simulation failed: {dict(failures)}")
    spent = (time.perf_counter() - begun) / n_simulations
    tree = _result(compiled.model, places)
    about: dict[str, Any] = {
        "failures": json.dumps(failures),
        "divergent": divergent,
        "seconds_per_fit": spent,
        "simulations": n_simulations,
        "rows": n,
        "random_seed": random_seed,
        "notes": dump_notes([]),
    }
    tree.attrs |= provenance(compiled.model, **about)
    return tree


def fixed_people(model: CausalModel, data: Any, n: int, rng: np.random.Generator) -> xr.Dataset:
    """Choose ``n`` rows of the data whose covariates all rounds have, one entry per row."""
    if data is None and model.data_path is None:
        raise DataError(
            f"covariates {list(model.covariates)} have no distribution to be drawn from: pass data, whose "
            "covariates are kept"
        )
    model, table = resolve(model, data)
    table = complete_rows(model, table)
    count = table["count"].values.astype(float)
    if count.sum() == n and (count == count.round()).all():
        chosen = np.repeat(np.arange(len(count)), count.astype(int))
    else:
        chosen = rng.choice(len(count), n, p=count / count.sum())
    people = table.isel(pattern=chosen)[[*model.variables, *covariate_names(table)]]
    return people.assign(count=("pattern", np.ones(n)))


def rows_of(
    model: CausalModel,
    truth: Parameters,
    n: int,
    rng: np.random.Generator,
    people: xr.Dataset | None = None,
) -> xr.Dataset:
    """Draw rows, with the covariates of given people, and tabulate them."""
    if model.regressed:
        given = None if people is None else centred_covariates(people)
        columns = draw_given(model, truth, given, n, rng)[1]
    else:
        columns = draw_rows(model, truth, n, rng)[1]
    return tabulated(model, columns, people)


def tabulated(model: CausalModel, columns: Columns, people: xr.Dataset | None) -> xr.Dataset:
    """Tabulate rows and their covariates: a level that no row has stays a level of the model."""
    kept = {name: columns[name] for name in model.variables}
    if people is not None:
        kept |= {name: people[name].values for name in covariate_names(people)}
    matrix = np.column_stack([column.astype(float) for column in kept.values()])
    _, first, count = np.unique(matrix, axis=0, return_index=True, return_counts=True)
    table = xr.Dataset({name: ("pattern", column[first]) for name, column in kept.items()})
    table["count"] = ("pattern", count.astype(np.int64))
    for name, var in model.variables.items():
        if var.discrete:
            table[name].attrs["levels"] = json.dumps(list(var.labels))
    table.attrs = {} if people is None else dict(people.attrs)
    table.attrs |= {"tabulated": 1, "n": float(count.sum()), "notes": dump_notes([])}
    return table


def _unit_scale(model: CausalModel) -> dict[str, list[Any]]:
    """Rows that show every level, and standard deviation 1 of numbers (positive where only these may be).

    With linear parents there are more rows, and columns are unrelated, as the coefficients' prior wants them.
    """
    shown = {name: _levels(var) for name, var in model.variables.items()}
    rows, order = 2 * max(len(levels) for levels in shown.values()), np.random.default_rng(0)
    if not model.linear_edges:
        out = {name: [levels[i % len(levels)] for i in range(rows)] for name, levels in shown.items()}
    else:
        rows *= UNRELATED
        places = {name: order.permutation(rows) % len(levels) for name, levels in shown.items()}
        out = {name: [levels[i] for i in places[name]] for name, levels in shown.items()}
    return out | {var.event: [1] * rows for var in model.variables.values() if var.event is not None}


def _levels(var: Variable) -> list[Any]:
    if not var.discrete:
        if var.spec.values == "real":
            return [(var.centre or 0.0) - 1.0, (var.centre or 0.0) + 1.0]
        return [1.0, 3.0]
    if var.trials is None and var.levels is None:
        return [0, 1]
    return list(var.labels)


def _place(
    compiled: CompiledPosterior,
    truth: Parameters,
    table: xr.Dataset,
    options: dict[str, Any],
    rng: np.random.Generator,
) -> tuple[Parameters, int]:
    """Place of the truth among the draws of one fit, per quantity, and the divergences."""
    ready, _ = compiled.prepare(table, chains=options["chains"], random_seed=options["seed"])
    ready = with_terms_of(ready, compiled.built)
    density = compiled.density.with_data(ready.built, keep=PRIOR_DATA)  # the prior must not see the rows
    starts = [density.maps.unconstrain(start) for start in ready.starts]
    raw = sample_density(density, starts, options["seed"], options)
    settled = compiled.settled(ready, raw, options["seed"], keep=PRIOR_DATA)
    values = with_first_levels(ready.model, {n: settled.kept[n].values for n in ready.model.posterior_dims})
    flat = {n: v.reshape(-1, *v.shape[2:]) for n, v in values.items()}
    step = max(1, len(flat["class_weight"]) // POINTS)
    thin = {n: v[::step] for n, v in flat.items()}
    posterior = _quantities(ready, thin)
    right = _quantities(ready, {n: v[None] for n, v in truth.items()})
    out = {}
    for name, value in posterior.items():
        below, equal = (value < right[name]).sum(axis=0), (value == right[name]).sum(axis=0)
        spread = rng.random(below.shape)  # ties and the steps of the ranks are smoothed at random
        out[name] = (below + spread * (equal + 1)) / (len(value) + 1)
    return out, int(settled.stats["diverging"].sum())


def _quantities(ready: Prepared, values: Parameters) -> Parameters:
    """Functionals (without a treatment: parameters), classes of each draw matched to the optimum."""
    model, (covariates, share) = ready.model, given_rows(ready.model, ready.table)
    values = values | functionals_given(model, values, covariates, share)
    pivot = class_profile(model, {n: v[None] for n, v in ready.pivot.items()}, ready.scales)[0]
    order, dims = match_classes(class_profile(model, values, ready.scales), pivot)[0], dims_of(model)
    matched = {n: take_classes(v, order, 1) if dims[n][:1] == ("class",) else v for n, v in values.items()}
    wanted = [*model.dims] if model.treatment is None else [*LABEL_FREE, *BY_CLASS, *model.coefficient_dims]
    if model.classes == 1:
        wanted = [n for n in wanted if n not in ("effect_sd", "class_weight")]
    columns, count = columns_of(ready.table, model), ready.table["count"].values.astype(float)
    log_p = log_joint_given(model, matched, columns, covariates)
    return {n: matched[n] for n in wanted if n in matched} | {FIT: log_sum_classes(log_p) @ count}


def _result(model: CausalModel, places: list[Parameters]) -> xr.DataTree:
    """Lay out places, coverage and verdict."""
    dims = dims_of(model) | {FIT: ()}
    stacked = {n: np.stack([place[n] for place in places])[None] for n in places[0]}
    used = {d for n in stacked for d in dims[n]}
    named = {d: c for d, c in model.coords.items() if d in used}
    sbc = xr.Dataset(
        {n: (("chain", "draw", *dims[n]), v) for n, v in stacked.items()},
        coords=named | {"chain": [0], "draw": np.arange(len(places))},
    )
    far = {n: np.abs(v[0] - 0.5) for n, v in stacked.items()}
    share = np.array(LEVELS)
    covered = {
        n: ((*dims[n], "level"), np.stack([(v < p / 2).mean(axis=0) for p in share], axis=-1))
        for n, v in far.items()
    }
    limits = [binom.ppf(q, len(places), share) / len(places) for q in (0.005, 0.995)]
    coverage = xr.Dataset(covered, coords={"level": share} | named)
    coverage["lower"], coverage["upper"] = (("level", limit) for limit in limits)
    flat = {n: v[0].reshape(len(places), -1) for n, v in stacked.items()}
    null = _strays(np.random.default_rng(0).random((4_000, len(places))))
    p = {n: np.array([(null <= s).mean() for s in _strays(v.T)]) for n, v in flat.items()}
    shaped = {n: (dims[n], v.reshape(stacked[n].shape[2:])) for n, v in p.items()}
    inside = {f"inside_{n}": (d, (v >= 1 - BAND).astype("int8")) for n, (d, v) in shaped.items()}
    verdict = xr.Dataset({f"band_p_{n}": value for n, value in shaped.items()} | inside, coords=named)
    tree = xr.DataTree.from_dict({"prior_sbc": sbc, "coverage": coverage, "verdict": verdict})
    outside = [n for n, v in p.items() if (v < 1 - BAND).any()]
    total = sum(v.size for v in p.values())
    said = "outside the 99% band: " + ", ".join(outside) if outside else "every quantity inside its 99% band"
    size = KOLMOGOROV / np.sqrt(len(places))
    shows = f"show errors of probabilities above {size:.2f}" if size < 1 else "show nothing"
    each = f"{total} quantities, each outside in {1 - BAND:.0%} of calibrated studies by chance"
    tree.attrs["verdict"] = f"{said} ({each}; {len(places)} simulations {shows})"
    return tree


def _strays(places: Array) -> Array:
    """Smallest pointwise tail probability of the empirical distribution function, per row of places.

    The simultaneous band is the set of functions for which it is not below the quantile under
    uniform places (Säilynoja, Bürkner and Vehtari 2022).
    """
    n = places.shape[1]
    points = np.arange(1, POINTS) / POINTS
    bins = np.minimum((places * POINTS).astype(int), POINTS - 1)
    counts = np.stack([np.bincount(row, minlength=POINTS) for row in bins]).cumsum(axis=1)[:, :-1]
    low, high = binom.cdf(counts, n, points), binom.sf(counts - 1, n, points)
    return np.asarray(np.minimum(low, high).min(axis=1))
