"""A compiled log-density as a function of C: chains run side by side, without the interpreter's lock.

What nutpie compiles from a PyMC model it compiles in every process anew. Here PyTensor's machine code,
which it keeps on disk, is wrapped, and the wrapper is kept beside it.
"""

import ctypes
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
from numba.core import cgutils, types
from numba.experimental.function_type import _get_wrapper_address
from numba.extending import intrinsic
from numba.np.numpy_support import carray
from numpy.typing import NDArray
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
EXPANSION = types.int64(types.uint64, types.uint64, FLOATS, FLOATS, INTS)
"""Length twice, vector, what is kept of it (out), places of the data."""

CALL = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_uint64, *[ctypes.c_void_p] * 4)


@dataclass(frozen=True)
class Native:
    """A log-density with its gradient, and what a sampler keeps of a vector (all of it), as functions of C.

    Attributes
    ----------
    address, expansion : int
        Where the two functions are.
    keep : tuple
        What must live as long as they.
    call : callable
        The log-density for Python.
    """

    address: int
    expansion: int
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
    names = {"function": function, "carray": carray, "pointer": pointer, "isfinite": np.isfinite}
    names |= {f"type{i}": array.dtype for i, array in enumerate(data)}
    form = "-".join(f"{array.dtype}{array.ndim}" for array in data)
    kept_as = None if key is None else sha256(f"{key} {form}".encode()).hexdigest()  # names a file
    density = _compiled(source, "log_density", names, LOG_DENSITY, kept_as)
    keep_all = _compiled(KEEP_ALL, "keep_all", {}, EXPANSION, "pymc_mte-keep-all")
    return Native(density[0], keep_all[0], (density[1], keep_all[1]))


KEEP_ALL = """
def keep_all(size, kept, vector, out, places):
    for i in range(size):
        out[i] = vector[i]
    return 0
"""


def _source(data: Data) -> str:
    lines, at = [], 0
    for i, array in enumerate(data):
        shape = "".join(f"places[{at + 1 + axis}], " for axis in range(array.ndim))
        lines.append(f"        data{i} = carray(pointer(places[{at}]), ({shape}), type{i})")
        at += 1 + array.ndim
    names = ["carray(vector, (size,))", *(f"data{i}" for i in range(len(data)))]
    groups = [names[i : i + TOGETHER] for i in range(0, len(names), TOGETHER)]
    arguments = " + ".join(f"({', '.join(group)},)" for group in groups)
    return "\n".join(
        [
            "def log_density(size, vector, gradient, value, places):",
            "    try:",
            *lines,
            f"        found, slope = function(*({arguments}))",
            "    except Exception:",
            f"        return {RECOVERABLE}",
            "    value[0] = found[()]",
            "    finite = isfinite(value[0])",
            "    for i in range(size):",
            "        gradient[i] = slope[i]",
            "        finite = finite and isfinite(slope[i])",
            f"    return 0 if finite else {RECOVERABLE}",
        ]
    )


def _compiled(
    source: str, name: str, names: dict[str, Any], signature: Any, key: str | None
) -> tuple[int, Any]:
    """Compile a function, or read it from disk; give its address and what keeps it alive."""
    written = compile_numba_function_src(source, name, {"__name__": __name__} | names, cache_key=key)
    jitted: Any = numba_njit(written, cache=key is not None, no_cpython_wrapper=True, no_cfunc_wrapper=False)
    return _get_wrapper_address(jitted, signature), jitted


def places(data: Data) -> NDArray[np.int64]:
    """Address and shape of every array, one after the other; the arrays must outlive it."""
    numbers = [number for array in data for number in (array.ctypes.data, *array.shape)]
    return np.array(numbers or [0], dtype=np.int64)
