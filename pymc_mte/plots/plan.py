"""How moments take a mixture apart: draws, products and network, drawn for one graph."""

from typing import TYPE_CHECKING, Any

import numpy as np

from pymc_mte.model import CausalModel
from pymc_mte.modelfile import need_model
from pymc_mte.moments.classes import draws_of, kind_of
from pymc_mte.moments.plan import Family, Plan, plan
from pymc_mte.plots.said import plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe-Ito colours of the blocks: distinguishable without colour vision of one kind or another."""

GREY = "0.55"
SIZE = 450
"""Area of a vertex in square points."""

MAX_SHOWN = 12
"""Runs that get a row of their own; the others are counted."""

CONDITIONED = "conditioned on"
SHARED = "runs joined by a line share the block's distributions, by which their classes are matched"
NO_PLAN = "no choice of variables to condition on\nleaves three groups that separate the classes"


def plot_plan(model: CausalModel) -> "Figure":
    """Draw the reduction of a mixture without proxies: from the network to products to draws.

    Parameters
    ----------
    model : CausalModel
        A graph with at least two classes.

    Returns
    -------
    matplotlib Figure
        One row per set of variables conditioned on, the first of which gives the answer. On the left
        the graph, its blocks coloured and what is conditioned on grey; in the middle one product
        mixture per run, lines joining the runs that share a block's distributions, by which their
        classes are matched; on the right the three groups of one run, which stand for three draws of
        its class. For repeated draws only the draws: those that K classes need, and those beyond.

    Raises
    ------
    ModelError
        If the model has one class, so that there is nothing to take apart.

    Examples
    --------
    >>> from pymc_mte import load_model
    >>> figure = plot_plan(load_model("gallery:chain5"))
    >>> [text.get_text() for text in figure.axes[1].get_yticklabels()][:2]
    ['v2 = 0, v4 = 0', 'v2 = 0, v4 = 1']
    """
    from matplotlib.figure import Figure

    need_model("plot_plan", model)
    if kind_of(model) == "coins" and model.classes > 1:
        figure = Figure(figsize=(9, 2.6), layout="constrained")
        _draws(figure.subplots(), model)
        plain_text(figure)
        return figure
    found = plan(model)
    if not found.families:
        figure = Figure(figsize=(7, 3.2), layout="constrained")
        axes: Any = figure.subplots()
        _network(axes, model, None)
        axes.set_title(NO_PLAN, fontsize=11)
        plain_text(figure)
        return figure
    heights = [max(2.7, 1.5 + 0.27 * min(n, MAX_SHOWN)) for n in found.n_runs]
    figure = Figure(figsize=(14.5, sum(heights) + 0.5), layout="constrained")
    panels: Any = figure.subplots(
        len(heights), 3, squeeze=False, width_ratios=[6, 4, 4], height_ratios=heights
    )
    for i, family in enumerate(found.families):
        _network(panels[i, 0], model, family)
        given = f"Network, given {', '.join(family.conditions)}" if family.conditions else "All variables"
        role = "" if len(heights) == 1 else ": the answer" if i == 0 else ": a check"
        panels[i, 0].set_title(given + role, fontsize=11)
        _products(panels[i, 1], model, family)
        _groups(panels[i, 2], found, family)
    if any(family.conditions for family in found.families):
        figure.supxlabel(f"grey squares: {CONDITIONED}; {SHARED}", fontsize=9, color="0.3")
    plain_text(figure)
    return figure


def _places(model: CausalModel) -> dict[str, tuple[float, float]]:
    """Causes left of their effects; without edges in rows."""
    if not model.graph.edges:
        return {v: (float(i % 6), -float(i // 6)) for i, v in enumerate(model.variables)}
    depth: dict[str, int] = {}
    for name in model.order:
        depth[name] = 1 + max((depth[p] for p in model.variables[name].all_parents), default=-1)
    for name in model.order:  # roots next to what they cause
        children = [depth[v] for v, var in model.variables.items() if name in var.all_parents]
        if children and not model.variables[name].all_parents:
            depth[name] = min(children) - 1
    out = {}
    for x in range(max(depth.values()) + 1):
        names = [v for v in model.variables if depth[v] == x]
        for i, name in enumerate(names):
            out[name] = (float(x), (len(names) - 1) / 2 - i)
    return out


def _network(axes: "Axes", model: CausalModel, family: Family | None) -> None:
    """Draw the graph: blocks in colours, conditions as grey squares."""
    colours = dict.fromkeys(model.variables, GREY)
    if family is not None:
        for i, block in enumerate(family.blocks):
            colours |= dict.fromkeys(block, COLOURS[i % len(COLOURS)])
    places = _places(model)
    for parent, child in model.graph.edges:
        (x0, y0), (x1, y1) = places[parent], places[child]
        bend = 0.0 if abs(x1 - x0) <= 1 else 0.25
        cut = family is not None and {parent, child} & set(family.conditions)
        arrow = {"arrowstyle": "-|>", "color": "0.75" if cut else "0.2", "shrinkA": 14, "shrinkB": 14}
        arrow |= {"linestyle": "--" if cut else "-", "connectionstyle": f"arc3,rad={bend}"}
        axes.annotate("", (x1, y1), (x0, y0), arrowprops=arrow)
    for name, (x, y) in places.items():
        given = family is not None and name in family.conditions
        axes.scatter([x], [y], s=SIZE, marker="s" if given else "o", color=colours[name], zorder=3)
        short = len(name) <= 3
        axes.annotate(
            name,
            (x, y),
            xytext=(0, 0 if short else -17),
            textcoords="offset points",
            ha="center",
            va="center",
            color="white" if short else "0.2",
            fontsize=9,
            fontweight="bold" if short else "normal",
            zorder=4,
        )
    across, down = (np.array([p[i] for p in places.values()]) for i in (0, 1))
    axes.set_xlim(across.min() - 0.6, across.max() + 0.6)
    axes.set_ylim(down.min() - 0.9, down.max() + 0.9)
    axes.set_axis_off()


def _products(axes: "Axes", model: CausalModel, family: Family) -> None:
    """One row per run, one column per block, runs with the same boundary joined."""
    sizes = tuple(model.size(v) for v in family.conditions)
    total = int(np.prod(sizes)) if sizes else 1
    shown = min(total, MAX_SHOWN)
    levels = np.array([np.unravel_index(r, sizes) for r in range(shown)]) if sizes else np.zeros((1, 0), int)
    for i, boundary in enumerate(family.boundaries):
        at = levels[:, [family.conditions.index(v) for v in boundary]]
        _, same = np.unique(at, axis=0, return_inverse=True)
        n = int(same.max()) + 1
        x = i + 0.3 * ((np.arange(n) + 0.5) / n * 2 - 1)
        for g in range(n):
            rows = np.flatnonzero(same.ravel() == g)
            axes.plot(
                [x[g]] * len(rows), rows, "o-", color=COLOURS[i % len(COLOURS)], linewidth=2, markersize=7
            )
    names = [
        ", ".join(
            f"{v} = {model.variables[v].labels[k]}" for v, k in zip(family.conditions, row, strict=True)
        )
        for row in levels
    ]
    axes.set_yticks(range(shown), [name or "all rows" for name in names], fontsize=9)
    if total > shown:
        axes.set_xlabel(f"and {total - shown} runs more", fontsize=9)
    axes.set_xticks(range(len(family.blocks)), ["{" + ", ".join(b) + "}" for b in family.blocks], fontsize=9)
    axes.xaxis.tick_top()
    axes.set_xlim(-0.6, len(family.blocks) - 0.4)
    axes.set_ylim(shown - 0.4, -0.6)
    axes.spines[["top", "right", "bottom", "left"]].set_visible(False)
    axes.tick_params(length=0)
    runs = f"{total} runs" if total > 1 else "one run"
    axes.set_title(f"Products: {runs}, independent blocks", fontsize=11)


def _groups(axes: "Axes", found: Plan, family: Family) -> None:
    """Three groups of blocks: the three-way table that a run is."""
    model, k = found.model, found.model.classes
    colour = {v: COLOURS[i % len(COLOURS)] for i, block in enumerate(family.blocks) for v in block}
    for i, group in enumerate(found.groups(family)):
        cells = int(np.prod([model.size(v) for v in group]))
        box = {
            "boxstyle": "round,pad=0.5",
            "facecolor": "white",
            "edgecolor": colour[group[0]],
            "linewidth": 2,
        }
        names = "\n".join(", ".join(group[j : j + 4]) for j in range(0, len(group), 4))
        axes.text(i, 0.6, names, ha="center", va="center", fontsize=10, bbox=box)
        axes.text(i, 0.18, f"{cells} cells\nrank {min(k, cells)}", ha="center", va="center", fontsize=9)
        if i:
            axes.text(i - 0.5, 0.6, "×", ha="center", va="center", fontsize=13)
    axes.set_xlim(-0.6, 2.6)
    axes.set_ylim(0, 1)
    axes.set_axis_off()
    axes.set_title(f"Draws: three of one class, {k} classes", fontsize=11)


def _draws(axes: Any, model: CausalModel) -> None:
    """Repeated draws: those that identify K classes, the one that tests K, those that sharpen."""
    n, need = draws_of(model), 2 * model.classes - 1
    kinds = [
        ("o", COLOURS[0], COLOURS[0], f"{need} draws identify {model.classes} classes", range(min(n, need)))
    ]
    kinds.append(
        ("o", COLOURS[1], COLOURS[1], "one more tests that they are enough", range(need, min(n, need + 1)))
    )
    kinds.append(("o", "white", COLOURS[0], "the rest make the answer precise", range(need + 1, n)))
    for marker, fill, edge, said, places in kinds:
        if len(places):
            across = np.asarray(places)
            axes.scatter(
                across % 20,
                -(across // 20),
                s=220,
                marker=marker,
                color=fill,
                edgecolor=edge,
                linewidth=2,
                label=said,
            )
    if n < need:
        missing = np.arange(n, need)
        axes.scatter(
            missing % 20, -(missing // 20), s=220, marker="x", color=GREY, label=f"{need - n} are missing"
        )
    last = max(n, need) - 1
    axes.set_xlim(-1, min(last, 19) + 1)
    axes.set_ylim(-(last // 20) - 0.8, 0.8)
    axes.set_axis_off()
    name = next(iter(model.variables))
    axes.set_title(f"Draws: {name}, one mechanism repeated {n} times in each row", fontsize=11)
    axes.figure.legend(loc="outside lower center", ncols=3, frameon=False)
