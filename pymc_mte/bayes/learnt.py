"""What the data added to the prior: contraction, power-scaling sensitivity, agreement of chains."""

from collections.abc import Mapping

import arviz as az
import numpy as np
import pymc as pm
import xarray as xr
from numpy.typing import NDArray
from pymc.distributions.shape_utils import change_dist_size
from pymc.logprob.basic import conditional_logp
from pytensor.graph.replace import vectorize_graph
from pytensor.graph.traversal import ancestors

from pymc_mte.alignment import take_classes
from pymc_mte.bayes.checks import STUCK, chain_levels
from pymc_mte.bayes.gradient import PLAIN
from pymc_mte.bayes.pooling import by_group_names, functionals_of
from pymc_mte.bayes.start import with_first_levels
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.results import class_order, dims_of, labels
from pymc_mte.sites import BY_GROUP, SHIFT
from pymc_mte.status import Note, Status
from pymc_mte.summary import BY_CLASS, LABEL_FREE, carried

Array = NDArray[np.float64]

N_PRIOR = 4_000
"""Draws behind a prior variance: a relative error of about 2%."""

MAX_PRIOR_ROWS = 500
"""Rows whose covariates prior functionals are averaged over; the prior's variance needs no more."""

SENSITIVE = 0.05
"""ArviZ's limit of a power-scaling sensitivity, for the prior and for the likelihood."""

MIN_DRAWS = 100
"""Fewer draws over all chains cannot be reweighted: the tails are fitted."""

MIN_CONTRACTION = 0.1
MAX_DISAGREEMENT = 1.0
"""Distance of a chain's mean from that of all, in standard deviations within chains."""

WEAK = "strong prior / weak likelihood"
CONFLICT = "prior-data conflict"
UNMOVED = "weak likelihood"


