"""From a sampler's chains to one sample of the whole posterior: labels, modes, weights, checks."""

from dataclasses import dataclass

import arviz as az
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.bayes.checks import convergence
from pymc_mte.bayes.density import multinomial_coefficient
from pymc_mte.bayes.evidence import evidence_dataset
from pymc_mte.bayes.labels import align_chains, align_draws
from pymc_mte.bayes.modes import basin_shares, optima_notes
from pymc_mte.bayes.prepare import Prepared
from pymc_mte.bayes.start import with_first_levels
from pymc_mte.bayes.weigh import Weighing, resampled, weigh
from pymc_mte.model import CausalModel
from pymc_mte.regression import functionals_given, given_rows
from pymc_mte.results import dataset, labels
from pymc_mte.status import Note, Status
from pymc_mte.summary import BY_CLASS, LABEL_FREE

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Settled:
    """Draws that stand for the whole posterior, and what they were made from.

    Attributes
    ----------
    posterior : xarray.Dataset
        Aligned parameters and functionals (chain, draw, ...).
    kept : xarray.Dataset
        The same draws as values of the model's random variables, not aligned.
    stats : xarray.Dataset
        Their sampler statistics; ``mode`` is the mode of each draw.
    modes : xarray.Dataset
        The group ``modes`` of a result.
    evidence : xarray.Dataset or None
        The group ``evidence``; with SMC only.
    switching : float
        Share of draws whose labels are unsure.
    notes : list of Note
        What to doubt.
    kind, library : str
        What made the draws.
    """

    posterior: xr.Dataset
    kept: xr.Dataset
    stats: xr.Dataset
    modes: xr.Dataset
    evidence: xr.Dataset | None
    switching: float
    notes: list[Note]
    kind: str
    library: str


def settle(ready: Prepared, raw: xr.DataTree, *, sampler: str, seed: int) -> Settled:
    """Align labels, weigh modes, judge convergence and resample where modes stay apart.

    Parameters
    ----------
    ready : Prepared
        What the draws were made from.
    raw : DataTree
        The sampler's ``posterior`` and ``sample_stats``, with SMC also ``evidence``.
    sampler : str
        Its name.
    seed : int
        Seed of bridge and resampling.
    """
    model, smc, about = ready.model, sampler == "smc", raw.attrs.get("approximation")
    kept, stats = raw["posterior"].to_dataset(), raw["sample_stats"].to_dataset()
    values = with_first_levels(model, {str(name): kept[name].values for name in kept.data_vars})
    own = {name: values[name] for name in model.posterior_dims}
    if smc or about is not None:
        aligned, switching = align_draws(model, own, ready.pivot, ready.scales)
        weighing = _one_mode(ready, kept.sizes)
    else:
        free = {rv.name: values[rv.name] for rv in ready.built.free_RVs}
        weighing = weigh(model, ready.built, ready.modes, free, ready.started, ready.scales, seed)
        pivots = {name: v[weighing.chain_mode] for name, v in ready.modes.posterior.parameters.items()}
        aligned, switching = align_chains(model, own, pivots, ready.scales)
    aligned |= functionals_given(model, aligned, *given_rows(model, ready.table))
    runs = dataset(model, aligned)
    doubts = _approximation(about) if about else _convergence(model, runs, stats, switching, weighing)
    notes = [*_interruption(raw), *doubts, *optima_notes(ready.modes)]
    stats = stats.assign(mode=(("chain", "draw"), weighing.mode_of_draw))
    posterior, kept, stats = (_sampled(part, weighing, ready.chains, seed) for part in (runs, kept, stats))
    group = _group(ready, posterior, runs, weighing)
    found = raw["evidence"].to_dataset()["log_evidence"].values if smc else None
    coefficient = multinomial_coefficient(ready.built) if smc else 0.0
    return Settled(
        posterior=posterior,
        kept=kept,
        stats=stats,
        modes=group,
        evidence=None if found is None else evidence_dataset(found, coefficient),
        switching=switching,
        notes=[*_mode_notes(ready, weighing), *notes],
        kind="approximation" if about else "smc" if smc else "mcmc",
        library="pymc" if smc else sampler,
    )


def _interruption(raw: xr.DataTree) -> list[Note]:
    """Say that sampling was stopped early, where it was."""
    return (
        [Note(Status.INTERRUPTED, "sampler", raw.attrs["interrupted"])] if "interrupted" in raw.attrs else []
    )


def _approximation(about: dict[str, float]) -> list[Note]:
    """Say what the draws of an approximation are, and how near they come."""
    detail = f"reweighted to the posterior, {about['ess_share']:.0%} of the draws count"
    if about["flat_directions"]:
        detail += f"; {about['flat_directions']:.0f} directions without curvature"
    return [Note(Status.APPROXIMATION, "sampler", detail)]


def _one_mode(ready: Prepared, sizes: "xr.core.utils.Frozen[object, int]") -> Weighing:
    """Particles and draws of an approximation were never in a chain: all count as one sample."""
    nothing = np.full(len(ready.modes), np.nan)
    home = np.zeros((sizes["chain"], sizes["draw"]), dtype=np.int64)
    return Weighing(reading="one mode", mode_of_draw=home, log_evidence=nothing, error=nothing)


