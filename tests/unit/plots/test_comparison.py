"""The figure, from a table alone: no sampler is needed."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pymc_mte import plot_comparison


@pytest.mark.parametrize("bridge", [True, False])
def test_figure_from_a_table(level3, bridge):
    names = ["ate", "att", "effect[class 0]", "effect[class 1]", "class_weight[class 0]"]
    table = pd.DataFrame(
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
    tree = xr.DataTree()
    tree.attrs = {"model": level3.to_toml()}
    figure = plot_comparison(tree, tree, table=table)
    effects, weights = figure.axes
    shown = [text.get_text() for text in effects.get_yticklabels()]
    assert "(ate)" in shown[0]
    assert "(att)" in shown[1]
    assert shown[2:] == ["effect in class 0", "effect in class 1"]
    assert effects.get_xlabel() == "effect of t on y"
    assert len(weights.get_yticklabels()) == 1
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["posterior", "spectral", "bridge"][: 3 if bridge else 2]
    intervals = [line.get_xdata() for line in effects.lines if len(line.get_xdata()) == 2]
    assert any(np.allclose(x, [-1, 1]) for x in intervals)  # the posterior of the ate
    assert any(np.allclose(x, [1 - 1.645 * 0.5, 1 + 1.645 * 0.5]) for x in intervals)
    figure.canvas.draw()
