"""The samplers: NUTS by nutpie, PyMC or NumPyro, every chain from its own start; Laplace's approximation."""

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from math import lgamma
from types import SimpleNamespace
from typing import Any

import numpy as np
import pymc as pm
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.bayes.density import multinomial_coefficient
from pymc_mte.bayes.gradient import Density, Maps, compile_density, quiet_compilation
from pymc_mte.bayes.laplace import laplace_draws, normal_frame
from pymc_mte.bayes.native import Frame, places
from pymc_mte.bayes.prepare import Prepared
from pymc_mte.bayes.smc import run_smc
from pymc_mte.errors import ModelError, RefusedError
from pymc_mte.model import Parameters

Array = NDArray[np.float64]

VECTOR = "unconstrained"
"""Name of the drawn vector among nutpie's variables."""


def run_nutpie(built: pm.Model, starts: list[Parameters], seed: int, options: dict[str, Any]) -> xr.DataTree:
    """Sample with nutpie, every chain at its own start."""
    density = compile_density(built, starts[0])
    return sample_density(density, [density.maps.unconstrain(start) for start in starts], seed, options)


def sample_density(density: Density, vectors: list[Array], seed: int, options: dict[str, Any]) -> xr.DataTree:
    """Sample a compiled posterior with nutpie, every chain from its own vector.

    Parameters
    ----------
    density : Density
        The posterior.
    vectors : list of ndarray
        Start of every chain.
    seed : int
        Seed of all chains.
    options : mapping
        ``draws``, ``tune``, ``cores``, ``target_accept``, ``progressbar``.

    Returns
    -------
    DataTree
        ``posterior`` by free variable and ``sample_stats``; shorter where it was interrupted.
    """
    raw = draw_vectors(density, vectors, seed, options)
    stats = raw["sample_stats"].to_dataset()
    return with_values(density.maps, raw["posterior"].to_dataset()[VECTOR].values, stats, options["draws"])


def draw_vectors(
    density: Density, vectors: list[Array], seed: int, options: dict[str, Any], store: Any = None
) -> xr.DataTree:
    """Run nutpie; it records vectors only, whose values are had at once after.

    nutpie has no per-chain starts, but asks for each chain's start with that chain's seed; a dry
    run of one draw lists the seeds in the order of the chains. ``store`` (a nutpie.zarr_store) takes
    the draws while sampling.
    """
    import nutpie

    seen: list[int] = []
    frame = normal_frame(density, vectors[0])
    starts = vectors if frame is None else [frame.coordinates(vector) for vector in vectors]

    def listening(chain_seed: int) -> Array:
        seen.append(chain_seed)
        return starts[0]

    sizes = {"chains": len(vectors), "seed": seed}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Found chain dimension to be longer", category=UserWarning)
        nutpie.sample(
            _nutpie_model(density, frame, listening), draws=1, tune=1, cores=1, progress_bar=False, **sizes
        )
        if len(seen) != len(starts) or len(set(seen)) != len(vectors):
            raise RuntimeError(
                f"nutpie asked for {len(seen)} starts of {len(vectors)} chains; choose another random_seed"
            )
        by_seed = dict(zip(seen, starts, strict=True))
        tree: xr.DataTree = nutpie.sample(
            _nutpie_model(density, frame, lambda chain_seed: by_seed[chain_seed]),
            draws=options["draws"],
            tune=options["tune"],
            cores=options["cores"],
            target_accept=options["target_accept"],
            save_warmup=False,
            progress_bar=options["progressbar"],
            zarr_store=store,
            **sizes,
        )
    return tree


def _nutpie_model(density: Density, frame: Frame | None, start: Callable[[int], Array]) -> Any:
    """Describe a compiled density to nutpie; ``start`` takes a chain's seed."""
    from nutpie.compile_pymc import CompiledPyMCModel

    size = density.maps.size
    return CompiledPyMCModel(
        compiled_logp_func=SimpleNamespace(address=density.function.address),
        compiled_expand_func=SimpleNamespace(address=density.function.position),
        initial_point_func=start,
        shared_data={"density": density, "frame": frame},  # live as long as the sampler
        user_data=places(density.data, frame),
        n_expanded=size,
        shape_info=([VECTOR], [slice(0, size)], [(size,)]),
        _n_dim=size,
        _shapes={VECTOR: (size,)},
        dims={},
        _coords={},
        **{"shared_var_keys": {}, "logp_func": None, "expand_func": None, "reparameterized_names": []},
    )


