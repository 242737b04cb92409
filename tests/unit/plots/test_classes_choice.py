"""The picture of one to several classes: every number drawn, the recommended one shaded, no text cut off."""

import pytest

from pymc_mte import choose_classes, load_model, plot_class_choice, simulate


@pytest.fixture(scope="module")
def choice():
    model = load_model("gallery:paper_pair")
    return choose_classes(model, simulate(model, 2_000, rng=1), max_classes=2)


def test_both_panels(choice):
    figure = plot_class_choice(choice)
    left, right = figure.axes
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["1", "2"]
    assert [tick.get_text() for tick in right.get_yticklabels()] == ["1", "2", "stacked"]
    assert sum(len(c.get_offsets()) for c in right.collections) == 1 + 2
    assert "BIC" in left.get_xlabel()
    assert all(axes.get_axisbelow() is True for axes in figure.axes)


def test_texts_stay_inside(choice):
    figure = choice.plot()
    figure.draw_without_rendering()
    box = figure.bbox
    for axes in figure.axes:
        for text in (axes.xaxis.label, axes.yaxis.label):
            extent = text.get_window_extent()
            assert extent.x0 >= box.x0 - 1
            assert extent.x1 <= box.x1 + 1