def what_was_learnt(
    model: CausalModel,
    built: pm.Model,
    posterior: xr.Dataset,
    log_prior: Array,
    log_likelihood: Array,
    seed: int,
    given: tuple[Array | None, Array],
    by_effect: bool = True,
) -> xr.Dataset:
    """Compare every reported functional with its prior, and every chain with the others.

    Parameters
    ----------
    model : CausalModel
        The graph.
    built : pymc.Model
        Its PyMC model.
    posterior : xarray.Dataset
        Aligned draws.
    log_prior : ndarray of shape (chain, draw)
        From `log_prior_density`.
    log_likelihood : ndarray of shape (chain, draw)
        Of all rows, up to a constant; of every s-th draw only where rows are many.
    seed : int
        Seed of the prior draws.
    given : covariates and shares of the rows
        From `pymc_mte.regression.given_rows`.
    by_effect : bool
        Whether classes are numbered by effect; else they bear the prior's numbers.

    Returns
    -------
    xarray.Dataset
        Along ``entry`` (labels such as ``effect[class 0]``): ``contraction``, 1 minus the ratio of the
        posterior's variance to the prior's; ``prior_sensitivity``, ``likelihood_sensitivity`` and the
        ``diagnosis`` that ArviZ's limits give; ``chain_disagreement``, the largest distance of a
        chain's mean from the mean of all, in standard deviations within chains. Classes of prior draws
        are numbered as those of the posterior, so that naming the classes does not count as learning. A
        prior without a variance (Cauchy) has no meaningful contraction.
    """
    prior = prior_draws(model, built, N_PRIOR, seed, given, by_effect)
    step = -(-log_prior.shape[1] // log_likelihood.shape[1])
    names = [n for n in (*LABEL_FREE, *BY_CLASS) if n in posterior]
    entries = {label: (name, index) for name in names for label, index in labels(model, name)}
    drawn = {label: posterior[name].values[(..., *index)] for label, (name, index) in entries.items()}
    before = [np.var(prior[name][(..., *index)], ddof=1) for name, index in entries.values()]
    thinned = {label: value[:, ::step] for label, value in drawn.items()}
    sensitivity = power_scaling(thinned, log_prior[:, ::step], log_likelihood)
    columns = {
        "contraction": [contraction(v, s) for v, s in zip(drawn.values(), before, strict=True)],
        "prior_sensitivity": sensitivity[:, 0],
        "likelihood_sensitivity": sensitivity[:, 1],
        "chain_disagreement": [disagreement(v) for v in drawn.values()],
    }
    out = xr.Dataset({n: ("entry", np.array(v, dtype=float)) for n, v in columns.items()})
    out["diagnosis"] = ("entry", np.array([diagnosis(*pair) for pair in sensitivity], dtype=object))
    return out.assign_coords(entry=np.array(list(entries), dtype=object))


def contraction(values: Array, prior_variance: float) -> float:
    """Return the share of the prior's variance that the data removed; not a number where it has none."""
    if not (np.isfinite(prior_variance) and prior_variance > 0) or values.size < 2 or np.ptp(values) == 0:
        return np.nan
    return float(1 - np.var(values, ddof=1) / prior_variance)


def disagreement(values: Array) -> float:
    """Largest distance of a chain's mean (chain, draw) from that of all, in SDs within chains."""
    if min(values.shape) < 2 or np.ptp(values) == 0:
        return np.nan
    within = np.sqrt(values.var(axis=1, ddof=1).mean())
    far = np.abs(values.mean(axis=1) - values.mean()).max()
    return float(far / within) if within > 0 else np.inf


def power_scaling(drawn: Mapping[str, Array], log_prior: Array, log_likelihood: Array) -> Array:
    """Power-scaling sensitivities by ArviZ: (entry, 2), to the prior and to the likelihood.

    A constant density (flat priors) cannot move anything: its sensitivity is 0.
    """
    out = np.full((len(drawn), 2), np.nan)
    varying = [i for i, v in enumerate(drawn.values()) if np.isfinite(v).all() and np.ptp(v) > 0]
    if log_prior.size < MIN_DRAWS or not varying:
        return out
    dims = ("chain", "draw")
    values = list(drawn.values())
    posterior = xr.Dataset({f"v{i}": (dims, values[i]) for i in varying})
    for column, (group, density) in enumerate((("prior", log_prior), ("likelihood", log_likelihood))):
        centred = density - density.mean()  # ArviZ takes exponentials: large values would overflow
        out[varying, column] = 0.0
        if np.ptp(centred) > 1e-9 * max(1.0, np.abs(density).max()):
            weights = xr.Dataset({"total": (dims, centred)})
            tree = xr.DataTree.from_dict({"posterior": posterior, f"log_{group}": weights})
            try:
                found = az.psense(tree, group=group)
            except ValueError:  # draws without a tail of weights: chains that hardly moved
                out[varying, column] = np.nan
            else:
                out[varying, column] = [float(found[f"v{i}"]) for i in varying]
    return out


def diagnosis(prior: float, likelihood: float) -> str:
    """Say what two sensitivities mean together, by ArviZ's limits.

    Where both are small ArviZ sees no fault in the prior; the likelihood is weak all the same.
    """
    if not np.isfinite(prior + likelihood):
        return "not checked"
    if likelihood < SENSITIVE:
        return WEAK if prior >= SENSITIVE else UNMOVED
    return CONFLICT if prior >= SENSITIVE else "ok"


def prior_draws(
    model: CausalModel,
    built: pm.Model,
    n: int,
    seed: int,
    given: tuple[Array | None, Array],
    by_effect: bool = True,
) -> Parameters:
    """Draw parameters and functionals from the priors, classes of each draw sorted by effect or as they are.

    With covariates, functionals are averages over at most `MAX_PRIOR_ROWS` of the rows.
    """
    batched: dict[pm.TensorVariable, pm.TensorVariable] = {}
    for rv in built.free_RVs:  # parents come first
        parents = {p: batched[p] for p in ancestors([rv]) if p in batched}
        batched[rv] = vectorize_graph(rv, parents) if parents else change_dist_size(rv, (n,), expand=True)
    names = [name for name in model.posterior_dims if name != "class_weight" or not model.covariates]
    names += by_group_names(built.named_vars)
    free = {rv.name for rv in built.free_RVs}
    wanted = [
        batched[built[name]] if name in free else vectorize_graph(built[name], batched) for name in names
    ]
    drawn = pm.draw(wanted, random_seed=seed, mode=PLAIN)
    values = with_first_levels(model, dict(zip(names, drawn, strict=True)))
    covariates, share = given
    if covariates is not None and len(share) > MAX_PRIOR_ROWS:
        rows = np.random.default_rng(seed).choice(len(share), MAX_PRIOR_ROWS, p=share)
        covariates, share = covariates[rows], np.full(MAX_PRIOR_ROWS, 1 / MAX_PRIOR_ROWS)
    values |= functionals_of(model, built, values, (covariates, share))
    values = {n: v for n, v in values.items() if n not in (BY_GROUP, SHIFT)}
    if not by_effect:
        return values
    order, dims = class_order(model, values), dims_of(model)
    return {n: take_classes(v, order, 1) if dims[n][:1] == ("class",) else v for n, v in values.items()}


def log_prior_density(built: pm.Model, drawn: xr.Dataset) -> Array:
    """Log prior density of every draw, on the scale of the parameters themselves: (chain, draw)."""
    value = {rv: rv.type(rv.name) for rv in built.free_RVs}
    total = sum(term.sum() for term in conditional_logp(value).values())
    batched = {v: v.type.clone(shape=(None, *v.type.shape))(v.name) for v in value.values()}
    density = pm.compile(
        list(batched.values()), vectorize_graph(total, batched), mode=PLAIN, on_unused_input="ignore"
    )
    chains = range(drawn.sizes["chain"])
    return np.stack([density(*(drawn[rv.name].values[c] for rv in value)) for c in chains])


def agreement(stats: xr.Dataset, at_best: float) -> dict[str, float]:
    """Return the shares of likelihood climbs and of chains that found the best optimum.

    Parameters
    ----------
    stats : xarray.Dataset
        Sampler statistics.
    at_best : float
        Share of the climbs, from `pymc_mte.bayes.modes.at_best`.
    """
    level = chain_levels(stats)
    return {
        "starts_at_best": at_best,
        "chains_at_best": np.nan if level is None else float((level > level.max() - STUCK).mean()),
    }


def learnt_notes(learnt: xr.Dataset, identified: Mapping[str, bool]) -> list[Note]:
    """Name the identified functionals that the prior still rules, and those that chains disagree on."""
    ruled, apart = [], []
    for i, label in enumerate(learnt["entry"].values):
        removed, far = float(learnt["contraction"][i]), float(learnt["chain_disagreement"][i])
        weak = str(learnt["diagnosis"].values[i]) == WEAK
        if carried(identified, label) and (weak or removed < MIN_CONTRACTION):
            ruled.append(f"{label} {removed:.0%}" + f", {WEAK}" * weak)
        if far > MAX_DISAGREEMENT:
            apart.append(f"{label} {far:.1f}")
    notes = []
    if ruled:
        notes.append(Note(Status.PRIOR_DOMINATED, "functionals", "contraction: " + "; ".join(ruled)))
    if apart:
        notes.append(Note(Status.CHAINS_APART, "functionals", "in SDs within chains: " + "; ".join(apart)))
    return notes
