"""Where classes change places inside chains, tables show label-free quantities and say why."""

import numpy as np
import pytest
import xarray as xr

from pymc_mte import load_model, truth
from pymc_mte.functionals import functionals
from pymc_mte.results import dataset, provenance
from pymc_mte.summary import WEAKLY_IDENTIFIED, posterior_summary


def drawn(model, rng, **attrs):
    """Draws around some tables, with the attributes of a posterior."""
    values = {n: rng.dirichlet(np.full(s[-1], 5.0), size=(2, 50, *s[:-1])) for n, s in model.shapes.items()}
    if model.treatment is not None:
        values |= functionals(model, values)
    tree = xr.DataTree.from_dict({"posterior": dataset(model, values)})
    tree.attrs = provenance(model, **attrs)
    return tree


def test_effects_of_unsure_classes_are_not_listed(level3, rng):
    assert "effect" in truth(level3)
    sure = posterior_summary(drawn(level3, rng, switching_share=0.005))
    weak = posterior_summary(drawn(level3, rng, switching_share=0.02))
    assert "effect[class 0]" in sure.index
    assert "weakly_identified" not in sure.attrs
    assert list(weak.index) == ["ate", "att", "arm_mean[treatment 0]", "arm_mean[treatment 1]", "effect_sd"]
    assert weak.attrs["weakly_identified"] == WEAKLY_IDENTIFIED


def test_without_a_treatment_weights_are_ranked(rng):
    model = load_model("gallery:carcinoma")
    tree = drawn(model, rng, switching_share=0.3)
    weight = -np.sort(-tree["posterior"]["class_weight"].values, axis=-1)
    table = posterior_summary(tree)
    assert list(table.index) == [f"class_weight[rank {i}]" for i in (1, 2, 3)]
    np.testing.assert_allclose(table["mean"], weight.mean(axis=(0, 1)))
    assert table["mean"].is_monotonic_decreasing


def test_mixing_within_modes_replaces_that_between_them(level3, rng):
    """Draws of separate modes, resampled by weight, have no R-hat of their own."""
    tree = drawn(level3, rng, switching_share=0.0)
    kept = {"r_hat": ("entry", [1.25, 1.5]), "ess": ("entry", [70.0, 80.0])}
    labels = np.array(["ate", "effect[class 1]"], dtype=object)
    tree["modes"] = xr.DataTree(xr.Dataset(kept, coords={"entry": labels}))
    table = posterior_summary(tree)
    assert table.loc["ate", "r_hat"] == 1.25
    assert table.loc["effect[class 1]", "ess"] == 80
    assert table.loc["att", "r_hat"] == pytest.approx(1, abs=0.2)
