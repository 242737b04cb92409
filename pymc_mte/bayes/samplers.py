"""The samplers: NUTS by nutpie or by PyMC, every chain from its own start."""

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pymc as pm
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.bayes.prepare import Prepared
from pymc_mte.bayes.smc import run_smc
from pymc_mte.bayes.start import flat_start
from pymc_mte.model import Parameters

Array = NDArray[np.float64]


def run_nutpie(built: pm.Model, starts: list[Parameters], seed: int, options: dict[str, Any]) -> xr.DataTree:
    """Sample with nutpie, every chain at its own start."""
    import nutpie

    with _quiet_compilation():
        compiled = nutpie.compile_pymc_model(built, initial_points=starts[0], jitter_rvs=set())
    return sample_compiled(compiled, [flat_start(built, start) for start in starts], seed, options)


def sample_compiled(compiled: Any, flat: list[Array], seed: int, options: dict[str, Any]) -> xr.DataTree:
    """Sample a model that nutpie has compiled, every chain at its own unconstrained start.

    nutpie has no per-chain starts, but asks for each chain's start with that chain's seed; a dry
    run of one draw lists the seeds in the order of the chains.
    """
    import nutpie

    seen: list[int] = []

    def listening(chain_seed: int) -> Array:
        seen.append(chain_seed)
        return flat[0]

    chains = len(flat)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Found chain dimension to be longer", category=UserWarning)
        nutpie.sample(
            dataclasses.replace(compiled, initial_point_func=listening),
            draws=1,
            tune=1,
            chains=chains,
            cores=1,
            seed=seed,
            progress_bar=False,
        )
    if len(seen) != chains or len(set(seen)) != chains:
        raise RuntimeError(
            f"nutpie asked for {len(seen)} starts of {chains} chains; choose another random_seed"
        )
    by_seed = dict(zip(seen, flat, strict=True))
    tree: xr.DataTree = nutpie.sample(
        dataclasses.replace(compiled, initial_point_func=lambda chain_seed: by_seed[chain_seed]),
        draws=options["draws"],
        tune=options["tune"],
        chains=chains,
        cores=options["cores"],
        seed=seed,
        target_accept=options["target_accept"],
        save_warmup=False,
        progress_bar=options["progressbar"],
    )
    return tree


def run_pymc(built: pm.Model, starts: list[Parameters], seed: int, options: dict[str, Any]) -> xr.DataTree:
    """Sample with PyMC's own NUTS, every chain at its own start."""
    with built, _quiet_compilation():
        tree: xr.DataTree = pm.sample(
            draws=options["draws"],
            tune=options["tune"],
            chains=len(starts),
            cores=options["cores"],
            initvals=starts,
            init="adapt_diag",
            nuts_sampler="pymc",
            random_seed=seed,
            nuts={"target_accept": options["target_accept"]},
            progressbar=options["progressbar"],
            compute_convergence_checks=False,
        )
    return tree


@contextlib.contextmanager
def _quiet_compilation() -> Iterator[None]:
    """Silence what compilation says about its own fallbacks; our checks judge the draws."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Numba will use object mode", category=UserWarning)
        yield


SAMPLERS: dict[str, Callable[[pm.Model, list[Parameters], int, dict[str, Any]], xr.DataTree]] = {
    "nutpie": run_nutpie,
    "pymc": run_pymc,
}
"""NUTS, by the name of who runs it; ``sampler`` may also name ``smc``."""


def run_sampler(ready: Prepared, sampler: str, seed: int, options: dict[str, Any]) -> xr.DataTree:
    """Run NUTS or SMC on a prepared posterior."""
    if sampler == "smc":
        return run_smc(ready.model, ready.built, ready.pivot, ready.scales, ready.chains, seed, options)
    return SAMPLERS[sampler](ready.built, ready.starts, seed, options)
