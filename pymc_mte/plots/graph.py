"""The causal graph with its roles and the edges that cost the next level: one figure."""

import textwrap
from typing import TYPE_CHECKING, Any

from pymc_mte.hierarchy import LATENT, MEANING, Hierarchy, hierarchy
from pymc_mte.identify.identification import Identification
from pymc_mte.identify.mixtures import moment_route
from pymc_mte.model import CausalModel
from pymc_mte.moments.classes import lacks_proxies
from pymc_mte.plots.layout import FONT, Box, broken, place, route
from pymc_mte.plots.said import model_in, plain_text, several

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES: dict[str, dict[str, Any]] = {
    "treatment": {"facecolor": "#0072B2", "edgecolor": "#0072B2"},
    "outcome": {"facecolor": "#007A59", "edgecolor": "#007A59"},
    "treatment proxy": {"facecolor": "#D9EBF5", "edgecolor": "#0072B2"},
    "outcome proxy": {"facecolor": "#D9F2EA", "edgecolor": "#007A59"},
    "variable": {"facecolor": "white", "edgecolor": "0.35"},
    LATENT: {"facecolor": "white", "edgecolor": "0.35", "linestyle": "--"},
}
"""Filled where the question is, square on the treatment's side, round on the outcome's."""

SHAPES = {"outcome": "round,pad=0,rounding_size=0.16", "outcome proxy": "round,pad=0,rounding_size=0.16"}
SQUARE = "square,pad=0"

WORDS = {
    "treatment": "treatment",
    "outcome": "outcome",
    "treatment proxy": "treatment proxy: never causes the outcome",
    "outcome proxy": "outcome proxy: never caused by the treatment",
    "variable": "observed variable",
    LATENT: "latent class: hidden",
}

EDGE: dict[str, Any] = {"color": "0.15", "linewidth": 1.5}
COSTING: dict[str, Any] = {"color": "#D55E00", "linewidth": 3.0}
HIDDEN: dict[str, Any] = {"color": "0.72", "linewidth": 1.0}

MARGIN = 0.3
COLUMN = 46
"""Characters of one line of the legend."""

LINE = 0.22
"""Inches that one line of text takes."""


def plot_graph(model: CausalModel | Identification) -> "Figure":
    """Draw the causal graph with its roles, and in orange the edges that cost the next level.

    Parameters
    ----------
    model : CausalModel or Identification
        The model, or the answer of `identify` about it.

    Returns
    -------
    matplotlib Figure
        Treatment proxies left, outcome proxies right, the latent class dashed above treatment and outcome
        with its arrows in light grey. A model without proxies is drawn in layers, parents above
        children. The legend says in words what each shape and arrow means.

    Raises
    ------
    ModelError
        If something else than a model or an identification is given.

    Examples
    --------
    >>> from pymc_mte import load_model
    >>> figure = plot_graph(load_model("gallery:level4"))
    >>> [text.get_text() for text in figure.legends[0].get_texts()][-1]
    'costs the next level: without x → y it is MTE'
    """
    from matplotlib.figure import Figure

    described = model_in("plot_graph", model)
    reached = _reached(described)
    boxes = place(described)
    width = max(max(b.x + b.width / 2 for b in boxes.values()) + 2 * MARGIN, 8.0)
    height = max(b.y + b.height / 2 for b in boxes.values())
    head = _head(described, reached, width)
    handles = _legend(described, reached)
    rows = sum(1 + label.count("\n") for _, label in handles)
    foot, top = LINE * (rows + 1) / 2 + 0.45, LINE * len(head) + 0.3
    total = foot + height + top + MARGIN
    figure = Figure(figsize=(width, total))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, width), ylim=(0, total))
    axes.set_axis_off()
    shift = (width - max(b.x + b.width / 2 for b in boxes.values())) / 2
    boxes = {n: Box(b.x + shift, b.y + foot, b.width, b.height) for n, b in boxes.items()}
    _arrows(axes, described, reached, boxes)
    for name, box in boxes.items():
        _box(axes, name, _role(described, name), box)
    for i, line in enumerate(head):
        y = total - 0.25 - LINE * i
        axes.text(width / 2, y, line, ha="center", va="center", fontsize=FONT + 1 * (i == 0), gid="head")
    figure.legend(
        [handle for handle, _ in handles],
        [label for _, label in handles],
        loc="lower center",
        ncols=2,
        frameon=False,
        fontsize=FONT - 1,
    )
    plain_text(figure)
    return figure


