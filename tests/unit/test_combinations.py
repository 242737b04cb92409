"""Features used together: nothing is ignored in silence."""

import json

import numpy as np
import pandas as pd
import pytest

import pymc_mte as mte
from pymc_mte import CausalModel, tabulate
from pymc_mte.bayes.build import build_model
from pymc_mte.bayes.compiled import _form
from pymc_mte.bayes.density import multinomial_coefficient
from pymc_mte.bayes.prepare import prepare
from pymc_mte.bayes.priors import prior_record
from pymc_mte.calibration import _unit_scale
from pymc_mte.data import fingerprint, resolve
from pymc_mte.errors import DataError, ModelError, RefusedError
from pymc_mte.fitcheck import pattern_residuals
from pymc_mte.variable import DataSource

B = {"family": "bernoulli"}
ROLES = {"treatment": "t", "outcome": "y", "treatment_proxies": ["z"], "outcome_proxies": ["x"]}


def model_of(outcome=B, x=B, **more):
    variables = {"z": B, "x": x, "t": {**B, "parents": ["z"]}, "y": outcome}
    return CausalModel(classes=2, variables=variables, **ROLES, **more)


def rows_of(n=400, seed=0):
    rng = np.random.default_rng(seed)
    u = rng.integers(0, 2, n)
    z, x = rng.random(n) < 0.2 + 0.6 * u, rng.random(n) < 0.15 + 0.7 * u
    t = rng.random(n) < 0.3 + 0.2 * u + 0.2 * z
    y = rng.random(n) < 0.2 + 0.5 * u * t
    return pd.DataFrame({"z": z, "x": x, "t": t, "y": y}).astype(int)


def test_pattern_residuals_add_groups_up():
    model, rows = model_of(), rows_of()
    by_group = tabulate(rows.assign(site=np.arange(len(rows)) % 5), model, group="site")
    plain, grouped = (pattern_residuals(model, data) for data in (rows, by_group))
    assert len(grouped) == 16
    assert grouped["expected"].sum() == pytest.approx(400)
    np.testing.assert_allclose(grouped["observed"].sort_index(), plain["observed"].sort_index())


def test_pattern_residuals_refuse_weights_and_gaps():
    model, rows = model_of(data=DataSource(missing="sum")), rows_of()
    weighted = tabulate(rows.assign(w=1.0 + rows["z"]), model, weight="w")
    gaps = rows.astype(float)
    gaps.loc[:9, "x"] = np.nan
    for data, said in ((weighted, "sampling weights"), (gaps, "missing values")):
        with pytest.raises(RefusedError, match=said):
            pattern_residuals(model, data)


def test_means_of_censored_times_are_refused():
    model = model_of({"family": "exponential", "event": "seen"})
    time = np.random.default_rng(1).exponential(size=400)
    rows = rows_of().assign(y=np.minimum(time, 1.0), seen=(time < 1).astype(int))
    for answer in (mte.baselines, mte.ladder):
        with pytest.raises(RefusedError, match="censored"):
            answer(model, rows)


def test_baselines_refuse_gaps():
    gaps = rows_of().astype(float)
    gaps.loc[:9, "y"] = np.nan
    with pytest.raises(RefusedError, match="missing"):
        mte.baselines(model_of(data=DataSource(missing="sum")), gaps)


def test_missing_values_stay_missing_where_levels_are_renumbered():
    plain = model_of(data=DataSource(missing="sum"))
    listed = model_of(x={**B, "levels": ["yes", "no"]}, data=DataSource(missing="sum"))
    rows = rows_of()
    rows["x"] = np.where(rows["x"] == 1, "yes", "no").astype(object)
    full = rows.copy()
    rows.loc[:9, "x"] = None
    full.loc[:9, "x"] = "yes"
    model, table = resolve(listed, tabulate(rows, plain))
    assert int(table["count"].values[table["x"].values < 0].sum()) == 10
    assert fingerprint(model, table) != fingerprint(model, resolve(listed, full)[1])


def test_form_of_compiled_data_counts_gaps():
    model = model_of(data=DataSource(missing="sum"))
    forms = []
    for name in ("x", "y"):
        gaps = rows_of().astype(float)
        gaps.loc[:9, name] = np.nan
        forms.append(_form(*resolve(model, gaps)))
    assert forms[0] != forms[1]


