"""Effects expected for single rows, from the probabilities of their classes: one figure."""

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.data import columns_of
from pymc_mte.errors import RefusedError
from pymc_mte.plots.looks import TAIL, plain_frame
from pymc_mte.plots.said import plain_text
from pymc_mte.regression import centred_covariates, log_joint_given
from pymc_mte.results import model_of
from pymc_mte.sites import SHIFT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

MAX_DRAWS = 200
"""Draws that the figure rests on: more change no line that an eye could see."""

BLUE = "#0072B2"

AXES = ("chain", "draw", "row")


def plot_unit_effects(result: xr.DataTree | xr.Dataset) -> "Figure":
    """Draw the effect expected for every row, given its class probabilities, from lowest to highest.

    Parameters
    ----------
    result : DataTree or Dataset
        A posterior from `sample`; or what `predict` gave for rows: ``unit_effect`` (chain, draw,
        row[, contrast]). Predictions made elsewhere may call it ``effect``.

    Returns
    -------
    matplotlib Figure
        One panel per contrast. Along the horizontal axis the rows, as shares of all of them; the line is
        the expected effect given all that was observed of the row, its own outcome included, and the band
        its 90% interval. Dotted lines are the effects of the classes. A flat line says that the rows tell
        little about the class; nobody's own effect is known any better than the class's.

    Raises
    ------
    RefusedError
        If the result holds no draws of class effects with their rows and tables, and is no prediction of
        effects.
    """
    from matplotlib.figure import Figure

    effect, weight, classes, contrasts, unit = _expected(result)
    figure = Figure(figsize=(8.0, 1.0 + 3.4 * len(contrasts)), layout="constrained")
    panels = figure.subplots(len(contrasts), 1, squeeze=False)[:, 0]
    for i, axes in enumerate(panels):
        _panel(axes, effect[..., i], weight, None if classes is None else classes[..., i])
        axes.set_ylabel(unit if len(contrasts) == 1 else f"{unit}, {contrasts[i]}")
    panels[-1].set_xlabel("rows, from the lowest to the highest expected effect")
    figure.suptitle("Expected effect of single rows, with 90% interval", fontsize=11)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    plain_text(figure)
    return figure


def _expected(result: xr.DataTree | xr.Dataset) -> tuple[Array, Array, Array | None, list[str], str]:
    """Effects (draw, row, contrast), weights (row,), class effects (draw, class, contrast), words."""
    if isinstance(result, xr.Dataset):
        return _predicted(result)
    model = model_of(result)
    draws = result["posterior"].to_dataset()
    if "observed_data" not in result or "effect" not in draws:
        raise RefusedError(
            "plot_unit_effects: a posterior with class effects and its observed rows is wanted; draw one "
            "with `sample` for a model with a treatment"
        )
    if SHIFT in draws:
        raise RefusedError("plot_unit_effects takes no effects of groups; read group_effect of the result")
    if lacking := [n for n in model.posterior_dims if n not in draws]:
        raise RefusedError(
            f"plot_unit_effects: this result holds no {lacking[0]!r}, and class probabilities of rows rest "
            "on all tables; take the joint posterior of `sample`"
        )
    total = draws.sizes["chain"] * draws.sizes["draw"]
    kept = np.linspace(0, total - 1, min(total, MAX_DRAWS)).astype(int)
    parameters = {n: draws[n].values.reshape(-1, *draws[n].shape[2:])[kept] for n in model.posterior_dims}
    classes = draws["effect"].values.reshape(total, model.classes, len(model.contrasts))[kept]
    table = result["observed_data"].to_dataset()
    log_p = log_joint_given(model, parameters, columns_of(table, model), centred_covariates(table))
    probability = np.exp(log_p - log_p.max(axis=1, keepdims=True))
    probability /= probability.sum(axis=1, keepdims=True)
    effect = np.einsum("dup,duc->dpc", probability, classes)
    contrasts = [str(c) for c in model.coords["contrast"]]
    unit = f"effect of {model.treatment} on {model.outcome}"
    return effect, table["count"].values.astype(float), classes, contrasts, unit


def _predicted(found: xr.Dataset) -> tuple[Array, Array, None, list[str], str]:
    """Take the effects of `_expected` from predictions."""
    effect = next((found[name] for name in ("unit_effect", "effect") if name in found), None)
    if effect is None or {*effect.dims} - {"contrast"} != {*AXES}:
        got = [*found.data_vars] if effect is None else f"the axes {[*effect.dims]}"
        raise RefusedError(
            "plot_unit_effects: predictions need `unit_effect` with the axes chain, draw and row[, contrast] "
            f"(`predict` gives it for a model with a treatment), got {got}"
        )
    named = [str(c) for c in effect["contrast"].values] if "contrast" in effect.dims else [""]
    given = effect.transpose(*AXES, ...).values.reshape(-1, effect.sizes["row"], len(named))
    return given, np.ones(effect.sizes["row"]), None, named, "expected effect"


def _panel(axes: "Axes", effect: Array, weight: Array, classes: Array | None) -> None:
    order = np.argsort(effect.mean(axis=0), kind="stable")
    reached = np.concatenate([[0.0], np.cumsum(weight[order])]) / weight.sum()
    middle = effect.mean(axis=0)[order]
    low, high = np.quantile(effect[:, order], [TAIL, 1 - TAIL], axis=0)
    axes.stairs(high, reached, baseline=low, fill=True, color=BLUE, alpha=0.25, label="90% interval")
    axes.stairs(middle, reached, baseline=None, color=BLUE, linewidth=2, label="expected effect")
    axes.axhline(0.0, color="0.6", linewidth=1, zorder=0)
    marks: Any = [] if classes is None else classes.mean(axis=0)
    for k, value in enumerate(marks):
        axes.axhline(
            value, color="0.2", linewidth=1, linestyle=":", label="effects of the classes" if not k else None
        )
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    plain_frame(axes)
