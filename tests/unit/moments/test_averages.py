"""The three bridges through `estimate`, their delta-method errors, and the weak-proxy-robust set."""

import json

import numpy as np
import pytest

from pymc_mte import ModelError, estimate, load_model, population, simulate, truth


@pytest.mark.parametrize("bridge", ["outcome", "treatment", "both"])
@pytest.mark.parametrize("name", ["level2", "level3", "level4", "three_classes"])
def test_every_bridge_is_exact_on_population_tables(name, bridge):
    model = load_model(f"gallery:{name}")
    point = estimate(model, population(model), method="bridge", bridge=bridge, n_boot=0)["estimate"]
    right = truth(model)
    assert point["ate"].item() == pytest.approx(right["ate"].item(), abs=1e-9)
    np.testing.assert_allclose(point["arm_mean"].values, right["arm_mean"].values, atol=1e-9)
    if bridge == "outcome":
        assert point["att"].item() == pytest.approx(right["att"].item(), abs=1e-9)
    else:
        assert np.isnan(point["att"].item())


@pytest.mark.parametrize("name", ["level3", "level4", "three levels a side"])
def test_the_bridges_coincide_at_full_rank(tools, name):
    """As many features a side as classes: one number in every sample, whatever the graph."""
    model = tools.draw_level3(4, 3, 3, 3, x_to_y=True) if " " in name else load_model(f"gallery:{name}")
    rows = simulate(model, 2_000, rng=4)
    found = [
        estimate(model, rows, method="bridge", bridge=bridge, n_boot=0)["estimate"]["arm_mean"].values
        for bridge in ("outcome", "treatment", "both")
    ]
    assert np.isfinite(found).all()
    assert np.ptp(found, axis=0).max() < 1e-10


def test_delta_errors_agree_with_the_bootstrap():
    """4,000 resamples know an SD to 1.1%; at n = 20,000 the delta method is good to a few per cent."""
    model = load_model("gallery:level3")
    point = estimate(model, simulate(model, 20_000, rng=7), method="bridge", n_boot=4_000)["estimate"]
    for name in ("ate", "att"):
        assert point[f"se_delta_{name}"].item() == pytest.approx(point[f"se_{name}"].item(), rel=0.06)


def test_the_robust_set_holds_the_estimate_and_opens_for_noise(rng):
    model = load_model("gallery:level3")
    rows = simulate(model, 4_000, rng=8).drop_vars("latent_class")
    answer = estimate(model, rows, method="bridge", n_boot=40)
    ((low, high),) = json.loads(answer.attrs["ate_robust_set"])
    assert low < answer["estimate"]["ate"].item() < high
    noise = rows.assign(z=("row", rng.integers(0, 2, rows.sizes["row"])))
    answer = estimate(model, noise, method="bridge", n_boot=40)
    ends = np.ravel(json.loads(answer.attrs["ate_robust_set"]))
    assert np.isinf(ends).any()
    assert "UNBOUNDED_SET" in answer.attrs["notes"]


def test_other_bridges_go_with_the_bridge_only(level3):
    with pytest.raises(ModelError, match="pass method='bridge' too"):
        estimate(level3, simulate(level3, 100), method="spectral", bridge="both")
    with pytest.raises(ModelError, match="one of outcome, treatment, both"):
        estimate(level3, simulate(level3, 100), method="bridge", bridge="drawbridge")


def test_the_treated_keep_their_own_mean_in_samples():
    """With more features than classes: ATT = E[Y | T=1] - E[phi_X | T=1] . a_0, the first term observed."""
    model = load_model("gallery:three_classes")
    rows = simulate(model, 3_000, rng=9)
    point = estimate(model, rows, method="bridge", n_boot=0)["estimate"].to_dataset()
    treated = rows["t"].values == 1
    features = np.column_stack([np.ones(3_000), *(rows[f"x{j}"].values for j in range(4))])
    replaced = features[treated].mean(axis=0) @ point["bridge"].values[0]
    assert point["att"].item() == pytest.approx(rows["y"].values[treated].mean() - replaced, abs=1e-10)
