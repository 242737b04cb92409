"""Log(1 + exp(x)) and its slopes, in machine code and in NumPy."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from hypothesis import given, strategies as st
from pytensor.graph.replace import vectorize_graph
from scipy import special

from pymc_mte.bayes.gradient import PLAIN
from pymc_mte.bayes.softplus import softplus

FAR = np.array([-np.inf, -800.0, -3.0, -1e-9, 0.0, 1e-9, 3.0, 800.0, np.inf])


@pytest.fixture(scope="module", params=["NUMBA", PLAIN], ids=["machine code", "NumPy"])
def both(request):
    """Value, slope and second derivative of every element of a matrix."""
    x = pt.matrix("x")
    value = softplus(x)
    slope = pytensor.grad(value.sum(), x)
    second = pytensor.grad(slope.sum(), x)
    return pytensor.function([x], [value, slope, second], mode=request.param)


def agrees(both, x):
    value, slope, second = both(x)
    np.testing.assert_allclose(value, np.logaddexp(0.0, x), rtol=1e-15 * 4, atol=1e-300)
    np.testing.assert_allclose(slope, special.expit(x), rtol=1e-15 * 4, atol=1e-300)
    np.testing.assert_allclose(second, special.expit(x) * (1 - special.expit(x)), rtol=1e-12, atol=1e-300)


def test_at_zero_far_out_and_at_infinity(both):
    agrees(both, FAR[None])


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-12, 300.0))
def test_to_the_last_digits_at_any_size(both, seed, scale):
    agrees(both, np.random.default_rng(seed).normal(0.0, scale, (3, 1_001)))


def test_rows_that_do_not_lie_next_to_each_other(both, rng):
    x = rng.normal(size=(40, 6))
    for view in (x.T, x[::2, 1::2], x[:0]):
        agrees(both, view)


def test_not_a_number_stays_so(both):
    assert np.isnan(both(np.full((1, 3), np.nan))[0]).all()


def test_many_points_at_once(rng):
    x, many = pt.vector("x"), pt.matrix("many")
    found = pytensor.function([many], vectorize_graph(softplus(x).sum(), {x: many}))
    at = rng.normal(size=(4, 7))
    np.testing.assert_allclose(found(at), np.logaddexp(0.0, at).sum(axis=1), rtol=1e-14)