def _reached(model: CausalModel) -> Hierarchy:
    """Level by moments; without proxies by what takes mixtures of coins, products and networks apart."""
    by_plan = model.interventions is None and lacks_proxies(model)
    return moment_route(model).graph if by_plan else hierarchy(model)


def _role(model: CausalModel, name: str) -> str:
    roles = {str(model.treatment): "treatment", str(model.outcome): "outcome", LATENT: LATENT}
    roles |= dict.fromkeys(model.treatment_proxies, "treatment proxy")
    roles |= dict.fromkeys(model.outcome_proxies, "outcome proxy")
    return roles.get(name, "variable")


def _head(model: CausalModel, reached: Hierarchy, width: float) -> list[str]:
    """Say what is asked, with how many classes, and what the graph reaches."""
    classes = f"{model.classes} hidden classes" if model.classes > 1 else "no hidden class"
    if model.treatment is None:
        out = [f"{len(model.variables)} observed variables, {classes}"]
    else:
        out = [f"Effect of {model.treatment} on {model.outcome}, {classes}"]
        out += [f"By moments the graph reaches {MEANING[reached.level]}."]
    if given := (*model.covariates, *model.strata):
        out += [f"All of this is meant given {several(given)} (not drawn)."]
    per_line = int(width * 13)
    return [piece for line in out for piece in textwrap.wrap(line, per_line)]


def _arrows(axes: "Axes", model: CausalModel, reached: Hierarchy, boxes: dict[str, Box]) -> None:
    edges = [(LATENT, n) for n, var in model.variables.items() if var.latent and LATENT in boxes]
    for a, b in [*edges, *model.graph.edges]:
        others = [box for name, box in boxes.items() if name not in (a, b)]
        if a == LATENT:
            style, depth = HIDDEN, 1.0
        else:
            style, depth = (COSTING, 3.0) if (a, b) in reached.costing else (EDGE, 2.0)
        _arrow(axes, boxes[a], boxes[b], others, style, depth)


def _arrow(
    axes: "Axes", start: Box, end: Box, others: list[Box], style: dict[str, Any], depth: float
) -> None:
    from matplotlib.patches import FancyArrowPatch

    way = route(start, end, others)
    axes.add_patch(
        FancyArrowPatch(
            way.start,
            way.end,
            arrowstyle="-|>",
            mutation_scale=11 + 2 * style["linewidth"],
            connectionstyle=f"arc3,rad={way.bend}",
            shrinkA=0,
            shrinkB=0,
            zorder=depth,
            **style,
        )
    )


def _box(axes: "Axes", name: str, role: str, box: Box) -> None:
    from matplotlib.patches import Ellipse, FancyBboxPatch, Patch

    style = STYLES[role] | {"linewidth": 1.5, "zorder": 4}
    corner = (box.x - box.width / 2, box.y - box.height / 2)
    shape: Patch
    if role == LATENT:
        shape = Ellipse((box.x, box.y), box.width, box.height, **style)
    else:
        shape = FancyBboxPatch(corner, box.width, box.height, boxstyle=SHAPES.get(role, SQUARE), **style)
    axes.add_patch(shape)
    axes.text(
        box.x,
        box.y,
        broken(name),
        ha="center",
        va="center",
        fontsize=FONT,
        color="white" if role in ("treatment", "outcome") else "black",
        zorder=5,
    )


def _legend(model: CausalModel, reached: Hierarchy) -> list[tuple["Artist", str]]:
    """Pair what is drawn with its words."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    drawn = {_role(model, name) for name in model.variables} | ({LATENT} if model.classes > 1 else set())
    out: list[tuple[Artist, str]] = []
    for role, style in STYLES.items():
        if role in drawn:
            out.append((Patch(**style), WORDS[role]))
    if model.classes > 1:
        out.append((Line2D([], [], **HIDDEN), "effect of the latent class"))
    if set(model.graph.edges) - set(reached.costing):
        out.append((Line2D([], [], **EDGE), "cause among observed variables"))
    if reached.costing:
        edges = " and ".join(f"{a} → {b}" for a, b in reached.costing)
        words = f"costs the next level: without {edges} it is {reached.without}"
        out.append((Line2D([], [], **COSTING), textwrap.fill(words, COLUMN)))
    return out
