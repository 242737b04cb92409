"""The figure of the role splits, from a table alone."""

import numpy as np
import pandas as pd
import pytest

from pymc_mte import plot_role_splits


def table_of(contrasts=("1 - 0",)):
    rows = []
    for contrast in contrasts:
        rows += [
            ["model's roles", "z", "x0, x1", contrast, 1.0, 0.1, 0.4, 0.0],
            ["other roles", "x0", "z, x1", contrast, 40.0, 30.0, 0.01, 0.7],
            ["other roles", "x1", "z, x0", contrast, 0.5, 0.1, 0.3, 0.0],
            ["one left out", "z", "x0", contrast, np.nan, np.nan, np.nan, np.nan],
        ]
    columns = ["kind", "treatment_side", "outcome_side", "contrast", "ate", "se", "correlation", "p"]
    table = pd.DataFrame(rows, columns=columns)
    table.attrs = {"capped": False, "effect": "effect of t on y"}
    return table


def test_own_roles_first_then_by_size():
    figure = plot_role_splits(table_of())
    (axes,) = figure.axes
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == ["z  |  x0, x1", "x1  |  z, x0", "x0  |  z, x1", "z  |  x0"]
    assert axes.get_xlabel() == "effect of t on y"
    figure.canvas.draw()


def test_weak_splits_are_hollow_and_cut():
    figure = plot_role_splits(table_of())
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    assert low < 0.5 - 0.1645
    assert high < 40.0
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [
        "model's roles",
        "other roles",
        "hollow: a direction is noise in some arm",
        "arrow: goes on",
    ]
    edges = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == ">" and len(line.get_xdata())]
    assert edges == [high]


@pytest.mark.parametrize("contrasts", [("1 - 0", "2 - 0")])
def test_one_panel_per_contrast(contrasts):
    figure = plot_role_splits(table_of(contrasts))
    assert [axes.get_title() for axes in figure.axes] == [
        f"Average effect of {c} by roles of the proxies, 90% intervals" for c in contrasts
    ]


def test_no_answer_at_all_still_draws():
    table = table_of().assign(ate=np.nan, se=np.nan, p=np.nan)
    figure = plot_role_splits(table)
    figure.canvas.draw()