def test_groups_that_lost_all_rows_keep_their_place():
    rows = rows_of().astype(float).assign(site=["a"] * 200 + ["b"] * 195 + ["c"] * 5)
    rows.loc[395:, "x"] = np.nan
    model, table = resolve(model_of(data=DataSource(missing="drop")), rows, "site")
    built = build_model(model, table)
    assert built["count"].get_value().shape[0] == 3
    assert np.isfinite(multinomial_coefficient(built))


def test_default_scale_of_calibration_suits_the_family():
    for outcome in ({"family": "poisson"}, {"family": "gamma"}, {"family": "weibull", "event": "seen"}):
        model = model_of(outcome)
        assert resolve(model, _unit_scale(model))[1]["count"].sum() == 4


def test_priors_are_recorded_whatever_holds_the_numbers():
    given = {"class_weight": np.array([2.0, 3.0]), "p_x": np.float64(1.5)}
    told = json.loads(json.dumps(prior_record(model_of(), given)))
    assert told["class_weight"] == [2.0, 3.0]
    assert told["p_x"] == 1.5


def test_own_outcome_takes_no_grid():
    import pymc as pm

    model = model_of({"family": "normal"})
    rows = rows_of().assign(y=np.random.default_rng(2).normal(size=400))
    with pm.Model(), pytest.raises(ModelError, match="grid"):
        mte.add_to_model(model, rows, outcome=lambda u, t, row: row["y"] * 0.0 + u, grid=0.5)


@pytest.mark.slow
def test_laplace_evidence_is_of_ordered_rows_and_of_the_posterior_only():
    model, rows = model_of(), rows_of()
    few = {"draws": 50, "tune": 10, "chains": 2, "progressbar": False}
    post = mte.sample(model, rows, sampler="laplace", **few)
    value = post["posterior"].attrs["log_evidence"]
    assert value == pytest.approx(-1017.6, abs=0.7)  # sequential Monte Carlo: -1017.6, error 0.2
    with pytest.raises(RefusedError, match="approximation"):
        mte.log_evidence(model, rows, posterior=post)
    other = mte.sample(model, rows, sampler="laplace", priors={"p_x": 10.0}, random_seed=1, **few)
    for tree in (post, other):
        tree["posterior"].attrs["kind"] = "mcmc"
    with pytest.raises(DataError, match="priors"):
        mte.merge(post, other)
    with pytest.raises(DataError, match="priors"):
        mte.log_evidence(model, rows, posterior=other)


def test_smc_refuses_pooled_priors():
    few = {"draws": 20, "tune": 10, "chains": 1, "progressbar": False}
    with pytest.raises(RefusedError, match="pooled"):
        mte.sample(model_of(), rows_of(), sampler="smc", priors={"p_x": {"pooled": 0.5}}, **few)


def test_chains_of_groups_start_in_all_modes():
    model = CausalModel(classes=2, variables=dict.fromkeys("abcd", B))
    rng = np.random.default_rng(4)
    rows = pd.DataFrame({name: rng.integers(0, 2, 60) for name in "abcd"}).assign(site=np.arange(60) % 3)
    resolved = resolve(model, rows, "site")
    ready = prepare(*resolved, start=None, priors=None, chains=4, seed=0)
    assert len(ready.modes) > 1
    tops = np.stack([ready.modes.posterior.parameters[f"p_{v}"][..., 1] for v in "abcd"], axis=-1)
    starts = np.array([np.stack([start[f"p_{v}"] for v in "abcd"], axis=-1) for start in ready.starts])
    far = np.abs(starts[:, None] - tops[None]).sum(axis=(-2, -1))
    assert far.argmin(axis=1).tolist() == [0, 1, 0, 1]
    assert (ready.started == 0).all()  # their modes are not weighed


def test_sampling_weights_have_no_evidence_and_make_other_data():
    model, frame = model_of(), rows_of(60)
    weight = np.random.default_rng(2).uniform(0.5, 2.0, 60)
    weighted = frame.assign(w=weight)
    plain, one = tabulate(frame, model), tabulate(weighted, model, weight="w")
    shuffled = tabulate(weighted.iloc[::-1], model, weight="w")
    other = tabulate(frame.assign(w=weight[::-1]), model, weight="w")
    seen = [fingerprint(model, table) for table in (plain, one, shuffled, other)]
    assert seen[1] == seen[2]
    assert len(set(seen)) == 3
    with pytest.raises(RefusedError, match="no evidence"):
        mte.log_evidence(model, one)
