"""Products of a tall matrix with a few vectors, reading the matrix once.

BLAS reads a matrix once per vector, or multiplies with few vectors at once at a fraction of its speed; of
a matrix that the caches do not hold, reading is what costs.
"""

from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytensor.tensor as pt
from numpy.typing import NDArray
from pytensor.gradient import disconnected_type
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch.basic import numba_njit, register_funcify_and_cache_key

from pymc_mte.bayes.priors import Tensor

Array = NDArray[np.float64]


class Product(Op):
    """Products of a tall matrix of data (row, column) with a few vectors, given as (vector, column or row).

    Parameters
    ----------
    over_rows : bool
        Whether the vectors are as long as a column, and rows are combined: (vector, column). Else they are
        as long as a row: (vector, row).
    """

    __props__ = ("over_rows",)

    def __init__(self, *, over_rows: bool) -> None:
        self.over_rows = over_rows

    def make_node(self, *inputs: Any) -> Apply[Any]:
        """Take matrix and vectors."""
        matrix, vectors = map(pt.as_tensor, inputs)
        shape = (vectors.type.shape[0], matrix.type.shape[int(self.over_rows)])
        return Apply(self, [matrix, vectors], [pt.tensor(dtype="float64", shape=shape)])

    def perform(self, node: Any, inputs: Any, output_storage: Any) -> None:
        """Compute in NumPy."""
        matrix, vectors = inputs
        output_storage[0][0] = vectors @ (matrix if self.over_rows else matrix.T)

    def infer_shape(self, node: Any, shapes: Any) -> list[Any]:
        """Give (vector, column or row)."""
        return [(shapes[1][0], shapes[0][int(self.over_rows)])]

    def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> list[Any]:
        """No gradient of data; that of the vectors is the other product."""
        return [disconnected_type(), Product(over_rows=not self.over_rows)(inputs[0], cotangents[0])]

    def connection_pattern(self, node: Any) -> list[list[bool]]:
        """Tell that the matrix is data."""
        return [[False], [True]]


def products(matrix: Tensor, vectors: list[Tensor]) -> list[Tensor]:
    """Multiply a matrix of data with vectors.

    Parameters
    ----------
    matrix : tensor of shape (row, column)
        Data: no gradient is taken of it.
    vectors : list of tensors of shape (column,)
        Few.

    Returns
    -------
    list of tensors of shape (row,)
    """
    if find_spec("jax") is not None:
        _teach_jax()
    found: Tensor = Product(over_rows=False)(matrix, pt.stack(vectors))
    return [found[i] for i in range(len(vectors))]


@cache
def _teach_jax() -> None:
    """Let JAX run models that hold these products."""
    from pytensor.link.jax.dispatch.basic import jax_funcify

    jax_funcify.register(Product)(
        lambda op, **_: lambda matrix, vectors: vectors @ (matrix if op.over_rows else matrix.T)
    )


@register_funcify_and_cache_key(Product)  # type: ignore[untyped-decorator]
def _product(op: Product, node: Any = None, **_: Any) -> tuple[Any, str]:
    kernel = _combine if op.over_rows else _multiply
    return numba_njit(kernel), f"pymc_mte.product.{kernel.__name__}.1"


# Four rows at a time: what is read of the vectors, or added to, is then touched a quarter as often.


def _multiply(matrix: Array, vectors: Array) -> Array:
    rows, columns = matrix.shape
    out = np.empty((len(vectors), rows))
    fours = rows - rows % 4
    for i in range(0, fours, 4):
        for k in range(len(vectors)):
            a, b, c, d = 0.0, 0.0, 0.0, 0.0
            for j in range(columns):
                x = vectors[k, j]
                a += matrix[i, j] * x
                b += matrix[i + 1, j] * x
                c += matrix[i + 2, j] * x
                d += matrix[i + 3, j] * x
            out[k, i], out[k, i + 1], out[k, i + 2], out[k, i + 3] = a, b, c, d
    for i in range(fours, rows):
        for k in range(len(vectors)):
            total = 0.0
            for j in range(columns):
                total += matrix[i, j] * vectors[k, j]
            out[k, i] = total
    return out


def _combine(matrix: Array, weights: Array) -> Array:
    rows, columns = matrix.shape
    out = np.zeros((len(weights), columns))
    fours = rows - rows % 4
    for i in range(0, fours, 4):
        for k in range(len(weights)):
            a, b, c, d = weights[k, i], weights[k, i + 1], weights[k, i + 2], weights[k, i + 3]
            for j in range(columns):
                first = a * matrix[i, j] + b * matrix[i + 1, j]
                out[k, j] += first + c * matrix[i + 2, j] + d * matrix[i + 3, j]
    for i in range(fours, rows):
        for k in range(len(weights)):
            for j in range(columns):
                out[k, j] += weights[k, i] * matrix[i, j]
    return out
