"""What the likelihood of a model with linear parents identifies: its scores and their rank."""

import numpy as np
import pytest

from pymc_mte import CausalModel, identify, load_model, simulate
from pymc_mte.identify.jacobian import interior_point, jacobian, n_free
from pymc_mte.identify.linear_scores import linear_scores
from pymc_mte.moments.scores import from_free, to_free
from pymc_mte.network import log_sum_classes
from pymc_mte.regression import draw_given, log_joint_given

B = {"family": "bernoulli"}
C3 = {"family": "categorical", "levels": ["a", "b", "c"]}
X = {"family": "normal", "centre": 0.3}
ROLES = {"treatment": "t", "outcome": "y", "treatment_proxies": ["z"], "outcome_proxies": ["x"]}

GRAPHS = [
    {
        "z": C3,
        "x": {**C3, "linear_parents": ["g"]},
        "g": {**X, "latent": False},
        "t": {**B, "parents": ["g2"], "linear_parents": ["z", "g"]},
        "y": {"family": "student_t", "linear_parents": ["x", "g"], "scale_parents": True},
        "g2": B,
    },
    {
        "z": {"family": "binomial", "trials": 2, "linear_parents": ["g"]},
        "x": {"family": "gamma", "centre": 1.0},
        "g": {"family": "poisson", "centre": 2.0},
        "t": {**C3, "linear_parents": ["z"]},
        "y": {"family": "weibull", "linear_parents": ["x", "g"], "latent": False},
    },
]


@pytest.mark.parametrize("variables", GRAPHS)
def test_scores_are_derivatives(rng, variables):
    model = CausalModel(classes=2, variables=variables, **ROLES)
    point = interior_point(model, rng)
    _, columns = draw_given(model, {n: v[0] for n, v in point.items()}, None, 30, rng)
    free, step = to_free(model, point), 1e-5
    found = linear_scores(model, columns, point)
    assert free.shape[1] == found.shape[1] == n_free(model)
    for i in range(n_free(model)):
        move = step * (np.arange(n_free(model)) == i)[None]
        high, low = (
            log_sum_classes(log_joint_given(model, from_free(model, free + sign * move), columns, None))[0]
            for sign in (1, -1)
        )
        np.testing.assert_allclose(found[:, i], (high - low) / (2 * step), atol=1e-6)


def test_slopes_of_a_number_are_identified_where_a_table_of_levels_is_not():
    """Two binary proxies and an edge x -> y: the table leaves class effects open, two added steps do not."""
    table = {"z": B, "x": B, "t": {**B, "parents": ["z"]}, "y": {**B, "parents": ["x", "t"]}}
    added = {**table, "y": {**B, "parents": ["t"], "linear_parents": ["x"]}}
    open_, steps = (jacobian(CausalModel(classes=2, variables=v, **ROLES)) for v in (table, added))
    assert open_.rank < open_.n_parameters
    assert not open_.identified["effect"]
    assert steps.n_parameters == open_.n_parameters - 2 * 2 + 1
    assert steps.rank == steps.n_parameters
    assert steps.identified["effect"]


def test_reports_name_what_the_likelihood_adds():
    model = load_model("gallery:measured_confounder")
    found = identify(model, simulate(model, 400, rng=1))
    assert found.level == "none"
    assert all(found.identified.values())
    assert "coef_y" in found.identified
    assert "The likelihood fixes 23 of 23 parameters" in str(found)
    plain = model.with_fields(treatment_proxies=(), outcome_proxies=(), truth=None)
    said = str(identify(plain, simulate(model, 400, rng=1)))
    assert "Moments without proxies take tables only, and this graph has linear parents." in said
