"""A posterior compiled once: log-density and gradient of one vector, for all data of the same form."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from numpy.typing import NDArray
from pytensor.compile.maker import function as make_function
from pytensor.compile.mode import Mode, get_mode
from pytensor.gradient import grad
from pytensor.graph.replace import clone_replace, vectorize_graph
from pytensor.graph.rewriting.db import RewriteDatabaseQuery

from pymc_mte.bayes.native import Native, native, places
from pymc_mte.bayes.priors import Tensor
from pymc_mte.errors import DataError
from pymc_mte.model import Parameters

Array = NDArray[np.float64]
Key = tuple[str, str]

PLAIN = Mode(linker="py", optimizer=RewriteDatabaseQuery(include=[]))
"""Compilation mode of what is called once on many draws: NumPy as it stands, no machine code."""

AT_ONCE = 4_000_000
"""Numbers per class that the values of many draws may take while they are computed."""


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
    function : Native
        Compiled: the vector and the places of the data give log-density and gradient.
    keys : tuple of pairs
        What each of the data's arrays is: ``("data", name)`` or ``("dim", name)``.
    data : tuple of ndarray
        The data in use.
    maps : Maps
        Between the vector and the free variables.
    places : ndarray of int
        Where the data are.
    """

    function: Native
    keys: tuple[Key | None, ...]
    data: tuple[NDArray[Any], ...]
    maps: Maps
    places: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Note where the data are."""
        object.__setattr__(self, "places", places(self.data))

    def __call__(self, x: Array) -> tuple[float, Array]:
        """Log-density and gradient at one vector."""
        x = np.ascontiguousarray(x, dtype=float)
        if x.shape != (self.maps.size,):
            raise ValueError(f"a vector of {self.maps.size} numbers is wanted, got shape {x.shape}")
        value, gradient = np.full(1, np.nan), np.full_like(x, np.nan)
        self.function.call(x.size, *(array.ctypes.data for array in (x, gradient, value, self.places)))
        return float(value[0]), gradient

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
        used = [v for v in maps.to_values.get_shared() if not str(v.name).startswith(keep)]
        if used:  # computed from data, such as a covariate's scale
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
    to_vectors = pm.compile(list(given.values()), forward, mode=PLAIN, on_unused_input="ignore")
    names = tuple(rv.name for rv in given)
    flat = to_vectors(*(np.asarray(point[n], dtype=float) for n in names))
    values, at = [built.rvs_to_values[rv] for rv in built.free_RVs], 0
    size = sum(np.size(part) for part in flat)
    joined = pt.TensorType("float64", shape=(size,))("vector")  # known lengths compile to less code
    parts = {}
    for value, part in zip(values, flat, strict=True):
        own = joined[at : at + np.size(part)] if np.ndim(part) else joined[at]
        parts[value] = own.reshape(np.shape(part)) if np.ndim(part) > 1 else own
        at += np.size(part)
    wanted = [*built.free_RVs, *built.deterministics]
    outputs = [built.logp(), *built.replace_rvs_by_values(wanted)]
    log_density, *found = clone_replace(outputs, parts, rebuild_strict=False)
    many = pt.matrix("vectors")
    return Maps(
        variables=names,
        computed=tuple(variable.name for variable in built.deterministics),
        joined=joined,
        log_density=log_density,
        size=size,
        to_values=pm.compile([many], vectorize_graph(found, {joined: many}), mode=PLAIN),
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
    gradient: Any = grad(maps.log_density, maps.joined)
    mode = get_mode("NUMBA").including("local_remove_check_parameter")  # transforms keep to the bounds
    with quiet_compilation():
        function = make_function(
            [maps.joined],
            [maps.log_density, gradient],
            mode=mode,
            on_unused_input="ignore",
        )
        shared = function.get_shared()
        data = tuple(_contiguous(v.get_value()) for v in shared)
        wrapped = native(function.vm.jit_fn, data)  # machine code is made, or read from disk, here
    known = {id(variable): key for key, variable in _shared(built).items()}
    return Density(function=wrapped, keys=tuple(known.get(id(v)) for v in shared), data=data, maps=maps)


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
        for said in ("Numba will use object mode", "Cannot cache compiled function"):
            warnings.filterwarnings("ignore", message=said)
        yield
