"""A compiled log-density as a function of C: chains run side by side, without the interpreter's lock.

What nutpie compiles from a PyMC model it compiles in every process anew. Here PyTensor's machine code,
which it keeps on disk, is wrapped, and the wrapper is kept beside it.
"""

import ctypes
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numba
import numpy as np
from numba.core import cgutils, types
from numba.experimental.function_type import _get_wrapper_address
from numba.extending import intrinsic
from numba.np.numpy_support import carray
from numpy.typing import NDArray
from pytensor.configdefaults import config
from pytensor.link.numba.cache import CACHED_SRC_FUNCTIONS, compile_numba_function_src
from pytensor.link.numba.dispatch.basic import numba_njit

Array = NDArray[np.float64]
Data = tuple[NDArray[Any], ...]

RECOVERABLE = 1
"""Returned where the density is not finite; to nutpie this ends a trajectory, as a divergence."""

TOGETHER = 20
"""Numba cannot read the byte code of calls and tuples of more than 30 values."""

FLOATS, INTS = types.CPointer(types.float64), types.CPointer(types.int64)
LOG_DENSITY = types.int64(types.uint64, FLOATS, FLOATS, FLOATS, INTS)
"""Length, vector, gradient (out), log-density (out), places of the data."""
POSITION_TYPE = types.int64(types.uint64, types.uint64, FLOATS, FLOATS, INTS)
"""Length twice, vector, position (out), places of the data."""

CALL = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_uint64, *[ctypes.c_void_p] * 4)


@dataclass(frozen=True)
class Native:
    """A log-density with its gradient, and the position of a vector in a frame, as functions of C.

    Attributes
    ----------
    address, position : int
        Where the two functions are.
    keep : tuple
        What must live as long as they.
    call : callable
        The log-density for Python.
    """

    address: int
    position: int
    keep: tuple[Any, ...]
    call: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Make the address callable."""
        object.__setattr__(self, "call", CALL(self.address))


@intrinsic
def pointer(context: Any, address: Any) -> Any:
    """Take a number as an address, in machine code."""

    def code(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), code


def native(function: Any, data: Data) -> Native:
    """Wrap a machine-code function of a vector and data arrays.

    Parameters
    ----------
    function : callable
        Compiled by PyTensor for Numba; gives log-density (an array without axes) and gradient.
    data : tuple of ndarray
        Any data of the form to come: number, types and axes of the arrays count.
    """
    key = CACHED_SRC_FUNCTIONS.get(function.py_func)
    source = _source(data)
    reading = {"carray": carray, "pointer": pointer, "real": np.dtype(float)}
    position = _compiled(POSITION, "position", reading, POSITION_TYPE, "pymc_mte-position")
    names = reading | {
        "function": function,
        "position": position[1],
        "empty": np.empty,
        "isfinite": np.isfinite,
    }
    names |= {f"type{i}": array.dtype for i, array in enumerate(data)}
    form = "-".join(f"{array.dtype}{array.ndim}" for array in data)
    density = _compiled(source, "log_density", names, LOG_DENSITY, None if key is None else f"{key} {form}")
    return Native(density[0], position[0], (density[1], position[1]))


POSITION = """
def position(size, kept, vector, out, places):
    if places[0] == 0:
        for i in range(size):
            out[i] = vector[i]
        return 0
    centre = carray(pointer(places[0]), (size,), real)
    factor = carray(pointer(places[1]), (size, size), real)
    for i in range(size):
        out[i] = centre[i]
        for j in range(size):
            out[i] += factor[i, j] * vector[j]
    return 0
"""

DENSITY = """
def log_density(size, vector, gradient, value, places):
    x = empty(size)
    position(size, size, vector, x, places)
    try:
{data}
        found, slope = function(*({arguments}))
    except Exception:
        return {recoverable}
    value[0] = found[()]
    if places[0] == 0:
        for i in range(size):
            gradient[i] = slope[i]
    else:
        factor = carray(pointer(places[1]), (size, size), real)
        for j in range(size):
            gradient[j] = 0.0
        for i in range(size):
            for j in range(size):
                gradient[j] += factor[i, j] * slope[i]
    finite = isfinite(value[0])
    for i in range(size):
        finite = finite and isfinite(gradient[i])
    return 0 if finite else {recoverable}
"""


def _source(data: Data) -> str:
    lines, at = [], 2
    for i, array in enumerate(data):
        shape = "".join(f"places[{at + 1 + axis}], " for axis in range(array.ndim))
        lines.append(f"        data{i} = carray(pointer(places[{at}]), ({shape}), type{i})")
        at += 1 + array.ndim
    names = ["x", *(f"data{i}" for i in range(len(data)))]
    groups = [names[i : i + TOGETHER] for i in range(0, len(names), TOGETHER)]
    arguments = " + ".join(f"({', '.join(group)},)" for group in groups)
    return DENSITY.format(data="\n".join(lines), arguments=arguments, recoverable=RECOVERABLE)


def _compiled(
    source: str, name: str, names: dict[str, Any], signature: Any, key: str | None
) -> tuple[int, Any]:
    """Compile a function, or read it from disk; give its address and what keeps it alive.

    Without a key it is not kept. The key names a file: source and Numba's version are part of it.
    """
    kept_as = (
        None
        if key is None or not config.numba__cache
        else sha256(f"{key} {numba.__version__} {source}".encode()).hexdigest()
    )
    written = compile_numba_function_src(source, name, {"__name__": __name__} | names, cache_key=kept_as)
    wrappers = {"no_cpython_wrapper": True, "no_cfunc_wrapper": False}
    jitted: Any = numba_njit(written, cache=kept_as is not None, **wrappers)
    return _get_wrapper_address(jitted, signature), jitted


@dataclass(frozen=True)
class Frame:
    """Coordinates in which a sampler moves: position = centre + factor @ vector.

    Attributes
    ----------
    centre : ndarray of shape (size,)
    factor : ndarray of shape (size, size)
    """

    centre: Array
    factor: Array

    def coordinates(self, position: Array) -> Array:
        """Coordinates of a position."""
        return np.linalg.solve(self.factor, position - self.centre)


def places(data: Data, frame: Frame | None = None) -> NDArray[np.int64]:
    """Where a sampler's frame (0: none) and the data are; all of them must outlive it."""
    own = (0, 0) if frame is None else (frame.centre.ctypes.data, frame.factor.ctypes.data)
    numbers = [number for array in data for number in (array.ctypes.data, *array.shape)]
    return np.array([*own, *numbers], dtype=np.int64)
