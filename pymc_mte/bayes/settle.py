"""From a sampler's chains to one sample of the whole posterior: labels, modes, weights, checks."""

from collections.abc import Callable
from dataclasses import dataclass

import arviz as az
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.bayes.checks import convergence
from pymc_mte.bayes.density import PosteriorDensity
from pymc_mte.bayes.labels import align_chains, align_draws
from pymc_mte.bayes.modes import Modes, basin_shares, optima_notes
from pymc_mte.bayes.pooling import functionals_of, group_labels
from pymc_mte.bayes.prepare import Prepared
from pymc_mte.bayes.start import with_first_levels
from pymc_mte.bayes.weigh import Weighing, one_mode, resampled, weigh
from pymc_mte.data import GROUP, SAMPLING_WEIGHT
from pymc_mte.model import CausalModel
from pymc_mte.results import dataset, labels
from pymc_mte.sites import BY_GROUP, SHIFT, group_functionals
from pymc_mte.status import Note, Status
from pymc_mte.summary import BY_CLASS, LABEL_FREE

Array = NDArray[np.float64]

ALONE = 0.99
"""A mode of at least this weight is no case of several explanations; the others stay in `modes`."""


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
    groups : mapping of str to xarray.Dataset
        Groups of a result: ``modes``, and ``evidence`` with SMC.
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
    groups: dict[str, xr.Dataset]
    switching: float
    notes: list[Note]
    kind: str
    library: str

    @property
    def evidence(self) -> dict[str, float]:
        """Log evidence of ordered rows and its error, where the draws gave them: attributes of a result."""
        names = ("log_evidence", "log_evidence_error")
        if "evidence" in self.groups:
            found = self.groups["evidence"]
            return dict(zip(names, (float(found["log_evidence"]), float(found["error"])), strict=True))
        kept = self.groups["modes"].attrs if "modes" in self.groups else {}
        return {name: float(kept[name]) for name in names if name in kept}


def settle(
    ready: Prepared,
    raw: xr.DataTree,
    given: tuple[Array | None, Array],
    *,
    sampler: str,
    seed: int,
    density: Callable[[], PosteriorDensity] | None = None,
    report: bool = True,
) -> Settled:
    """Align labels, weigh modes, judge convergence and resample where modes stay apart.

    Parameters
    ----------
    ready : Prepared
        What the draws were made from.
    raw : DataTree
        The sampler's ``posterior`` and ``sample_stats``, with SMC also ``evidence``.
    given : covariates and shares of the rows
        From `pymc_mte.regression.given_rows`.
    sampler : str
        Its name.
    seed : int
        Seed of bridge and resampling.
    density : callable, optional
        Gives the posterior's density, if it is compiled already.
    report : bool
        Whether convergence is judged and modes are described; simulation studies need neither.
    """
    model, smc, modes = ready.model, sampler == "smc", ready.modes
    about = raw.attrs.get("approximation")
    kept, stats = raw["posterior"].to_dataset(), raw["sample_stats"].to_dataset()
    own = with_first_levels(model, {name: kept[name].values for name in model.posterior_dims})
    if BY_GROUP in kept:
        own[BY_GROUP] = np.moveaxis(kept[BY_GROUP].values, -1, 2)
    weighing = one_mode(len(modes), kept.sizes["chain"], kept.sizes["draw"])
    if smc or about is not None:
        aligned, switching = align_draws(model, own, ready.pivot, ready.scales)
    else:
        weighing = weigh(model, ready.built, modes, own, ready.started, ready.scales, seed, density)
        pivots = {name: v[weighing.chain_mode] for name, v in modes.posterior.parameters.items()}
        aligned, switching = align_chains(model, own, pivots, ready.scales)
    of_groups = _of_groups(aligned, kept)
    aligned |= functionals_of(model, ready.built, aligned | of_groups, given)
    runs = _with_groups(ready, dataset(model, aligned), of_groups)
    notes: list[Note] = []
    if report:
        notes = _approximation(about) if about else _convergence(model, runs, stats, switching, weighing)
    notes = [*_interruption(raw), *notes]
    stats = stats.assign(mode=(("chain", "draw"), weighing.mode_of_draw))
    posterior, kept, stats = (_sampled(part, weighing, ready.chains, seed) for part in (runs, kept, stats))
    groups = {}
    if report and np.isfinite(modes.posterior.objective[0]):
        groups["modes"] = _group(ready, posterior, runs, weighing)
        others = optima_notes(modes) if ready.problem is not None else []
        notes = [*_mode_notes(modes, weighing), *notes, *others]
    if smc:
        groups["evidence"] = raw["evidence"].to_dataset()
    return Settled(
        posterior=posterior,
        kept=kept,
        stats=stats,
        groups=groups,
        switching=switching,
        notes=notes,
        kind="approximation" if about else "smc" if smc else "mcmc",
        library="pymc_mte" if smc else sampler,
    )


