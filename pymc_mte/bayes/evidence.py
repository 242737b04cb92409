"""The evidence (marginal likelihood) of a model: by SMC, or by bridge sampling from a posterior."""

import json
from collections.abc import Mapping
from math import lgamma
from typing import Any, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.bayes.bridge import Normal, bridge
from pymc_mte.bayes.build import build_model
from pymc_mte.bayes.density import PosteriorDensity, multinomial_coefficient
from pymc_mte.bayes.labels import LabelRegion
from pymc_mte.bayes.prepare import prepare
from pymc_mte.bayes.priors import Prior, prior_record
from pymc_mte.bayes.smc import LEAST_PARTICLES, run_smc
from pymc_mte.data import SAMPLING_WEIGHT, columns_of, fingerprint, resolve
from pymc_mte.errors import DataError, RefusedError, whole_number
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.modelfile import need_model
from pymc_mte.moments.methods import class_profile, pooled_scales
from pymc_mte.results import model_of

Array = NDArray[np.float64]

N_PROPOSALS = 4_000

PER_PARAMETER = 2
"""Draws per free parameter, at least, that the normal is fitted to, and that the bridge starts from."""


def log_evidence(
    model: CausalModel,
    data: Any = None,
    *,
    posterior: xr.DataTree | None = None,
    priors: Mapping[str, Prior] | None = None,
    draws: int = 2_000,
    chains: int = 4,
    random_seed: int = 0,
) -> xr.Dataset:
    """Compute the log evidence: the log probability of the rows, all parameters averaged over the prior.

    Parameters
    ----------
    model : CausalModel
        The graph and families.
    data : tabulated Dataset, dataframe, mapping or path, optional
        The rows; the model's own data file by default.
    posterior : DataTree, optional
        An answer of `sample` for these rows and priors. Then the evidence comes from its draws by
        bridge sampling, which takes seconds and suits larger data; without it, from sequential Monte
        Carlo, which needs no posterior and suits small models with several modes.
    priors : mapping, optional
        See `build_model`; those of the posterior, if one is given.
    draws, chains : int
        Particles per run, at least 4, and independent runs of SMC, at least 2.
    random_seed : int
        Seed.

    Returns
    -------
    xarray.Dataset
        ``log_evidence`` and its Monte Carlo ``error`` in natural logarithms; with SMC also
        ``log_evidence_run`` (run). ``attrs["method"]`` is ``smc`` or ``bridge``.

    Raises
    ------
    DataError
        If the posterior is one of other rows, of another model or of other priors.
    RefusedError
        If the rows have sampling weights; if the posterior is an approximation or of rounded values, or has
        fewer than four draws per free parameter, or the prior treats classes differently:
        then labels are not exchangeable and the draws, relabelled to one order, do not stand for all.

    Notes
    -----
    The rows are taken in their order, so discrete and continuous data are treated alike: PyMC's own
    value for a table of counts is larger by the log multinomial coefficient, kept in
    ``attrs["log_multinomial_coefficient"]``. All orders of the classes count: the bridge integrates over
    the parameters nearest to one order and adds log K!. Differences between models of the same rows are
    log Bayes factors, and they depend on the priors much more than estimates do.

    Examples
    --------
    One coin with prior Beta(1, 1), seen 3 times, once heads: the evidence is B(2, 3) = 1/12.

    >>> from pymc_mte import CausalModel
    >>> coin = CausalModel(classes=1, variables={"heads": {"family": "bernoulli"}})
    >>> found = log_evidence(coin, {"heads": [0, 0, 1]}, priors={"p_heads": 1.0}, draws=1_000)
    >>> bool(abs(found["log_evidence"] + np.log(12)) < 0.2)
    True
    """
    need_model("log_evidence", model)
    if model.interventions is not None:
        raise RefusedError(
            "no evidence for a mixture of interventions: its posterior averages over sets of targets; read "
            "their probabilities in the result's group `targets`"
        )
    draws, chains = whole_number("draws", draws, LEAST_PARTICLES), whole_number("chains", chains, 2)
    random_seed = whole_number("random_seed", random_seed, 0)
    model, table = resolve(model, data)
    if SAMPLING_WEIGHT in table:
        raise RefusedError("rows with sampling weights have powers of a likelihood, which have no evidence")
    built = build_model(model, table, priors=priors)
    if posterior is not None:
        model_of(posterior)
        if posterior.attrs.get("fingerprint") != fingerprint(model, table):
            raise DataError("the posterior was drawn from other rows; pass the data that it was sampled with")
        _check_bridgeable(model, posterior, priors)
        value, error = _by_bridge(model, built, table, posterior, random_seed)
        found = xr.Dataset({"log_evidence": value, "error": error}, attrs={"method": "bridge"})
    else:
        ready = prepare(model, table, start=None, priors=priors, chains=chains, seed=random_seed)
        tree = run_smc(model, built, ready.pivot, ready.scales, chains, random_seed, {"draws": draws})
        found = tree["evidence"].to_dataset()
    found.attrs["log_multinomial_coefficient"] = multinomial_coefficient(built)
    return found


