"""The figure, from a table alone: no sampler is needed."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pymc_mte import plot_comparison


def table_of(bridge=True):
    names = ["ate", "att", "effect[class 0]", "effect[class 1]", "class_weight[class 0]"]
    return pd.DataFrame(
        {
            "mean": np.arange(5.0),
            "lower": np.arange(5.0) - 1,
            "upper": np.arange(5.0) + 1,
            "spectral": [1.0, np.nan, 1.0, 2.0, 0.5],
            "spectral_se": 0.5,
            "bridge": [1.0, 1.0, np.nan, np.nan, np.nan] if bridge else np.nan,
            "bridge_se": 0.5,
        },
        index=pd.Index(names, name="functional"),
    )


def tree_of(model):
    tree = xr.DataTree()
    tree.attrs = {"model": model.to_toml()}
    return tree


def ticks(axes):
    return [text.get_text() for text in axes.get_yticklabels()]


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize("bridge", [True, False])
def test_figure_from_a_table(level3, bridge):
    table, tree = table_of(bridge), tree_of(level3)
    figure = plot_comparison(tree, tree, table=table)
    effects, weights = figure.axes
    assert ticks(effects) == ["average effect", "effect on treated", "effect, class 0", "effect, class 1"]
    assert effects.get_xlabel() == "effect of t on y"
    assert ticks(weights) == ["weight, class 0"]
    assert legend_of(figure) == ["posterior", "spectral", "bridge"][: 3 if bridge else 2]
    intervals = [line.get_xdata() for line in effects.lines if len(line.get_xdata()) == 2]
    assert any(np.allclose(x, [-1, 1]) for x in intervals)  # the posterior of the ate
    assert any(np.allclose(x, [1 - 1.645 * 0.5, 1 + 1.645 * 0.5]) for x in intervals)
    figure.canvas.draw()


def posterior_lines(axes):
    """Interval and marker of the first row, which the posterior is drawn for first."""
    return [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_zorder() > 0][:1], [
        line for line in axes.lines if len(line.get_xdata()) == 1
    ][:1]


def test_what_is_not_identified_is_dashed_and_hollow(level3):
    tree, table = tree_of(level3), table_of()
    flags = xr.DataArray(np.array([1, 1, 0, 0], dtype="int8"), dims="functional")
    flags = flags.assign_coords(
        functional=np.array(["ate", "att", "effect", "class_weight"], dtype=object),
    )
    tree["identification"] = xr.DataTree(xr.Dataset({"identified": flags}))
    figure = plot_comparison(tree, tree, table=table)
    effects, weights = figure.axes
    assert legend_of(figure) == ["posterior", "spectral", "bridge", "not identified: the prior decides"]
    intervals, markers = posterior_lines(effects)
    assert intervals[0].get_linestyle() == "-"
    assert markers[0].get_markerfacecolor() == markers[0].get_color()
    intervals, markers = posterior_lines(weights)
    assert intervals[0].get_linestyle() == "--"
    assert markers[0].get_markerfacecolor() == "white"
    assert markers[0].get_color() == intervals[0].get_color() != effects.lines[0].get_color()
    figure.canvas.draw()


def test_the_table_says_what_is_identified(level3):
    tree, table = tree_of(level3), table_of()
    table["identified"] = False
    legend = legend_of(plot_comparison(tree, tree, table=table))
    assert legend == ["spectral", "bridge", "not identified: the prior decides"]


def test_one_class_has_no_rows_of_its_own(level3):
    tree = tree_of(level3.with_classes(1))
    table = table_of().drop(index="effect[class 1]")
    (effects,) = plot_comparison(tree, tree, table=table).axes
    assert ticks(effects) == ["average effect", "effect on treated"]
