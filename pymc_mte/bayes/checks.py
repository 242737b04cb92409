"""What the sampler does not say by itself: divergences, disagreement of chains, label switching."""

import arviz as az
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.model import CausalModel
from pymc_mte.status import Note, Status
from pymc_mte.summary import MAX_SWITCHING

MAX_RHAT = 1.01
MIN_ESS = 400
STUCK = 8.0
"""A chain whose mean log-density lies this far below the best one sits in a worse mode."""


def convergence(model: CausalModel, posterior: xr.Dataset, stats: xr.Dataset, switching: float) -> list[Note]:
    """Judge the aligned draws.

    Parameters
    ----------
    model : CausalModel
        The model.
    posterior : xarray.Dataset
        Aligned draws.
    stats : xarray.Dataset
        Sampler statistics.
    switching : float
        Share of draws that prefer another labelling than their chain's.
    """
    notes = []
    if divergent := int(stats["diverging"].sum()) if "diverging" in stats else 0:
        notes.append(Note(Status.DIVERGENCES, "sampler", f"{divergent} of {stats['diverging'].size} draws"))
    if posterior.sizes["chain"] < 2:
        notes.append(Note(Status.NOT_CHECKED, "sampler", f"{posterior.sizes['chain']} chain"))
    rhat, ess, worst = worst_mixing(posterior)
    if rhat > MAX_RHAT or ess < MIN_ESS:
        notes.append(Note(Status.NOT_MIXED, worst, f"R-hat {rhat:.3f}, effective draws {ess:.0f}"))
    level = chain_levels(stats)
    if level is not None and level.max() - level.min() > STUCK:
        gap = f"a chain lies {level.max() - level.min():.1f} log units below the best"
        notes.append(Note(Status.NOT_MIXED, "chains", gap))
    if switching > MAX_SWITCHING and model.classes > 1:
        notes.append(Note(Status.LABEL_SWITCHING, "classes", f"in {switching:.0%} of the draws"))
    return notes


def chain_levels(stats: xr.Dataset) -> NDArray[np.float64] | None:
    """Mean log-density of every chain; None if the sampler kept none."""
    density = stats["logp"] if "logp" in stats else stats.get("lp")
    return None if density is None else np.asarray(density.mean("draw").values, dtype=float)


def worst_mixing(posterior: xr.Dataset) -> tuple[float, float, str]:
    """Largest R-hat, smallest bulk effective sample size, and the variable with the largest R-hat."""
    varying = [
        str(n) for n in posterior.data_vars if np.ptp(posterior[n].values) > 0 and n != "weight_harmed"
    ]
    if posterior.sizes["chain"] < 2 or posterior.sizes["draw"] < 4:
        return np.nan, np.nan, ""
    with np.errstate(invalid="ignore"):  # entries that never vary have no R-hat
        rhat, ess = az.rhat(posterior[varying]), az.ess(posterior[varying])
    largest = {n: float(np.nanmax(rhat[n].values)) for n in varying}
    worst = max(largest, key=lambda n: largest[n])
    return largest[worst], min(float(np.nanmin(ess[n].values)) for n in varying), worst