def _check_bridgeable(model: CausalModel, posterior: xr.DataTree, priors: Mapping[str, Prior] | None) -> None:
    """Refuse draws of another density than the one that is integrated."""
    kind = posterior["posterior"].attrs.get("kind")
    if kind == "bootstrap":
        raise RefusedError("posterior: these are replicates of `estimate`; pass what `sample` gave")
    if kind == "approximation":
        raise RefusedError("the draws are of an approximation, not of the posterior; take another sampler")
    if "grid" in posterior.attrs:
        raise RefusedError(
            "the posterior is of rounded values; sample without a grid for the evidence of rows"
        )
    own = posterior.attrs.get("priors")
    if own is not None and json.loads(own) != json.loads(json.dumps(prior_record(model, priors))):
        raise DataError("the posterior was drawn under other priors; pass the ones that it was sampled with")


def _by_bridge(
    model: CausalModel, built: Any, table: xr.Dataset, posterior: xr.DataTree, seed: int
) -> tuple[float, float]:
    """Integrate over all labels from aligned draws of a posterior."""
    if "modes" in posterior and "log_evidence" in posterior["modes"].attrs:
        kept = posterior["modes"].attrs
        return float(kept["log_evidence"]), float(kept["log_evidence_error"])
    density = PosteriorDensity(model, built)
    drawn = posterior["posterior"].to_dataset()
    if lacking := [rv.name for rv in built.free_RVs if rv.name not in drawn]:
        raise RefusedError(f"the posterior does not hold {lacking}; leave it out and SMC gives the evidence")
    values = {rv.name: drawn[rv.name].values for rv in built.free_RVs}
    scales = pooled_scales(model, columns_of(table, model), table["count"].values.astype(float))
    region = LabelRegion(model, class_profile(model, values, scales).mean(axis=(0, 1)), scales)
    joined = {name: value.reshape(-1, *value.shape[2:]) for name, value in values.items()}
    flat = density.to_flat(region.aligned(joined))
    if not density.exchangeable(flat[:3]):
        raise RefusedError(
            "the prior treats the classes differently, so draws relabelled to one order do not stand for "
            "the posterior; leave `posterior` out, which takes sequential Monte Carlo"
        )
    series = flat.reshape(drawn.sizes["chain"], -1, flat.shape[-1])
    chains, draws, size = series.shape
    least = 2 * -(-PER_PARAMETER * size // chains)
    if draws < least:
        raise RefusedError(
            f"bridge sampling of {size} parameters needs at least {least} draws in each of {chains} chains, "
            f"got {draws}; sample more"
        )
    half = draws // 2
    fit = series[:, :half].reshape(-1, flat.shape[-1])
    return region_integral(density, region, Normal.fitted(fit), series[:, half:], seed)


class Region(Protocol):
    """A part of the parameter space that holds one order of the classes."""

    def holds(self, parameters: Parameters) -> NDArray[np.bool_]:
        """Whether each set of parameters lies in the region: (sets,)."""
        ...


def region_integral(
    density: PosteriorDensity, region: Region, proposal: Normal, flat: Array, seed: int
) -> tuple[float, float]:
    """Integrate the density over a region and its relabelled copies: log integral and its error.

    Parameters
    ----------
    density : PosteriorDensity
        Of a prior under which labels are exchangeable.
    region : Region
        What to integrate over.
    proposal : Normal
        Fitted to draws of the region, other ones than those given.
    flat : ndarray of shape (chains, draws, n_free)
        Draws inside the region.
    seed : int
        Seed of the proposals.
    """
    points = proposal.draw(N_PROPOSALS, np.random.default_rng(seed))
    inside = region.holds(density.from_flat(points))
    at_proposals = np.full(len(points), -np.inf)
    at_proposals[inside] = density.log_density(points[inside]) - proposal.log_density(points[inside])
    joined = flat.reshape(-1, flat.shape[-1])
    at_draws = density.log_density(joined) - proposal.log_density(joined)
    value, error = bridge(at_draws.reshape(flat.shape[:2]), at_proposals)
    return value + lgamma(density.model.classes + 1), error