def _sampled(part: xr.Dataset, weighing: Weighing, chains: int, seed: int) -> xr.Dataset:
    """Resample by weight where modes stay apart; otherwise keep the chains that were asked for."""
    if weighing.reading != "weighted":
        return part.isel(chain=slice(0, chains))
    draws = part.sizes["draw"]
    index = resampled(weighing, chains, draws, np.random.default_rng(seed))
    chain, draw = (xr.DataArray(i, dims=("chain", "draw")) for i in np.divmod(index, draws))
    return (
        part.drop_vars(["chain", "draw"], errors="ignore")
        .isel(chain=chain, draw=draw)
        .assign_coords(chain=np.arange(chains), draw=np.arange(draws))
    )


def _by_mode(part: xr.Dataset, weighing: Weighing, mode: int) -> xr.Dataset:
    """Chains of one mode; a single one as its two halves, so that it can be compared with itself."""
    own = part.isel(chain=np.flatnonzero(weighing.chain_mode == mode))
    if own.sizes["chain"] > 1:
        return own
    half = own.sizes["draw"] // 2
    halves = [own.isel(draw=slice(start, start + half)).drop_vars("draw") for start in (0, half)]
    joined = xr.concat(halves, dim="chain")
    return joined.assign_coords(chain=np.arange(2), draw=np.arange(half))


def _convergence(
    model: CausalModel, runs: xr.Dataset, stats: xr.Dataset, switching: float, weighing: Weighing
) -> list[Note]:
    """Judge the chains: all together, or mode by mode where they stay apart."""
    if weighing.reading != "weighted":
        return convergence(model, runs, stats, switching)
    notes = []
    for j in np.unique(weighing.chain_mode):
        own, its = _by_mode(runs, weighing, j), _by_mode(stats, weighing, j)
        notes += [note.within(f"mode {j}") for note in convergence(model, own, its, 0.0)]
    return [
        *notes,
        *(n for n in convergence(model, runs, stats, switching) if n.status is Status.LABEL_SWITCHING),
    ]


def _mode_notes(ready: Prepared, weighing: Weighing) -> list[Note]:
    """Say that there are several modes, and what they weigh."""
    if weighing.reading == "weighted":
        listed = ", ".join(
            f"mode {j} (log-likelihood {level:.2f}) {weight:.3f} (standard error {error:.3f})"
            for j, (level, weight, error) in enumerate(
                zip(ready.modes.posterior.log_likelihood, weighing.weight, weighing.weight_error, strict=True)
            )
        )
        return [Note(Status.SEVERAL_MODES, "posterior", f"weights: {listed}")]
    if weighing.reading == "not weighted":
        return [Note(Status.MODES_UNWEIGHTED, "posterior", f"{len(ready.modes)} modes")]
    return []


def _group(ready: Prepared, posterior: xr.Dataset, runs: xr.Dataset, weighing: Weighing) -> xr.Dataset:
    """Describe modes and optima: heights, shares of starts, weights, parameters."""
    modes, model = ready.modes, ready.model
    drawn = {name: posterior[name].values for name in model.dims}
    weight, error = weighing.weight, weighing.weight_error
    if weighing.reading != "weighted":
        weight, error = basin_shares(ready.problem, modes.posterior, drawn, modes.penalty)
    at_optimum = basin_shares(ready.problem, modes.likelihood, drawn, 0.0)
    columns = {
        "objective": modes.posterior.objective,
        "log_likelihood": modes.posterior.log_likelihood,
        "share_of_starts": modes.posterior.share,
        "mode_weight": weight,
        "mode_weight_error": error,
        "log_evidence": weighing.log_evidence,
        "log_evidence_error": weighing.error,
    }
    out = dataset(model, modes.posterior.parameters, lead=("mode",))
    out = out.assign({name: ("mode", value) for name, value in columns.items()})
    optima = {
        "optimum_log_likelihood": modes.likelihood.log_likelihood,
        "optimum_share_of_starts": modes.likelihood.share,
        "optimum_weight": at_optimum[0],
        "optimum_weight_error": at_optimum[1],
    }
    out = out.assign({name: ("optimum", value) for name, value in optima.items()})
    out["chain_mode"] = ("run", weighing.chain_mode)
    out["start_mode"] = ("run", ready.started)
    out.attrs = {"reading": weighing.reading, "penalty": modes.penalty, "n_starts": modes.posterior.n_starts}
    if weighing.reading == "weighted":
        weighted = np.nan_to_num(weighing.weight) * weighing.error
        out.attrs["log_evidence"] = float(np.logaddexp.reduce(weighing.log_evidence))
        out.attrs["log_evidence_error"] = float(np.sqrt((weighted**2).sum()))
        out = _with_mixing(model, out, runs, weighing)
    return out


def _with_mixing(model: CausalModel, group: xr.Dataset, runs: xr.Dataset, weighing: Weighing) -> xr.Dataset:
    """Add R-hat (the worst mode's) and effective draws of the weighted mean, per reported entry."""
    names = [n for n in (*LABEL_FREE, *BY_CLASS) if n in runs]
    entries = [(label, name, index) for name in names for label, index in labels(model, name)]
    rhat, inverse = np.zeros(len(entries)), np.zeros(len(entries))
    for j in np.unique(weighing.chain_mode):
        own = _by_mode(runs, weighing, j)[names]
        mixing, effective = az.rhat(own), az.ess(own)
        for i, (_, name, index) in enumerate(entries):
            rhat[i] = max(rhat[i], float(mixing[name].values[index]))
            inverse[i] += weighing.weight[j] ** 2 / float(effective[name].values[index])
    found = {"r_hat": ("entry", rhat), "ess": ("entry", 1 / inverse)}
    return group.assign(found).assign_coords(entry=np.array([label for label, *_ in entries], dtype=object))
