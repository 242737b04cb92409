"""A posterior compiled once: log-density and gradient of one vector, for all data of the same form."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from numpy.typing import NDArray
from pymc.pytensorf import join_nonshared_inputs
from pytensor.compile.mode import get_mode
from pytensor.gradient import grad
from pytensor.graph.replace import clone_replace, vectorize_graph
from pytensor.link.numba.cache import CACHED_SRC_FUNCTIONS
from pytensor.link.numba.dispatch.basic import numba_njit
from pytensor.link.numba.linker import NumbaLinker

from pymc_mte.bayes.priors import Tensor
from pymc_mte.errors import DataError
from pymc_mte.model import Parameters

Array = NDArray[np.float64]
Key = tuple[str, str]

SHORT = "FAST_COMPILE"
"""Compilation mode of what is called once on many draws."""

AT_ONCE = 4_000_000
"""Numbers per class that the values of many draws may take while they are computed."""


class _ThreadedLinker(NumbaLinker):
    """PyTensor's Numba linker, letting other chains run meanwhile; cached on disk under its own key.

    A function that nutpie compiles itself is never cached and costs seconds in every process.
    """

    def jit_compile(self, fn_and_cache: Any) -> Callable[..., Any]:
        function, key = fn_and_cache
        if key is not None:
            CACHED_SRC_FUNCTIONS[function.py_func] = f"{key}-nogil"
        jitted: Callable[..., Any] = numba_njit(
            function.py_func, final_function=True, cache=key is not None, nogil=True
        )
        return jitted


@dataclass(frozen=True, kw_only=True)
class Maps:
    """Maps between a model's free variables and one unconstrained vector.

    Attributes
    ----------
    variables : tuple of str
        Free variables in the order of the vector.
    computed : tuple of str
        What the model computes from them.
    joined, log_density : tensors
        The symbolic vector and its log-density.
    size : int
        Length of the vector.
    to_values, to_vectors : callable
        The two maps, compiled.
    rows : int
        Length of the longest data array: what a computed value may average over.
    """

    variables: tuple[str, ...]
    computed: tuple[str, ...]
    joined: Tensor
    log_density: Tensor
    size: int
    to_values: Any
    to_vectors: Callable[..., list[Array]]
    rows: int

    def constrain(self, x: Array) -> Parameters:
        """Values of free and computed variables: (..., size) to (..., *shape) each."""
        lead, names = x.shape[:-1], self.variables + self.computed
        flat, step = x.reshape(-1, self.size), max(1, AT_ONCE // self.rows)
        parts = [self.to_values(flat[i : i + step]) for i in range(0, len(flat), step)]
        drawn = [np.concatenate(part) for part in zip(*parts, strict=True)]
        return {n: np.asarray(v).reshape(*lead, *v.shape[1:]) for n, v in zip(names, drawn, strict=True)}

    def unconstrain(self, values: Mapping[str, Array]) -> Array:
        """Vector of one set of values of the free variables."""
        parts = self.to_vectors(*(np.asarray(values[n], dtype=float) for n in self.variables))
        return np.concatenate([np.ravel(part) for part in parts]).astype(float)


@dataclass(frozen=True, kw_only=True)
class Density:
    """A log-posterior of the unconstrained vector, with the data it is of.

    Attributes
    ----------
    function : callable
        Compiled: the vector and the data's arrays give log-density and gradient; runs without the
        interpreter's lock.
    keys : tuple of pairs
        What each of the data's arrays is: ``("data", name)`` or ``("dim", name)``.
    data : tuple of ndarray
        The data in use.
    maps : Maps
        Between the vector and the free variables.
    """

    function: Callable[..., tuple[Any, Array]]
    keys: tuple[Key | None, ...]
    data: tuple[NDArray[Any], ...]
    maps: Maps

    def __call__(self, x: Array) -> tuple[float, Array]:
        """Log-density and gradient at one vector."""
        value, gradient = self.function(x, *self.data)
        return float(value), gradient

    def with_data(self, built: pm.Model, keep: str = "\0") -> "Density":
        """Take the data of another model of the same form; nothing is compiled.

        Data whose name starts with ``keep`` stay as they are.
        """
        found = _shared(built)
        data = []
        for key, old in zip(self.keys, self.data, strict=True):
            if key is None or key[1].startswith(keep):
                data.append(old)
                continue
            if key not in found:
                raise DataError(f"the new data have no {key[1]!r}; the model was compiled with it")
            new = np.asarray(found[key].get_value())
            if new.ndim != old.ndim or (key[0] == "dim" and new != old):
                raise DataError(f"the new data have another form than the compiled model's ({key})")
            data.append(_contiguous(new.astype(old.dtype)))
        maps = self.maps
        if used := maps.to_values.get_shared():  # computed from data, such as a covariate's scale
            by_name = {name: variable for (_, name), variable in found.items()}
            to_values = maps.to_values.copy(swap={old: by_name[old.name] for old in used})
            maps = replace(maps, to_values=to_values, rows=_longest(built))
        return replace(self, data=tuple(data), maps=maps)


def compile_maps(built: pm.Model, point: Mapping[str, Array]) -> Maps:
    """Compile the maps to and from the unconstrained vector, without the density.

    Parameters
    ----------
    built : pymc.Model
        A model of continuous free variables.
    point : mapping of str to ndarray
        Any values of the free variables; they give the shapes.
    """
    given = {rv: rv.type(rv.name) for rv in built.free_RVs}
    forward = []
    for rv, value in given.items():
        transform = built.rvs_to_transforms[rv]
        forward.append(value if transform is None else transform.forward(value, *rv.owner.inputs))
    forward = clone_replace(forward, given, rebuild_strict=False)
    to_vectors = pm.compile(list(given.values()), forward, mode=SHORT, on_unused_input="ignore")
    names = tuple(rv.name for rv in given)
    flat = to_vectors(*(np.asarray(point[n], dtype=float) for n in names))
    value_vars = [built.rvs_to_values[rv] for rv in built.free_RVs]
    at = {v.name: np.asarray(part) for v, part in zip(value_vars, flat, strict=True)}
    wanted = [*built.free_RVs, *built.deterministics]
    outputs = [built.logp(), *built.replace_rvs_by_values(wanted)]
    (log_density, *values), joined = join_nonshared_inputs(at, outputs, value_vars)
    many = pt.matrix("vectors")
    return Maps(
        variables=names,
        computed=tuple(variable.name for variable in built.deterministics),
        joined=joined,
        log_density=log_density,
        size=sum(part.size for part in at.values()),
        to_values=pm.compile([many], vectorize_graph(values, {joined: many}), mode=SHORT),
        to_vectors=to_vectors,
        rows=_longest(built),
    )


def compile_density(built: pm.Model, point: Mapping[str, Array]) -> Density:
    """Compile the log-density and its gradient.

    Parameters
    ----------
    built : pymc.Model
        A model of continuous free variables, its data in `pymc.Data`.
    point : mapping of str to ndarray
        Any values of the free variables; they give the shapes.
    """
    maps = compile_maps(built, point)
    with quiet_compilation():
        function = pm.compile(
            [maps.joined],
            [maps.log_density, grad(maps.log_density, maps.joined)],
            mode=get_mode("NUMBA").clone(linker=_ThreadedLinker()),
            on_unused_input="ignore",
        )
        shared = function.get_shared()
        data = tuple(_contiguous(v.get_value()) for v in shared)
        function.vm.jit_fn(maps.unconstrain(point), *data)  # machine code is made, or read from disk, here
    known = {id(variable): key for key, variable in _shared(built).items()}
    keys = tuple(known.get(id(v)) for v in shared)
    return Density(function=function.vm.jit_fn, keys=keys, data=data, maps=maps)


def _longest(built: pm.Model) -> int:
    """Length of the longest data array."""
    return max([1, *(len(np.atleast_1d(v.get_value())) for v in built.data_vars)])


def _contiguous(value: Any) -> NDArray[Any]:
    """Array in C order; a number stays without axes."""
    return np.array(value, order="C", copy=True)


def _shared(built: pm.Model) -> dict[Key, Any]:
    """Everything in a model that changes with the data: its arrays and the lengths of its axes."""
    lengths = {("dim", str(n)): v for n, v in built.dim_lengths.items() if hasattr(v, "get_value")}
    return lengths | {("data", str(v.name)): v for v in built.data_vars}


@contextlib.contextmanager
def quiet_compilation() -> Iterator[None]:
    """Silence what compilation says about its own fallbacks; our checks judge the draws."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Numba will use object mode", category=UserWarning)
        yield
