import itertools

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.optimize import linear_sum_assignment

from pymc_mte.alignment import match_classes, take_classes


@pytest.mark.parametrize("classes", range(2, 8))
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_match_equals_the_cheapest_assignment(classes, seed):
    rng = np.random.default_rng(seed)
    candidates, pivot = rng.normal(size=(5, classes, 3)), rng.normal(size=(classes, 3))
    order, _ = match_classes(candidates, pivot)
    for draw, found in zip(candidates, order, strict=True):
        cost = ((draw[None, :, :] - pivot[:, None, :]) ** 2).sum(-1)  # (pivot class, draw class)
        rows, columns = linear_sum_assignment(cost)
        assert sorted(found) == list(range(classes))
        assert cost[range(classes), found].sum() == pytest.approx(cost[rows, columns].sum())
        if classes <= 4:
            every = [cost[range(classes), list(p)].sum() for p in itertools.permutations(range(classes))]
            assert cost[range(classes), found].sum() == pytest.approx(min(every))


@pytest.mark.parametrize("classes", [2, 3, 6, 7])
def test_a_permutation_is_undone(rng, classes):
    pivot = rng.normal(size=(classes, 4))
    shuffles = np.array([rng.permutation(classes) for _ in range(20)])
    candidates = pivot[shuffles] + 1e-3 * rng.normal(size=(20, classes, 4))
    order, ambiguous = match_classes(candidates, pivot)
    restored = take_classes(candidates, order, 1)
    np.testing.assert_allclose(restored, np.broadcast_to(pivot, restored.shape), atol=0.02)
    assert not ambiguous.any()


def test_an_even_match_is_called_ambiguous():
    _, ambiguous = match_classes(np.array([[[0.5], [0.5]], [[0.1], [0.9]]]), np.array([[0.0], [1.0]]))
    assert ambiguous.tolist() == [True, False]


def test_take_classes_on_a_late_axis():
    value = np.arange(12.0).reshape(2, 3, 2)  # draw, something, class
    moved = take_classes(value, np.array([[1, 0], [0, 1]]), 2)
    np.testing.assert_array_equal(moved[0], value[0][:, ::-1])
    np.testing.assert_array_equal(moved[1], value[1])


def test_a_failed_replicate_does_not_break_the_match():
    candidates = np.array([[[np.nan], [np.nan]], [[1.0], [0.0]]])
    order, _ = match_classes(candidates, np.array([[0.0], [1.0]]))
    assert order[1].tolist() == [1, 0]
    assert sorted(order[0]) == [0, 1]
