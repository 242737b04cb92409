"""Priors that differ between classes decide which class bears which number."""

import numpy as np
import pytest

from pymc_mte import CausalModel, sample, simulate
from pymc_mte.bayes.labelling import _orders
from pymc_mte.bayes.prepare import prepare
from pymc_mte.data import resolve
from pymc_mte.status import Status, load_notes


def prepared(model, rows, priors, **options):
    model, table = resolve(model, rows)
    return prepare(model, table, start=None, priors=priors, chains=4, seed=0, **options)


def test_chains_start_where_the_prior_wants_the_classes(level3):
    rows = simulate(level3, 2_000, rng=1)
    by_effect = prepared(level3, rows, None)
    assert by_effect.by_prior is None
    small = by_effect.pivot["p_x"][:, 1].argmin()  # the class with the smaller share of x = 1
    for wanted in (0, 1):
        table = [[60.0, 20.0], [20.0, 60.0]] if wanted == 0 else [[20.0, 60.0], [60.0, 20.0]]
        found = prepared(level3, rows, {"p_x": table})
        assert found.by_prior.status is Status.CLASSES_BY_PRIOR
        order = [small, 1 - small] if wanted == 0 else [1 - small, small]
        for name in ("p_x", "class_weight", "p_y"):
            np.testing.assert_allclose(found.pivot[name], by_effect.pivot[name][order], atol=0.02)
        assert all(start["p_x"].argmin() == wanted for start in found.starts[::2])


def test_rows_with_covariates_too(rng):
    b = {"family": "bernoulli"}
    given = {"treatment": "t", "outcome": "y", "covariates": ["c"]}
    variables = {"z": b, "x": b, "t": {**b, "parents": ["z"]}, "y": {"family": "normal"}}
    model = CausalModel(classes=2, variables=variables, **given)
    latent = rng.integers(2, size=400)
    rows = {name: (rng.random(400) < 0.2 + 0.6 * latent).astype(int) for name in "zxt"}
    rows |= {"y": rng.normal(4.0 * latent), "c": rng.normal(size=400)}
    for wanted in (0, 1):
        table = [[40.0, 10.0], [10.0, 40.0]] if wanted == 0 else [[10.0, 40.0], [40.0, 10.0]]
        found = prepared(model, rows, {"p_x": table})
        assert found.by_prior is not None
        assert all(start["p_x"].argmin() == wanted for start in found.starts)


@pytest.mark.parametrize(
    "priors", [None, {"p_x": 3.0}, {"p_x": [2.0, 2.0]}, {"p_x": {"pooled": 0.5}, "p_z": [[3.0], [1.0]]}]
)
def test_priors_that_treat_classes_alike_leave_the_packages_order(level3, priors):
    assert prepared(level3, simulate(level3, 300, rng=1), priors).by_prior is None


def test_the_result_keeps_the_priors_numbers_and_says_so(level3):
    rows, drawn = simulate(level3, 2_000, rng=1), {}
    for wanted, table in enumerate(([[60.0, 20.0], [20.0, 60.0]], [[20.0, 60.0], [60.0, 20.0]])):
        post = sample(
            level3, rows, priors={"p_x": table}, sampler="laplace", draws=200, chains=2, progressbar=False
        )
        assert Status.CLASSES_BY_PRIOR in [note.status for note in load_notes(post.attrs["notes"])]
        drawn[wanted] = post["posterior"]["p_x"].sel(x=1).mean(("chain", "draw")).values
    np.testing.assert_allclose(drawn[0], drawn[1][::-1], atol=0.03)
    assert drawn[0][0] < drawn[0][1]


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_orders_begin_with_the_present_one(classes):
    orders = _orders(classes)
    assert orders[0].tolist() == list(range(classes))
    assert len(np.unique(orders, axis=0)) == len(orders) == {2: 2, 3: 6, 7: 22}[classes]
