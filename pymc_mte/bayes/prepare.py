"""First stage of `sample`: the data's problem, the chains' starts and the PyMC model."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pymc as pm
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.bayes.build import build_model
from pymc_mte.bayes.priors import Prior
from pymc_mte.bayes.rowstart import chain_start, row_starting_point
from pymc_mte.bayes.rowwise import needs_rows
from pymc_mte.bayes.start import order_classes, starting_point
from pymc_mte.data import columns_of
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.methods import pooled_scales
from pymc_mte.moments.problem import make_problem

Array = NDArray[np.float64]


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
        The best optimum, classes in the order of the package; chains are aligned to it.
    scales : mapping of str to float
        Pooled standard deviations of the continuous variables.
    starts : list of mappings
        One start per chain, as values of the model's random variables.
    at_best : float
        Share of the likelihood climbs that ended at the best optimum.
    start : DataTree or None
        The estimate that the caller gave.
    """

    model: CausalModel
    table: xr.Dataset
    built: pm.Model
    pivot: Parameters
    scales: dict[str, float]
    starts: list[Parameters]
    at_best: float
    start: xr.DataTree | None

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
) -> Prepared:
    """Climb to the best optimum, spread the chains around it and build the model.

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
    """
    columns, counts = columns_of(table, model), np.asarray(table["count"].values, dtype=float)
    built = build_model(model, table, priors=priors)
    if needs_rows(model, table):
        pivot, at_best = row_starting_point(model, table, start, seed)
    else:
        point, at_best = starting_point(make_problem(model, columns, counts, seed=seed), start)
        pivot = order_classes(model, point)
    scales = pooled_scales(model, columns, counts)
    rng = np.random.default_rng(seed)
    starts = [chain_start(model, table, pivot, scales, rng) for _ in range(chains)]
    return Prepared(
        model=model,
        table=table,
        built=built,
        pivot=pivot,
        scales=scales,
        starts=starts,
        at_best=at_best,
        start=start,
    )
