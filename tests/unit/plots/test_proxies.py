"""Proxy strength beside the noise floor."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from pymc_mte import ModelError, identify, load_model, plot_proxies, population, simulate
from pymc_mte.plots.proxies import FLOOR, LINE, LOOKS


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def points(axes):
    return [line for line in axes.lines if line.get_marker() in ("o", "s", "D")]


@pytest.fixture(scope="module")
def three():
    model = load_model("gallery:three_classes")
    return identify(model, simulate(model, 4_000, rng=1), splits="none")


def test_figure_shows_the_table(three):
    figure = plot_proxies(three)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        f"t = {t}, correlation {r}" for t in (0, 1) for r in (1, 2, 3)
    ]
    checks = three.checks
    drawn = np.array([line.get_xdata()[0] for line in points(axes)])
    found = checks.loc[checks["check"].str.startswith("canonical correlation"), ["value", "se"]].to_numpy()
    np.testing.assert_allclose(drawn, found[:, 0])
    widths = [patch.get_width() for patch in axes.patches]
    noise = checks.loc[checks["check"].str.startswith("noise level"), "value"]
    np.testing.assert_allclose(widths, noise)
    intervals = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 2]
    np.testing.assert_allclose(intervals[0], found[0, 0] + 1.645 * found[0, 1] * np.array([-1, 1]))
    assert [to_hex(line.get_color()) for line in points(axes)[:3]] == ["#0072b2", "#0072b2", "#737373"]
    assert legend(figure) == [LOOKS[True, True][0], LOOKS[False, False][0], FLOOR, LINE]
    title = figure.get_suptitle()
    assert title.startswith("Proxy strength: 3 classes need 2 correlations above noise in every arm")
    assert title.endswith("The proxies support 3 classes")
    FigureCanvasAgg(figure).draw()


def test_a_line_parts_what_the_classes_need(three):
    (axes,) = plot_proxies(three).axes
    lines = [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"]
    heights = [line.get_ydata()[0] for line in points(axes)]
    assert heights[1] < lines[0] < heights[2] < heights[4] < lines[1] < heights[5]


def test_noise_is_hollow(level3):
    rng = np.random.default_rng(5)
    found = identify(level3, {v: rng.integers(0, 2, 2_000) for v in level3.variables}, splits="none")
    figure = plot_proxies(found)
    assert LOOKS[True, False][0] in legend(figure)
    assert all(line.get_markerfacecolor() == "white" for line in points(figure.axes[0]))
    assert figure.get_suptitle().endswith("support 1 class")


def test_a_direction_too_many_is_marked():
    model = load_model("gallery:three_classes")
    found = identify(model.with_classes(2), simulate(model, 4_000, rng=1), splits="none")
    figure = plot_proxies(found)
    assert "not needed, but stands out: more classes?" in legend(figure)


def test_exact_shares_have_no_noise(level3):
    figure = plot_proxies(identify(level3, population(level3), splits="none"))
    assert not figure.axes[0].patches
    assert legend(figure) == [LOOKS[True, True][0]]
    FigureCanvasAgg(figure).draw()


def test_refusals_say_what_is_wanted(level3, three):
    with pytest.raises(ModelError, match=r"the answer of `identify` is wanted, got CausalModel"):
        plot_proxies(level3)
    with pytest.raises(ModelError, match="holds no proxy strength; it needs data"):
        plot_proxies(identify(level3))
    with pytest.raises(ModelError, match="holds no proxy strength"):
        plot_proxies(replace(three, checks=three.checks.iloc[:2]))
