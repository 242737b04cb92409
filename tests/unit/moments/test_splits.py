"""All roles of the proxies: the list, and that every answer is the one its own method gives."""

import numpy as np
import pytest

from pymc_mte import ModelError, load_model, simulate
from pymc_mte.data import columns_of, resolve
from pymc_mte.moments.averages import average_errors
from pymc_mte.moments.methods import bridge_values
from pymc_mte.moments.problem import make_problem
from pymc_mte.moments.proximal import outcome_bridge
from pymc_mte.moments.splits import MAX_SPLITS, list_splits, split_effects
from pymc_mte.moments.twostage import two_stage


def test_all_splits_are_listed_once():
    splits, capped = list_splits(["a", "b"], ["c", "d"])
    assert splits[0] == (("a", "b"), ("c", "d"))
    full = [split for split in splits if len(split[0]) + len(split[1]) == 4]
    assert len(full) == len(set(full)) == 2**4 - 2
    assert all(set(one) | set(two) == set("abcd") and not set(one) & set(two) for one, two in full)
    assert splits[len(full) :] == (
        (("b",), ("c", "d")),
        (("a",), ("c", "d")),
        (("a", "b"), ("d",)),
        (("a", "b"), ("c",)),
    )
    assert not capped


def test_many_proxies_are_capped():
    z, x = [f"z{i}" for i in range(4)], [f"x{i}" for i in range(4)]
    splits, capped = list_splits(z, x)
    assert capped
    assert MAX_SPLITS < 2**8 - 2
    assert len(splits) == len(set(splits)) == 1 + 8 + 1 + 8  # own, one moved, exchanged, one left out


@pytest.fixture(scope="module")
def pair():
    model, table = resolve(
        load_model("gallery:paper_pair"), simulate(load_model("gallery:paper_pair"), 4_000, rng=2)
    )
    return make_problem(model, columns_of(table, model), table["count"].values.astype(float))


def test_the_models_own_roles_give_the_bridge_of_estimate(pair):
    names = ("z0", "z1", "x0", "x1")
    proxies = {name: np.asarray(pair.columns[name], dtype=float) for name in names}
    own = [(("z0", "z1"), ("x0", "x1"))]
    found = split_effects(pair.outcome, pair.arm, proxies, own, weights=pair.counts, rank=2)[0]
    np.testing.assert_allclose(found.effect, bridge_values(pair, pair.counts[None])["ate"][0])
    np.testing.assert_allclose(found.se, average_errors(pair, "outcome")["ate"])


def test_covariates_reach_both_forms(rng):
    n = 2_000
    c = rng.normal(size=(n, 2))
    u = rng.normal(size=n)
    a, b, d = (u + 0.5 * c[:, 0] + rng.normal(size=n) for _ in range(3))
    arm = (u + c[:, 1] + rng.normal(size=n) > 0).astype(np.int64)
    y = 2.0 * arm + u + c.sum(axis=1) + rng.normal(size=n)
    proxies = {"a": a, "b": b, "d": d}
    split = (("a",), ("b", "d"))
    one = split_effects(y, arm, proxies, [split], c, form="two-stage")[0]
    two = two_stage(y, arm, np.column_stack([b, d]), a, c)
    assert (one.effect, one.se) == (two.effect[0], two.se[0])
    assert one.correlation == min(item.correlation[0] for item in two.directions)
    assert one.p_value == max(item.p_value[0] for item in two.directions)
    assert abs(one.effect - 2.0) < 5 * one.se
    one = split_effects(y, arm, proxies, [split], c, rank=2)[0]
    ones = np.ones(n)
    three = outcome_bridge(
        y, arm, np.column_stack([ones, a]), np.column_stack([ones, b, d]), c, rank=2
    ).contrast(1)
    np.testing.assert_allclose((one.effect, one.se), three, rtol=1e-8)


def test_too_few_features_give_no_answer(pair):
    proxies = {name: np.asarray(pair.columns[name], dtype=float) for name in ("z0", "x0", "x1")}
    for form in ("bridge", "two-stage"):
        found = split_effects(
            pair.outcome, pair.arm, proxies, [(("z0",), ("x0", "x1"))], weights=pair.counts, rank=3, form=form
        )[0]
        assert np.isnan([found.effect, found.se, found.correlation, found.p_value]).all()


def test_callers_mistakes_are_named(pair):
    proxies = {"z0": pair.columns["z0"], "x0": pair.columns["x0"]}
    with pytest.raises(ModelError, match="splits name \\['q'\\]"):
        split_effects(pair.outcome, pair.arm, proxies, [(("z0",), ("q",))])
    with pytest.raises(ModelError, match="choose bridge or two-stage"):
        split_effects(pair.outcome, pair.arm, proxies, [(("z0",), ("x0",))], form="ols")


def test_a_proxy_that_repeats_covariates_gives_no_answer(rng):
    c = rng.normal(size=(500, 3))
    proxies = {"a": c @ [0.3, 0.1, 0.7], "b": rng.normal(size=500), "d": rng.normal(size=500)}
    found = split_effects(
        rng.normal(size=500), rng.integers(2, size=500), proxies, [(("a",), ("b",)), (("d",), ("b",))], c
    )
    assert np.isnan(found[0].effect)  # what is left of it is rounding
    assert np.isfinite(found[1].effect)
