"""Figures of several results, of single rows and of calibration, from made-up draws."""

import numpy as np
import pytest
import xarray as xr

from pymc_mte import (
    estimate,
    load_model,
    plot_calibration,
    plot_effect_mixture,
    plot_effects,
    plot_unit_effects,
    predict,
    simulate,
)
from pymc_mte.errors import ModelError, RefusedError
from pymc_mte.plots.calibration import GRID, _band


@pytest.fixture(scope="module")
def made(level3, tools):
    return tools.made_posterior(level3, simulate(level3, 400, rng=1))


def named(axes, label):
    return [line for line in axes.lines if line.get_label() == label]


def test_effects_of_several_results(made, level3):
    moments = estimate(level3, simulate(level3, 400, rng=1), method="bridge", n_boot=4)
    figure = plot_effects({"posterior": made, "bridge": moments})
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "average effect",
        "effect on treated",
        "effect, class 0",
        "effect, class 1",
    ]
    assert len(named(axes, "posterior")) == 4
    assert len(named(axes, "bridge")) == 2  # averages only
    assert not plot_effects(made).legends
    assert axes.get_title() == "Effects, 90% intervals"
    open_ones = xr.Dataset({"identified": ("functional", [False])}, {"functional": ["ate"]})
    doubtful = made.assign(identification=xr.DataTree(open_ones))
    assert plot_effects(doubtful).axes[0].get_title().endswith("(hollow: not identified)")
    figure.canvas.draw()


def test_estimates_are_drawn_and_not_the_mean_of_their_replicates(level3):
    moments = estimate(level3, simulate(level3, 400, rng=1), n_boot=8)
    (axes,) = plot_effects({"moments": moments}).axes
    drawn = [float(line.get_xdata()[0]) for line in named(axes, "moments")]
    point = moments["estimate"]
    assert drawn == [float(point["ate"]), float(point["att"]), *point["effect"].values.tolist()]
    (axes,) = plot_effect_mixture(moments).axes
    for k in range(2):
        (mark,) = named(axes, f"class {k}")
        at = [float(point["effect"][k]), float(point["class_weight"][k])]
        assert [float(mark.get_xdata()[0]), float(mark.get_ydata()[0])] == at


def test_effects_of_different_questions_are_refused(made, tools):
    other = load_model("gallery:coins7")
    tree = tools.made_posterior(other, simulate(other, 50, rng=1))
    with pytest.raises(ModelError, match="None on None, t on y"):
        plot_effects({"a": made, "b": tree})
    with pytest.raises(ModelError, match="got none"):
        plot_effects({})
    with pytest.raises(RefusedError, match="treatment"):
        plot_effects(tree)


def test_single_rows_follow_bayes(made, level3, tools):
    """Expected effects of the patterns, against class probabilities by loops at the truth."""
    figure = plot_unit_effects(made)
    line = next(p for p in figure.axes[0].patches if p.get_label() == "expected effect")
    shown, edges, _ = line.get_data()
    truth = level3.true_parameters()
    table = made["observed_data"].to_dataset()
    wanted = []
    for i in range(table.sizes["pattern"]):
        cell = {v: int(table[v].values[i]) for v in level3.variables}
        p = np.array([tools.natural_probability(level3, truth, u, cell) for u in range(2)])
        wanted.append(p @ [-0.75, 0.75] / p.sum())
    np.testing.assert_allclose(shown, np.sort(wanted), atol=0.03)
    order = np.argsort(wanted)
    share = table["count"].values / table["count"].values.sum()
    np.testing.assert_allclose(np.sort(np.diff(edges)), np.sort(share[order]), atol=1e-12)
    figure.canvas.draw()


def test_single_rows_from_predictions():
    effect = np.random.default_rng(1).normal(size=(2, 30, 5)) + np.arange(5.0) * 10
    figure = plot_unit_effects(xr.Dataset({"effect": (("chain", "draw", "row"), effect)}))
    line = next(p for p in figure.axes[0].patches if p.get_label() == "expected effect")
    np.testing.assert_allclose(line.get_data().values, effect.mean(axis=(0, 1)))
    with pytest.raises(RefusedError, match=r"axes chain, draw and row\[, contrast\].* got the axes \[\]"):
        plot_unit_effects(xr.Dataset({"effect": 1.0}))


def test_single_rows_from_predict(made, level3):
    found = predict(made, simulate(level3, 20, rng=2))
    line = next(p for p in plot_unit_effects(found).axes[0].patches if p.get_label() == "expected effect")
    mean = found["unit_effect"].mean(("chain", "draw")).values
    np.testing.assert_allclose(line.get_data().values, np.sort(mean))
    with pytest.raises(RefusedError, match=r"with a treatment\), got \['class_probability'\]"):
        plot_unit_effects(found[["class_probability"]])
    values = found["unit_effect"].values[..., None] * [1.0, 2.0]
    many = xr.Dataset({"unit_effect": (("chain", "draw", "row", "contrast"), values)})
    assert len(plot_unit_effects(many).axes) == 2


def test_single_rows_need_every_table(made):
    """Measurement first holds no table of the outcome."""
    lacking = made.assign(posterior=xr.DataTree(made["posterior"].to_dataset().drop_vars("p_y")))
    with pytest.raises(RefusedError, match="holds no 'p_y'"):
        plot_unit_effects(lacking)


def test_single_rows_need_rows(level3):
    with pytest.raises(RefusedError, match="observed rows"):
        plot_unit_effects(estimate(level3, simulate(level3, 300, rng=1), n_boot=4))


def ranks(**columns):
    return xr.DataTree.from_dict({"prior_sbc": xr.Dataset({n: ("sample", v) for n, v in columns.items()})})


def test_calibration_tells_narrow_from_right():
    rng = np.random.default_rng(3)
    figure = plot_calibration(ranks(ate=rng.uniform(size=300), att=rng.beta(0.4, 0.4, size=300)))
    good, narrow = (axes.get_title() for axes in figure.axes)
    assert good.startswith("average effect\ninside the band")
    assert narrow.startswith("effect on treated\nleaves the band")
    figure.canvas.draw()
    with pytest.raises(RefusedError, match="prior_sbc"):
        plot_calibration(xr.DataTree())


def test_calibration_has_a_panel_per_part():
    values = np.random.default_rng(3).uniform(size=(2, 50, 3))
    data = xr.Dataset({"effect": (("chain", "draw", "class"), values)}, {"class": [0, 1, 2]})
    figure = plot_calibration(xr.DataTree.from_dict({"prior_sbc": data}))
    assert [axes.get_title().split("\n")[0] for axes in figure.axes if axes.get_visible()] == [
        "effect, class 0",
        "effect, class 1",
        "effect, class 2",
    ]


def test_band_holds_uniform_lines_in_nine_of_ten():
    low, high = _band(100)
    draws = np.random.default_rng(9).uniform(size=(1_000, 100))
    gaps = np.stack([(draws <= at).mean(axis=1) - at for at in GRID], axis=1)
    inside = ((gaps >= low - 1e-9) & (gaps <= high + 1e-9))[:, 1:-1].all(axis=1).mean()
    assert abs(inside - 0.9) < 4.5 * np.sqrt(0.09 * (1 / 1_000 + 1 / 2_000))  # 7 in a million