def _of_groups(aligned: dict[str, Array], kept: xr.Dataset) -> dict[str, Array]:
    """Take the class weights of groups out of the aligned draws, and their shifts of the outcome."""
    if BY_GROUP not in aligned:
        return {}
    out = {BY_GROUP: np.moveaxis(aligned.pop(BY_GROUP), 2, -1)}
    names = (SHIFT, "group_level_spread", "group_effect_spread")
    return out | {name: kept[name].values for name in names if name in kept}


def _with_groups(ready: Prepared, runs: xr.Dataset, of_groups: dict[str, Array]) -> xr.Dataset:
    """Add what differs over groups to the draws."""
    if not of_groups:
        return runs
    found, dims = of_groups, {BY_GROUP: (GROUP, "class"), SHIFT: (GROUP, "treatment")}
    if SHIFT in of_groups:
        values = {n: runs[n].values for n in ready.model.dims} | of_groups
        share = ready.built["group_share"].get_value()
        found = of_groups | group_functionals(ready.model, values, share)[1]
        contrast = ("contrast",) if len(ready.model.contrasts) > 1 else ()
        dims |= {"group_effect": (GROUP, "class", *contrast), "group_ate": (GROUP, *contrast)}
    out = runs.assign_coords({GROUP: group_labels(ready.table)})
    return out.assign({n: (("chain", "draw", *dims.get(n, ())), v) for n, v in found.items()})


def _interruption(raw: xr.DataTree) -> list[Note]:
    """Say that sampling was stopped early, where it was."""
    said = raw.attrs.get("interrupted")
    return [] if said is None else [Note(Status.INTERRUPTED, "sampler", said)]


def _approximation(about: dict[str, float]) -> list[Note]:
    """Say what the draws of an approximation are, and how near they come."""
    detail = f"reweighted to the posterior, {about['ess_share']:.0%} of the draws count"
    if about["flat_directions"]:
        detail += f"; {about['flat_directions']:.0f} directions without curvature"
    return [Note(Status.APPROXIMATION, "sampler", detail)]


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
    """Draws in one mode's region of the chains that are mostly there, cut to the shortest of them.

    A single chain gives its two halves, so that it can be compared with itself.
    """
    inside = weighing.mode_of_draw == mode
    chains = np.flatnonzero(weighing.chain_mode == mode)
    length = int(inside[chains].sum(axis=1).min())
    runs = [part.isel(chain=c, draw=np.flatnonzero(inside[c])[:length]).drop_vars("draw") for c in chains]
    if len(chains) == 1:
        half = length // 2
        runs = [runs[0].isel(draw=slice(start, start + half)) for start in (0, half)]
    joined = xr.concat([run.drop_vars("chain") for run in runs], dim="chain").transpose("chain", "draw", ...)
    return joined.assign_coords(chain=np.arange(len(runs)), draw=np.arange(joined.sizes["draw"]))


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


def _mode_notes(modes: Modes, weighing: Weighing) -> list[Note]:
    """Say that there are several modes, and what they weigh."""
    if weighing.reading == "weighted" and weighing.weight.max() < ALONE:
        told = zip(modes.posterior.log_likelihood, weighing.weight, weighing.weight_error, strict=True)
        listed = ", ".join(
            f"mode {j} (log-likelihood {level:.2f}) {weight:.3f} (standard error {error:.3f})"
            for j, (level, weight, error) in enumerate(told)
            if weight > 0
        )
        return [Note(Status.SEVERAL_MODES, "posterior", f"weights: {listed}")]
    if weighing.reading == "not weighted":
        return [Note(Status.MODES_UNWEIGHTED, "posterior", f"{len(modes)} modes")]
    return []


def _group(
    ready: Prepared,
    posterior: xr.Dataset,
    runs: xr.Dataset,
    weighing: Weighing,
) -> xr.Dataset:
    """Describe modes and optima: heights, shares of starts, weights, parameters."""
    model, modes, problem = ready.model, ready.modes, ready.problem
    drawn = {name: posterior[name].values for name in model.dims}
    weight, error = weighing.weight, weighing.weight_error
    if weighing.reading != "weighted":
        weight, error = basin_shares(problem, modes.posterior, drawn, modes.penalty)
    at_optimum = basin_shares(problem, modes.likelihood, drawn, 0.0)
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
    if weighing.reading == "weighted" and SAMPLING_WEIGHT not in ready.table:
        weighted = np.nan_to_num(weighing.weight) * weighing.error
        out.attrs["log_evidence"] = float(np.logaddexp.reduce(weighing.log_evidence))
        out.attrs["log_evidence_error"] = float(np.sqrt((weighted**2).sum()))
    if weighing.reading == "weighted":
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
