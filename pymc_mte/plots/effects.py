"""Effects of several results beside each other: one figure."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from pymc_mte.errors import ModelError, RefusedError
from pymc_mte.plots.looks import Array, class_look, interval, offsets, plain_frame, points
from pymc_mte.plots.said import plain_text
from pymc_mte.results import INTERVAL, labels, model_of
from pymc_mte.summary import is_identified, words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWN = ("ate", "att", "effect")


def plot_effects(results: Mapping[str, xr.DataTree] | xr.DataTree) -> "Figure":
    """Draw average and class effects of one or several results, each with its 90% interval.

    Parameters
    ----------
    results : mapping of str to DataTree, or DataTree
        Results of `sample` or `estimate` by name: several numbers of classes, priors or methods, say, of
        the same question. Classes are those of each result: class 0 of two is not class 0 of three.

    Returns
    -------
    matplotlib Figure
        One row per effect in units of the outcome, one colour and marker per result. Hollow, dashed: not
        identified, so the prior decides.

    Raises
    ------
    ModelError
        If nothing is given, or results about different treatments or outcomes.
    RefusedError
        If no result holds an effect.

    Examples
    --------
    >>> from pymc_mte import estimate, load_model, simulate
    >>> model = load_model("gallery:level3")
    >>> rows = simulate(model, 2_000, rng=1)
    >>> found = {m: estimate(model, rows, method=m, n_boot=8) for m in ("spectral", "bridge")}
    >>> [text.get_text() for text in plot_effects(found).legends[0].get_texts()]
    ['spectral', 'bridge']
    """
    from matplotlib.figure import Figure

    if not isinstance(results, (xr.DataTree, Mapping)):
        raise ModelError(
            f"plot_effects: a result or a mapping of names to results is wanted, got {type(results).__name__}"
        )
    named = {"": results} if isinstance(results, xr.DataTree) else dict(results)
    questions = {(model_of(tree).treatment, model_of(tree).outcome) for tree in named.values()}
    if len(questions) != 1:
        asked = ", ".join(sorted(f"{t} on {y}" for t, y in questions))
        raise ModelError(f"plot_effects: results about one question are wanted, got {asked or 'none'}")
    rows = _rows(named)
    if not rows:
        raise RefusedError("plot_effects: no result holds an effect; they need a treatment")
    hollow = False
    figure = Figure(figsize=(9.0, 1.6 + (0.3 + 0.14 * len(named)) * len(rows)), layout="constrained")
    axes = figure.subplots()
    heights = offsets(len(named), min(0.6, 0.25 * (len(named) - 1)))
    for number, (name, offset) in enumerate(zip(named, heights, strict=True)):
        look = class_look(number)
        for place, (label, by_name) in enumerate(rows.items()):
            if name not in by_name:
                continue
            middle, low, high = interval(*by_name[name])
            known = is_identified(named[name], label)
            hollow |= not known
            style, fill = ("-", look["color"]) if known else ("--", "white")
            axes.plot([low, high], [place + offset] * 2, style, color=look["color"], linewidth=2)
            axes.plot(
                [middle],
                [place + offset],
                linestyle="",
                markersize=6,
                markerfacecolor=fill,
                label=name,
                **look,
            )
    axes.axvline(0.0, color="0.6", linewidth=1, zorder=0)
    axes.set_yticks(range(len(rows)), [words(label) for label in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    treatment, outcome = questions.pop()
    axes.set_xlabel(f"effect of {treatment} on {outcome}")
    said = " (hollow: not identified)" if hollow else ""
    axes.set_title(f"Effects, {INTERVAL:.0%} intervals{said}", fontsize=11)
    plain_frame(axes)
    handles, found = axes.get_legend_handles_labels()
    once = dict(zip(found, handles, strict=True))
    if "" not in named:
        figure.legend(once.values(), once.keys(), loc="outside lower center", ncols=4, frameon=False)
    plain_text(figure)
    return figure


def _rows(named: Mapping[str, xr.DataTree]) -> dict[str, dict[str, tuple[Array, float]]]:
    """Draws and point of every effect, by label and result; averages first."""
    out: dict[str, dict[str, tuple[Array, float]]] = {}
    for kind in DRAWN:
        for name, tree in named.items():
            draws, model = tree["posterior"].to_dataset(), model_of(tree)
            if kind not in draws or (kind == "effect" and model.classes == 1):
                continue
            point = points(tree, kind)
            for label, index in labels(model, kind):
                values = draws[kind].values[(..., *index)].ravel()
                if np.isfinite(values).any():
                    out.setdefault(label, {})[name] = values, float(point[index])
    return out
