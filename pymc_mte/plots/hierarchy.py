"""The hierarchy of what moments reach, with the model's place in it: one figure."""

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pymc_mte.errors import ModelError
from pymc_mte.hierarchy import LADDER, MEANING, Hierarchy, Independence, LevelName, failing, hierarchy
from pymc_mte.identify.identification import Identification
from pymc_mte.model import CausalModel
from pymc_mte.plots.said import model_in, plain_text, several

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HERE: dict[str, Any] = {"facecolor": "#0072B2", "edgecolor": "#0072B2"}
BELOW: dict[str, Any] = {"facecolor": "#D9EBF5", "edgecolor": "#0072B2"}
ABOVE: dict[str, Any] = {"facecolor": "white", "edgecolor": "0.55", "linestyle": "--"}
FAILS = "#B34700"

WIDTH, LEFT, RIGHT = 9.5, 0.75, 9.3
LINE, BETWEEN, FONT, CHARACTERS = 0.21, 0.28, 10.0, 100
"""Inches between lines and between rungs, points, and characters of a line."""

FOOT = (
    "Each rung answers all that lower ones do, and rests on more. "
    "A likelihood may identify more than moments reach."
)


def plot_hierarchy(model: CausalModel | Identification) -> "Figure":
    """Draw the four levels of the hierarchy as a ladder, and mark the one that the graph reaches.

    Parameters
    ----------
    model : CausalModel or Identification
        A model with treatment and outcome, or the answer of `identify` about it.

    Returns
    -------
    matplotlib Figure
        One rung per level with what it answers, ATE at the foot. The model's rung is filled and says
        what it rests on; the next one says which independence the graph does not grant.

    Raises
    ------
    ModelError
        If something else is given, or a model without treatment.

    Examples
    --------
    >>> from pymc_mte import load_model
    >>> figure = plot_hierarchy(load_model("gallery:level4"))
    >>> [text.get_text() for text in figure.axes[0].texts if "Fails" in text.get_text()]
    ['Fails: x independent of y given latent class (because of x → y).']
    """
    from matplotlib.figure import Figure

    described = model_in("plot_hierarchy", model)
    if described.treatment is None:
        raise ModelError(
            "plot_hierarchy: the levels are about effects and this model names no treatment; give it a "
            "treatment and an outcome, or draw it with `plot_graph`"
        )
    rungs = _rungs(described)
    total = 1.3 + sum(rung.height + BETWEEN for rung in rungs)
    figure = Figure(figsize=(WIDTH, total))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, WIDTH), ylim=(0, total))
    axes.set_axis_off()
    title = f"What moments can answer about the effect of {described.treatment} on {described.outcome}"
    axes.text(WIDTH / 2, total - 0.3, title, ha="center", va="center", fontsize=FONT + 1)
    axes.text(WIDTH / 2, 0.22, FOOT, ha="center", va="center", fontsize=FONT - 1.5)
    y, low = total - 0.6, 0.45
    for x in (LEFT + 0.2, RIGHT - 0.2):
        axes.plot([x, x], [low, y], color="0.75", linewidth=5, zorder=0)
    arrow = {"arrowstyle": "-|>", "color": "0.35", "linewidth": 1.5}
    axes.annotate("", (0.5, y), (0.5, low), arrowprops=arrow)
    middle = (y + low) / 2
    axes.text(0.25, middle, "answers more, rests on more", rotation=90, va="center", ha="center", fontsize=9)
    y -= BETWEEN / 2
    for rung in rungs:
        y -= rung.height
        _draw(axes, y, rung)
        y -= BETWEEN
    plain_text(figure)
    return figure


@dataclass(frozen=True, slots=True)
class Rung:
    """One level: its look, what it says, and the line from which it says what fails."""

    level: LevelName
    style: dict[str, Any]
    lines: tuple[str, ...]
    fails: int

    @property
    def height(self) -> float:
        """Inches."""
        return max(len(self.lines), 2) * LINE + 0.3


def _rungs(model: CausalModel) -> list[Rung]:
    """Return the ladder from the top down."""
    reached = hierarchy(model)
    place = LADDER.index(reached.level) if reached.level in LADDER else -1
    out = []
    for i, level in reversed(list(enumerate(LADDER))):
        meaning = MEANING[level]
        lines = textwrap.wrap(meaning[0].upper() + meaning[1:] + ".", CHARACTERS)
        fails = len(lines)
        if i == place:
            said = "; ".join(_words(item) for item in reached.needed)
            lines += textwrap.wrap(f"Rests on: {said or 'no hidden class'}.", CHARACTERS)
        elif i == place + 1:
            lines += textwrap.wrap(f"Fails: {_failure(model, reached, level)}.", CHARACTERS)
        style = HERE if i == place else BELOW if i < place else ABOVE
        out.append(Rung(level, style, tuple(lines), fails if i == place + 1 else len(lines)))
    return out


def _failure(model: CausalModel, reached: Hierarchy, level: LevelName) -> str:
    """Say what the graph does not grant, and because of which edges."""
    if level == "HTE":
        return f"no hidden class (the model has {model.classes})"
    if not model.treatment_proxies or not model.outcome_proxies:
        side = "treatment" if not model.treatment_proxies else "outcome"
        return f"proxies on both sides (there is none on the {side}'s side)"
    said = "; ".join(_words(item) for item in failing(model, level))
    edges = " and ".join(f"{a} → {b}" for a, b in reached.costing)
    return f"{said} (because of {edges})" if edges else said


def _words(item: Independence) -> str:
    left, right, given = (several(sorted(names)) for names in (item.left, item.right, item.given))
    return f"{left} independent of {right} given {given}"


def _draw(axes: "Axes", y: float, rung: Rung) -> None:
    """Draw one rung with its lower edge at y."""
    from matplotlib.patches import FancyBboxPatch

    height, middle = rung.height, y + rung.height / 2
    shape = "round,pad=0,rounding_size=0.08"
    axes.add_patch(
        FancyBboxPatch((LEFT, y), RIGHT - LEFT, height, boxstyle=shape, linewidth=1.5, **rung.style)
    )
    ink = "white" if rung.style is HERE else "black" if rung.style is BELOW else "0.3"
    name = rung.level + ("\nthis model" if rung.style is HERE else "")
    axes.text(LEFT + 0.15, middle, name, color=ink, fontsize=FONT + 1, weight="bold", va="center")
    for i, line in enumerate(rung.lines):
        place = middle + LINE * ((len(rung.lines) - 1) / 2 - i)
        colour = FAILS if i >= rung.fails else ink
        axes.text(LEFT + 1.4, place, line, color=colour, fontsize=FONT - 0.5, va="center")
