"""Products of a tall matrix with a few vectors, in machine code and in NumPy."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pymc_mte.bayes.gradient import PLAIN
from pymc_mte.bayes.products import products


@pytest.fixture(scope="module", params=["NUMBA", PLAIN], ids=["machine code", "NumPy"])
def compiled(request):
    """Both products, a weighted sum of their squares' slopes, and the slopes of those."""
    matrix, vectors, weights = pt.matrix("matrix"), pt.matrix("vectors"), pt.matrix("weights")
    vectors = pt.specify_shape(vectors, (2, None))
    value = pt.stack(products(matrix, [vectors[0], vectors[1]]))
    slope = pytensor.grad((weights * value**2).sum(), vectors)
    second = pytensor.grad(slope.sum(), vectors)
    return pytensor.function([matrix, vectors, weights], [value, slope, second], mode=request.param)


@pytest.mark.parametrize("rows", [0, 1, 3, 4, 5, 42])
@pytest.mark.parametrize("columns", [1, 7])
def test_values_and_slopes(compiled, rng, rows, columns):
    matrix, vectors = rng.normal(size=(rows, columns)), rng.normal(size=(2, columns))
    weights = rng.normal(size=(2, rows))
    value, slope, second = compiled(matrix, vectors, weights)
    close = {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(value, vectors @ matrix.T, **close)
    np.testing.assert_allclose(slope, (2 * weights * value) @ matrix, **close)
    np.testing.assert_allclose(second, (2 * weights * matrix.sum(axis=1)) @ matrix, **close)
