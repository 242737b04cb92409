"""First stage of `sample`: the data's problem, the chains' starts and the PyMC model."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pymc as pm
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.bayes.build import build_model
from pymc_mte.bayes.labelling import numbered_by_prior
from pymc_mte.bayes.modes import OVERDISPERSED, Modes, at_best, chain_modes, chain_starts, find_modes
from pymc_mte.bayes.pooling import pooled_values
from pymc_mte.bayes.priors import Prior
from pymc_mte.bayes.rowmodes import row_modes
from pymc_mte.bayes.rowstart import chain_start
from pymc_mte.bayes.rowwise import needs_rows
from pymc_mte.bayes.start import JITTER, without_first_levels
from pymc_mte.data import columns_of
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.methods import pooled_scales
from pymc_mte.moments.problem import Problem, make_problem
from pymc_mte.status import Note

Array = NDArray[np.float64]


WIDE_ROWS = 1_000
"""With more rows starts spread as the posterior narrows: many parameters at once would end elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Everything that sampling needs and that the draws are read with.

    Attributes
    ----------
    model : CausalModel
        The graph, its levels resolved.
    table : xarray.Dataset
        Tabulated data.
    built : pymc.Model
        The posterior.
    pivot : mapping of str to ndarray
        The best optimum, classes in the order of the package, or with the prior's numbers.
    problem : Problem or None
        The data as the climbs see them; None with the row-wise likelihood.
    modes : Modes
        All modes that were found.
    started : ndarray of int, shape (runs,)
        Mode at which each chain starts.
    chains : int
        Chains that were asked for; more are run where more modes are to be sampled.
    scales : mapping of str to float
        Pooled standard deviations of the continuous variables.
    starts : list of mappings
        One start per chain, as values of the model's random variables.
    at_best : float
        Share of the climbs that ended at the best mode.
    start : DataTree or None
        The estimate that the caller gave.
    by_prior : Note or None
        That classes bear the prior's numbers, if they do.
    """

    model: CausalModel
    table: xr.Dataset
    built: pm.Model
    pivot: Parameters
    problem: Problem | None
    modes: Modes
    started: NDArray[np.int64]
    chains: int
    scales: dict[str, float]
    starts: list[Parameters]
    at_best: float
    start: xr.DataTree | None
    by_prior: Note | None

    @property
    def n(self) -> float:
        """Number of rows."""
        return float(self.table["count"].sum())


def prepare(
    model: CausalModel,
    table: xr.Dataset,
    *,
    start: xr.DataTree | None,
    priors: Mapping[str, Prior] | None,
    chains: int,
    seed: int,
    likelihood: bool = True,
) -> Prepared:
    """Climb to the modes, spread the chains around them and build the model.

    Parameters
    ----------
    model : CausalModel
        The graph, its levels resolved.
    table : xarray.Dataset
        Tabulated data.
    start, priors
        See `pymc_mte.sample`.
    chains : int
        Number of chains.
    seed : int
        Seed of the climbs and of the jitter.
    likelihood : bool
        Whether optima of the likelihood are looked for beside the posterior's modes.
    """
    columns, counts = columns_of(table, model), np.asarray(table["count"].values, dtype=float)
    built = build_model(model, table, priors=priors)
    scales, rng = pooled_scales(model, columns, counts), np.random.default_rng(seed)
    if needs_rows(model, table):
        problem = None
        modes, by_prior = numbered_by_prior(model, built, priors, row_modes(model, table, start, seed))
        started = chain_modes(modes, chains)
        wide = [len(modes) == 1 and chain % 2 == 1 for chain in range(len(started))]
        nearer = min(1.0, np.sqrt(WIDE_ROWS / counts.sum()))
        starts = [
            chain_start(
                model, table, modes.at(mode), scales, rng, nearer * (OVERDISPERSED if far else JITTER)
            )
            for mode, far in zip(started, wide, strict=True)
        ]
    else:
        problem = make_problem(model, columns, counts, seed=seed)
        modes = find_modes(problem, start, priors=priors, likelihood=likelihood)
        modes, by_prior = numbered_by_prior(model, built, priors, modes)
        started = chain_modes(modes, chains)
        points = chain_starts(problem, modes, started, rng)
        if not set(model.dims) <= {rv.name for rv in built.free_RVs}:
            # The variables behind pooled parameters have no labels to be matched by, so modes cannot be
            # weighed. Chains start in all of them: where they stay apart, R-hat says so.
            started = np.zeros_like(started)
        starts = [without_first_levels(model, point) for point in points]
        starts = [pooled_values(built, model, start, scales) for start in starts]
    return Prepared(
        model=model,
        table=table,
        built=built,
        problem=problem,
        modes=modes,
        started=started,
        chains=chains,
        pivot=modes.at(0),
        scales=scales,
        starts=starts,
        at_best=at_best(modes),
        start=start,
        by_prior=by_prior,
    )
