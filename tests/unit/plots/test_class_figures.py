"""Figures of classes and of predicted data, from made-up draws: no sampler is needed."""

import numpy as np
import pytest
import xarray as xr

from pymc_mte import (
    CausalModel,
    estimate,
    load_model,
    plot_classes,
    plot_effect_mixture,
    plot_predictive,
    plot_prior,
    simulate,
)
from pymc_mte.errors import RefusedError
from pymc_mte.plots.looks import COLOURS, MARKERS, class_look


def ticks(axes):
    return [text.get_text() for text in axes.get_yticklabels()]


def texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def points(axes):
    """Positions of the single markers."""
    return np.array([line.get_xydata()[0] for line in axes.lines if len(line.get_xdata()) == 1])


@pytest.fixture(scope="module")
def made(level3, tools):
    return tools.made_posterior(level3, simulate(level3, 100, rng=1))


@pytest.fixture(scope="module")
def normal(tools):
    """Three classes, a continuous outcome, three arms."""
    model = CausalModel(
        classes=3,
        variables={
            "x": {"family": "categorical", "levels": ["low", "$mid$", "high"]},
            "t": {"family": "categorical", "levels": ["a", "b", "c"]},
            "y": {"family": "normal"},
        },
        treatment="t",
        outcome="y",
        outcome_proxies=["x"],
        truth={
            "class_weight": [0.2, 0.3, 0.5],
            "x": {"p": np.full((3, 3), 1 / 3).tolist()},
            "t": {"p": np.full((3, 3), 1 / 3).tolist()},
            "y": {"mean": np.arange(9.0).reshape(3, 3).tolist(), "sd": [1.0, 1.0, 1.0]},
        },
    )
    return tools.made_posterior(model, simulate(model, 300, rng=1))


def test_profile_shows_every_variable_in_every_class(made):
    figure = plot_classes(made)
    (axes,) = figure.axes
    assert ticks(axes) == ["z = 1", "x = 1", "t = 1", "y = 1"]
    found = points(axes)
    assert len(found) == 8
    truth = load_model("gallery:level3").true_parameters()["p_z"][:, 1]
    np.testing.assert_allclose(found[:2, 0], truth, atol=0.03)
    assert [label.split(":")[0] for label in texts(figure)] == ["class 0", "class 1"]
    figure.canvas.draw()


def test_markers_of_an_estimate_are_its_values(level3):
    """Not the mean of its replicates, which lies a little to a side."""
    answer = estimate(level3, simulate(level3, 400, rng=1), method="polished", n_boot=8, rng=1)
    figure, point = plot_classes(answer), answer["estimate"]
    found = points(figure.axes[0])[:, 0].reshape(4, 2)
    by_hand = {"z": point["p_z"].values[:, 1], "x": point["p_x"].values[:, 1]}
    for row, value in zip(found, by_hand.values(), strict=False):
        np.testing.assert_allclose(row, value, rtol=1e-12)
    assert not np.allclose(found[0], answer["posterior"]["p_z"].values[..., 1].mean(axis=(0, 1)), rtol=1e-6)
    shown = [text.split(":")[1].split("%")[0].strip() for text in texts(figure)]
    assert shown == [f"{100 * weight:.0f}" for weight in point["class_weight"].values]


def test_profile_of_continuous_variables_has_its_own_scale(normal):
    figure = plot_classes(normal)
    shares, means = figure.axes
    assert ticks(shares) == ["x = low", "x = $mid$", "x = high", "t = a", "t = b", "t = c"]
    assert means.get_xlabel() == "mean of y"
    np.testing.assert_allclose(points(means)[:, 0], [1, 4, 7], rtol=0.15)
    figure.canvas.draw()  # a dollar sign starts no formula


def test_mixture_of_effects(made, normal):
    (axes,) = plot_effect_mixture(made).axes
    found = points(axes)
    np.testing.assert_allclose(found, [[-0.75, 0.5], [0.75, 0.5]], atol=0.03)
    several = plot_effect_mixture(normal)
    assert [axes.get_xlabel() for axes in several.axes] == [
        "effect of t on y, b - a",
        "effect of t on y, c - a",
    ]
    assert texts(several) == ["class 0", "class 1", "class 2", "average effect"]


def test_replicates_are_not_called_draws(level3):
    figure = plot_effect_mixture(estimate(level3, simulate(level3, 400, rng=1), n_boot=4))
    assert "bootstrap replicates" in figure.get_suptitle()


@pytest.mark.parametrize("plot", [plot_predictive, plot_prior])
def test_predicted_beside_observed(made, normal, plot):
    (axes,) = plot(made).axes
    observed = next(line for line in axes.lines if line.get_label() == "observed")
    counts = made["observed_data"]["count"].values
    assert sorted(observed.get_xdata()[observed.get_xdata() > 0]) == sorted(counts)
    assert ticks(axes)[1] == "0, 0, 0, 1"
    cells, histogram = plot(normal).axes
    assert "rows with this combination of x, t" in cells.get_xlabel()
    seen = next(line for line in histogram.lines if line.get_label() == "observed")
    assert 290 <= seen.get_ydata().sum() <= 300


def test_small_cells_can_be_left_out(made):
    (whole,), (safe,) = plot_predictive(made).axes, plot_predictive(made, share_safe=True).axes
    counts = made["observed_data"]["count"].values
    assert (counts < 5).any()
    assert len(ticks(safe)) < len(ticks(whole))
    observed = next(line for line in safe.lines if line.get_label() == "observed")
    assert observed.get_xdata().min() >= 5


def test_what_is_not_there_is_refused(level3):
    moments = estimate(level3, simulate(level3, 300, rng=1), method="bridge", n_boot=4)
    for plot in (plot_classes, plot_effect_mixture, plot_predictive, plot_prior):
        with pytest.raises(RefusedError):
            plot(moments)
    targets = load_model("gallery:unknown_interventions")
    found = estimate(targets, simulate(targets, 500, rng=1), n_boot=4)
    for plot in (plot_classes, plot_effect_mixture):
        with pytest.raises(RefusedError):
            plot(found)


def test_looks_of_classes_differ():
    looks = [tuple(class_look(k).values()) for k in range(len(COLOURS) * (len(MARKERS) - 1))]
    assert len(set(looks)) == len(looks)


def test_whole_predicted_rows_are_counted(level3, tools):
    """Posteriors with covariates or missing values predict rows, not counts of cells."""
    rows = simulate(level3, 200, rng=1)
    tree = tools.made_posterior(level3, rows)
    table = tree["observed_data"].to_dataset()
    z = table["z"].values.copy()
    z[0] = -1  # a missing value: its rows are in no cell
    tree["observed_data"] = table.assign(z=("pattern", z))
    drawn = np.stack([table[v].values for v in level3.variables], axis=-1).astype(float)
    data = xr.Dataset({"rows": (("chain", "draw", "row", "variable"), np.tile(drawn, (1, 6, 1, 1)))})
    tree["posterior_predictive"] = xr.DataTree(data.assign_coords(variable=list(level3.variables)))
    (axes,) = plot_predictive(tree).axes
    observed = next(line for line in axes.lines if line.get_label() == "observed")
    bars = axes.collections[0].get_segments()
    lost = table["count"].values[0]
    assert observed.get_xdata().sum() == 200 - lost
    assert sum(bar[0, 0] for bar in bars) == 200  # every data set was the observed one
