"""Sequential Monte Carlo: draws and evidence where chains would stay in one mode."""

import logging
from typing import Any

import numpy as np
import pymc as pm
import xarray as xr
from numpy.typing import NDArray
from scipy.special import logsumexp

from pymc_mte.model import Parameters

Array = NDArray[np.float64]

CORRELATION = 0.01
"""Particles are moved at each temperature until this little more decorrelation is gained."""


def run_smc(built: pm.Model, starts: list[Parameters], seed: int, options: dict[str, Any]) -> xr.DataTree:
    """Temper particles from the prior to the posterior, by one independent run per chain.

    Particles come from the prior, so starts are not used but for their number. They move by random
    walks: PyMC's default, independent proposals from one normal, suits no posterior with several modes
    and K! orders of the classes.

    Returns
    -------
    DataTree
        ``posterior`` (chain, draw), ``sample_stats`` (empty) and ``evidence``: ``log_evidence``
        (chain) of every run, multinomial coefficient included.
    """
    level = logging.getLogger("pymc").level
    logging.getLogger("pymc").setLevel(logging.ERROR)
    try:
        with built:
            found = pm.sample_smc(
                kernel=pm.smc.MH,
                draws=options["draws"],
                chains=len(starts),
                cores=options["cores"],
                random_seed=seed,
                progressbar=options["progressbar"],
                compute_convergence_checks=False,
                correlation_threshold=CORRELATION,
            )
    finally:
        logging.getLogger("pymc").setLevel(level)
    last = found["sample_stats"]["log_marginal_likelihood"].values
    runs = [np.asarray(run, dtype=float) for run in last.tolist()]
    reached = np.array([run[np.isfinite(run)][-1] for run in runs])
    drawn = found["posterior"].to_dataset()
    return xr.DataTree.from_dict(
        {
            "posterior": drawn,
            "sample_stats": xr.Dataset(coords={d: drawn[d] for d in ("chain", "draw")}),
            "evidence": xr.Dataset({"log_evidence": ("chain", reached)}),
        }
    )


def pooled_evidence(log_evidence: Array) -> tuple[float, float]:
    """Log of the mean of independent evidence estimates, and its standard error.

    Parameters
    ----------
    log_evidence : ndarray of shape (runs,)
        One estimate per run; each is unbiased on the plain scale.

    Examples
    --------
    >>> value, error = pooled_evidence(np.log([1.0, 3.0]))
    >>> round(value, 6) == round(float(np.log(2)), 6), round(error, 6)
    (True, 0.5)
    """
    n = len(log_evidence)
    value = float(logsumexp(log_evidence) - np.log(n))
    error = np.exp(log_evidence - value).std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
    return value, float(error)
