"""What the classes look like: every variable's distribution in each of them, one figure."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.coefficients import refuse_linear
from pymc_mte.errors import RefusedError
from pymc_mte.intervene import do
from pymc_mte.model import CausalModel
from pymc_mte.plots.looks import class_look, interval, offsets, plain_frame, points
from pymc_mte.plots.said import plain_text
from pymc_mte.results import model_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

Row = tuple[str, Array, Array]
"""A label, draws (draws, classes), and the values of an estimate (classes), not numbers for a posterior."""

MAX_SHOWN = 6
"""Levels of one variable that are shown: its most frequent ones."""

ROW, HEAD = 0.4, 1.5
"""Inches per row, and for titles, axis and legend."""


def plot_classes(result: xr.DataTree) -> "Figure":
    """Draw the profile of every class: how often its people have each level, and their means.

    Parameters
    ----------
    result : DataTree
        A posterior from `sample`, or an answer of `estimate` that holds the tables of the network
        (method ``polished``, say).

    Returns
    -------
    matplotlib Figure
        On top one row per level of a discrete variable (of two levels only the second) with the
        probability in each class, below one panel per continuous variable with its mean in each class, in
        its units. Bars are 90% intervals. All as observed, without any intervention: the treatment's row
        shows how often each class is treated. The legend gives the weights.

    Raises
    ------
    RefusedError
        If the result holds no tables, or its classes are targets of interventions,
        or the model has covariates or linear parents.

    Examples
    --------
    >>> from pymc_mte import estimate, load_model, simulate
    >>> model = load_model("gallery:level3")
    >>> figure = plot_classes(estimate(model, simulate(model, 2_000, rng=1), n_boot=8))
    >>> [text.get_text() for text in figure.axes[0].get_yticklabels()]
    ['z = 1', 'x = 1', 't = 1', 'y = 1']
    """
    from matplotlib.figure import Figure

    model = model_of(result)
    if model.interventions is not None:
        raise RefusedError("plot_classes: the classes of this model are targets, which have no profile each")
    if model.covariates:
        raise RefusedError("plot_classes: given covariates a class has no one profile; see plot_effects")
    refuse_linear(model, "plot_classes")
    rows = [row for name in model.discrete_variables for row in _shares(result, model, name)]
    heights = [0.6 + ROW * len(rows)] * bool(rows) + [0.6 + ROW] * len(model.continuous_variables)
    figure = Figure(figsize=(9.0, HEAD + 0.35 * len(heights) + sum(heights)), layout="constrained")
    panels = list(figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])
    if rows:
        _panel(panels[0], rows)
        panels[0].set_xlim(-0.02, 1.02)
        panels[0].set_xlabel("share of the class's people")
    for axes, name in zip(panels[bool(rows) :], model.continuous_variables, strict=True):
        _panel(axes, [(name, *_by_class(result, name, "mean_by_class"))])
        axes.set_xlabel(f"mean of {name}")
    figure.suptitle("Profile of the classes, 90% intervals", fontsize=11)
    weights = result["posterior"].to_dataset()["class_weight"].values.reshape(-1, model.classes)
    _legend(figure, weights, points(result, "class_weight"))
    plain_text(figure)
    return figure


def _by_class(result: xr.DataTree, name: str, what: str) -> tuple[Array, Array]:
    """Draws (draws, classes, ...) of what a variable does in each class, and the values of an estimate."""
    drawn = do(result, {}, name)[what].values
    drawn = drawn.reshape(-1, *drawn.shape[2:])
    if result["posterior"].attrs.get("kind") != "bootstrap":
        return drawn, np.full(drawn.shape[1:], np.nan)
    return drawn, do(result, {}, name, group="estimate")[what].values.reshape(drawn.shape[1:])


def _shares(result: xr.DataTree, model: CausalModel, name: str) -> list[Row]:
    """Rows of one discrete variable."""
    var = model.variables[name]
    if var.trials is not None:
        mean, point = (value / var.trials for value in _by_class(result, name, "mean_by_class"))
        return [(f"{name}, share of {var.trials}", mean, point)]
    table, point = _by_class(result, name, "distribution_by_class")
    if len(var.labels) == 2:
        return [(f"{name} = {var.labels[1]}", table[..., 1], point[..., 1])]
    kept = np.sort(np.argsort(-table.mean(axis=(0, 1)), kind="stable")[:MAX_SHOWN])
    return [(f"{name} = {var.labels[level]}", table[..., level], point[..., level]) for level in kept]


def _panel(axes: "Axes", rows: list[Row]) -> None:
    for place, (_, values, point) in enumerate(rows):
        for k, offset in enumerate(offsets(values.shape[1])):
            middle, low, high = interval(values[:, k], point[k])
            look = class_look(k)
            axes.plot([low, high], [place + offset] * 2, color=look["color"], linewidth=2)
            axes.plot([middle], [place + offset], linestyle="", markersize=6, clip_on=False, **look)
        if place:
            axes.axhline(place - 0.5, color="0.9", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [label for label, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    plain_frame(axes)


def _legend(figure: "Figure", weights: Array, point: Array) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for k in range(weights.shape[1]):
        middle, low, high = interval(weights[:, k], point[k])
        said = f"class {k}: {middle:.0%} of all ({low:.0%} to {high:.0%})"
        handles.append(Line2D([], [], linewidth=2, label=said, **class_look(k)))
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
