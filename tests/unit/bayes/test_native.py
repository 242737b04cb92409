"""Functions of C made of machine code: data of any form, and what goes wrong inside."""

import numba
import numpy as np
import pytest
from pytensor.link.numba.cache import CACHED_SRC_FUNCTIONS

from pymc_mte.bayes.native import RECOVERABLE, Frame, native, places


def called(wrapped, x, data, frame=None):
    value, gradient = np.full(1, np.nan), np.full(x.size, np.nan)
    where = places(data, frame)
    code = wrapped.call(x.size, *(a.ctypes.data for a in (x, gradient, value, where)))
    return code, value[0], gradient


@pytest.fixture(scope="module")
def product():
    @numba.njit
    def function(x, number, matrix, which):
        if which[0] < 0:
            raise ValueError("a negative number")
        return np.array(number[()] * (matrix @ x)[which].sum()), number[()] * matrix[which].sum(axis=0)

    return function


def test_data_of_any_axes_and_types_arrive(product, rng):
    data = (np.array(2.0), rng.normal(size=(3, 2)), np.array([2, 0]))
    wrapped = native(product, data)
    for rows in (3, 5):
        data = (np.array(-1.5), rng.normal(size=(rows, 2)), np.array([rows - 1, 0, 1]))
        x = rng.normal(size=2)
        code, value, gradient = called(wrapped, x, data)
        assert code == 0
        assert value == pytest.approx(-1.5 * (data[1] @ x)[data[2]].sum())
        np.testing.assert_allclose(gradient, -1.5 * data[1][data[2]].sum(axis=0))


def test_errors_and_infinities_end_a_trajectory_instead_of_the_process(product):
    data = (np.array(1.0), np.ones((2, 2)), np.array([1]))
    wrapped, x = native(product, data), np.ones(2)
    code, value, gradient = called(wrapped, x, (*data[:2], np.array([-1])))
    assert code == RECOVERABLE
    assert np.isnan([value, *gradient]).all()
    assert called(wrapped, x, (np.array(np.inf), *data[1:]))[0] == RECOVERABLE
    assert called(wrapped, np.array([1.0, np.nan]), data)[0] == RECOVERABLE


def test_nothing_but_the_vector_is_needed():
    wrapped = native(numba.njit(lambda x: (np.array(-0.5 * (x * x).sum()), -x)), ())
    code, value, gradient = called(wrapped, np.array([1.0, 2.0]), ())
    assert (code, value, gradient.tolist()) == (0, -2.5, [-1.0, -2.0])


def test_any_number_of_arrays_can_be_kept_on_disk():
    """The form of the data is part of the key, and the key is the name of a file."""
    data = tuple(np.full((2, 2), float(i)) for i in range(40))
    numbers = numba.njit(lambda x, *more: (np.array(x.sum() * more[-1][0, 0]), x * 0.0 + more[1][0, 0]))
    CACHED_SRC_FUNCTIONS[numbers.py_func] = f"{'0' * 64}_test_native"
    assert called(native(numbers, data), np.ones(2), data)[1] == 78.0


def test_a_frame_turns_vectors_and_gradients(rng):
    """The chain rule by hand: position = centre + factor @ vector."""
    wrapped = native(numba.njit(lambda x: (np.array(-0.5 * (x * x).sum()), -x)), ())
    frame = Frame(rng.normal(size=3), rng.normal(size=(3, 3)))
    z = rng.normal(size=3)
    x = frame.centre + frame.factor @ z
    np.testing.assert_allclose(frame.coordinates(x), z)
    code, value, gradient = called(wrapped, z, (), frame)
    assert code == 0
    assert value == pytest.approx(-0.5 * x @ x)
    np.testing.assert_allclose(gradient, -frame.factor.T @ x)