def with_values(maps: Maps, vectors: Array, stats: xr.Dataset, wanted: int) -> xr.DataTree:
    """Turn drawn vectors (chain, draw, size) into values; cut what an interruption left incomplete.

    Chains that have less than half of the longest one's draws are left out, the others cut to the
    shortest.

    Parameters
    ----------
    maps : Maps
        Between vectors and values.
    vectors : ndarray
        Draws; missing ones are not numbers.
    stats : Dataset
        Sampler statistics.
    wanted : int
        Draws per chain that were asked for.
    """
    done = np.isfinite(vectors).all(axis=-1).sum(axis=1)
    if not done.any():
        raise KeyboardInterrupt("sampling was interrupted before any draw was kept")
    chains = np.flatnonzero(2 * done >= done.max())
    draws = int(done[chains].min())
    values = maps.constrain(vectors[chains, :draws])
    tree = xr.DataTree.from_dict(
        {
            "posterior": labelled(values),
            "sample_stats": stats.isel(chain=chains, draw=slice(0, draws)),
        }
    )
    tree.attrs["kept_chains"] = chains.tolist()
    if draws < wanted:
        left = ", ".join(str(c) for c in np.flatnonzero(2 * done < done.max()))
        detail = f"{draws} of {wanted} draws per chain" + f", without chain {left}" * bool(left)
        tree.attrs["interrupted"] = detail
    return tree


def labelled(values: Parameters) -> xr.Dataset:
    """Draws by variable with the leading axes chain and draw."""
    drawn = {
        name: (("chain", "draw", *(f"{name}_{i}" for i in range(value.ndim - 2))), value)
        for name, value in values.items()
    }
    return xr.Dataset(drawn)


def _run_pymc(sampler: str, **more: Any) -> "Run":
    """Sample with a sampler that PyMC calls, every chain at its own start."""

    def run(built: pm.Model, starts: list[Parameters], seed: int, options: dict[str, Any]) -> xr.DataTree:
        with built, quiet_compilation():
            tree: xr.DataTree = pm.sample(
                draws=options["draws"],
                tune=options["tune"],
                chains=len(starts),
                cores=options["cores"],
                initvals=starts,
                nuts_sampler=sampler,
                random_seed=seed,
                nuts={"target_accept": options["target_accept"]},
                progressbar=options["progressbar"],
                compute_convergence_checks=False,
                **more,
            )
        got = tree["posterior"].sizes["draw"]
        if got < options["draws"]:
            tree.attrs["interrupted"] = f"{got} of {options['draws']} draws per chain"
        return tree

    return run


def run_numpyro(built: pm.Model, starts: list[Parameters], seed: int, options: dict[str, Any]) -> xr.DataTree:
    """Sample with NumPyro's NUTS, an optional extra."""
    if find_spec("numpyro") is None:
        raise ModelError(
            "sampler 'numpyro' needs NumPyro, which is not installed: pip install 'pymc-mte[jax]'; "
            "sampler='nutpie' needs nothing more"
        )
    return _run_pymc("numpyro")(built, starts, seed, options)


def run_laplace(built: pm.Model, starts: list[Parameters], seed: int, options: dict[str, Any]) -> xr.DataTree:
    """Draw from Laplace's approximation at the highest mode; its evidence is of ordered rows, all labels."""
    density = compile_density(built, starts[0])
    vectors = [density.maps.unconstrain(start) for start in starts]
    drawn, log_density, attrs = laplace_draws(density, vectors, options["draws"], seed)
    stats = {"lp": log_density, "diverging": np.zeros(log_density.shape, dtype=bool)}
    tree = xr.DataTree.from_dict(
        {
            "posterior": labelled(density.maps.constrain(drawn)),
            "sample_stats": xr.Dataset({n: (("chain", "draw"), v) for n, v in stats.items()}),
        }
    )
    orders = lgamma(len(built.coords["class"]) + 1)  # the normal covers one order of the classes
    attrs["log_evidence"] += orders - multinomial_coefficient(built)
    tree.attrs["approximation"] = attrs
    return tree


type Run = Callable[[pm.Model, list[Parameters], int, dict[str, Any]], xr.DataTree]

SAMPLERS: dict[str, Run] = {
    "nutpie": run_nutpie,
    "pymc": _run_pymc("pymc", init="adapt_diag"),
    "numpyro": run_numpyro,
    "laplace": run_laplace,
}
"""NUTS, by the name of who runs it, and Laplace's approximation; ``sampler`` may also name ``smc``."""


def run_sampler(ready: Prepared, sampler: str, seed: int, options: dict[str, Any]) -> xr.DataTree:
    """Run NUTS, an approximation or SMC on a prepared posterior."""
    if sampler == "smc":
        if ready.model.regressed:
            raise RefusedError("smc takes neither covariates nor linear parents; take nutpie")
        if computed := sorted(
            set(ready.model.dims) - {rv.name for rv in ready.built.free_RVs} - {"class_weight"}
        ):
            raise RefusedError(
                f"sequential Monte Carlo does not take pooled priors ({computed}); take nutpie"
            )
        return run_smc(ready.model, ready.built, ready.pivot, ready.scales, ready.chains, seed, options)
    return SAMPLERS[sampler](ready.built, ready.starts, seed, options)
