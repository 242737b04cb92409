"""Curves of simulation studies."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pymc_mte import ModelError, plot_curves


@pytest.fixture
def curves():
    rows = [256, 1024, 4096]
    recall = xr.DataArray([[0.5, 0.7, 0.9], [0.4, np.nan, 0.8]], dims=("line", "rows"))
    found = xr.Dataset({"recall": recall, "error": 1 - recall, "recall_error": 0.02 + 0 * recall})
    found = found.assign_coords(line=["polished $x$", "paper"], rows=rows)
    found["rows"].attrs = {"scale": "log", "long_name": "number of rows"}
    found["error"].attrs = {"scale": "log", "long_name": "mean error"}
    return found


def test_figure_shows_the_numbers(curves):
    figure = plot_curves(curves)
    left, right = figure.axes
    assert left.get_xlabel() == "number of rows"
    assert (left.get_ylabel(), right.get_ylabel()) == ("recall", "mean error")
    assert (left.get_xscale(), left.get_yscale(), right.get_yscale()) == ("log", "linear", "log")
    ours, paper = (container.lines[0] for container in left.containers)
    np.testing.assert_array_equal(ours.get_xydata(), [[256, 0.5], [1024, 0.7], [4096, 0.9]])
    np.testing.assert_array_equal(paper.get_xydata(), [[256, 0.4], [4096, 0.8]])
    assert ours.get_color() != paper.get_color()
    assert ours.get_marker() != paper.get_marker()
    assert left.containers[0].has_yerr
    assert not right.containers[0].has_yerr
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["polished $x$", "paper"]
    FigureCanvasAgg(figure).draw()
    shown = [
        text.get_text() for axis in (left.xaxis, right.yaxis) for text in axis.get_ticklabels(which="both")
    ]
    assert not any("$" in text for text in shown)


def test_one_line_needs_no_legend(curves):
    assert not plot_curves(curves.isel(line=[0])).legends


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([1, 2], "xarray.Dataset"),
        (xr.Dataset({"recall": ("rows", [1.0])}), "'line'"),
        (xr.Dataset(), "at least one"),
    ],
)
def test_what_cannot_be_drawn_is_refused(wrong, said):
    with pytest.raises(ModelError, match=said):
        plot_curves(wrong)
