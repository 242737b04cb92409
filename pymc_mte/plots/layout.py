"""Where the boxes of a graph stand and how its arrows go round them. Lengths in inches."""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pymc_mte.hierarchy import LATENT
from pymc_mte.model import CausalModel

Array = NDArray[np.float64]

FONT = 10.0
"""Points; also what boxes are measured for."""

LINE = 16
"""Characters after which a name is broken."""

MAX_LINES = 3
PAD = 0.12
"""Between a name and its box."""

GAP = 0.95
"""Between boxes side by side, so that an arrow has room."""

STEP = 0.36
"""Between boxes above each other."""

ROW = 5
"""Boxes beside each other, at most."""

BENDS = (0.0, 0.12, -0.12, 0.25, -0.25, 0.4, -0.4, 0.6, -0.6)


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle by its centre, width and height."""

    x: float
    y: float
    width: float
    height: float

    def sides(self) -> Array:
        """Return the middles of the four sides: shape (4, 2)."""
        w, h = self.width / 2, self.height / 2
        x, y = self.x, self.y
        return np.array([[x + w, y], [x - w, y], [x, y + h], [x, y - h]])

    def holds(self, points: Array, margin: float) -> NDArray[np.bool_]:
        """Return which points (..., 2) lie inside the box widened by a margin."""
        inside: NDArray[np.bool_] = (np.abs(points[..., 0] - self.x) < self.width / 2 + margin) & (
            np.abs(points[..., 1] - self.y) < self.height / 2 + margin
        )
        return inside


@dataclass(frozen=True, slots=True)
class Arrow:
    """An arrow between two points, bent by a share of its length."""

    start: tuple[float, float]
    end: tuple[float, float]
    bend: float


def broken(name: str) -> str:
    """Break a long name into lines, after spaces, underscores, dots and hyphens where it has them."""
    lines = [""]
    for part in re.findall(r"[^\s_.-]*[\s_.-]*", name):
        for piece in re.findall(f".{{1,{LINE}}}", part):
            if len(lines[-1]) + len(piece.rstrip()) > LINE:
                lines.append("")
            lines[-1] += piece
    lines = [line.strip() for line in lines if line.strip()] or [name]
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES - 1], lines[MAX_LINES - 1][: LINE - 1] + "…"]
    return "\n".join(lines)


def place(model: CausalModel) -> dict[str, Box]:
    """Give every variable, and the latent class if there is one, its box.

    Roles decide the place: treatment proxies left, outcome proxies right, the latent class above
    treatment and outcome. Without proxies variables stand in layers, parents above their children.
    """
    names = [*model.variables, *([LATENT] if model.classes > 1 else [])]
    size = {name: _measure(broken(name)) for name in names}
    if model.treatment_proxies or model.outcome_proxies:
        centre = _by_roles(model, size)
    elif LATENT in size and not model.graph.edges and len(model.variables) > ROW:
        centre = _around(model, size)
    else:
        centre = _layers(model, size)
    left = min(x - size[n][0] / 2 for n, (x, _) in centre.items())
    low = min(y - size[n][1] / 2 for n, (_, y) in centre.items())
    return {n: Box(x - left, y - low, *size[n]) for n, (x, y) in centre.items()}


def _measure(text: str) -> tuple[float, float]:
    from matplotlib.textpath import TextPath

    lines = text.replace("$", "S").split("\n")
    width = max(TextPath((0, 0), line, size=FONT).get_extents().width for line in lines) / 72
    return max(width, 0.25) + 2 * PAD, len(lines) * FONT * 1.25 / 72 + 2 * PAD


def _column(names: list[str], x: float, middle: float, step: float) -> dict[str, tuple[float, float]]:
    return {n: (x, middle + step * ((len(names) - 1) / 2 - i)) for i, n in enumerate(names)}


def _row(names: list[str], y: float, size: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Stand names beside each other, centred at zero."""
    step = max(size[n][0] for n in names) + GAP * 0.6
    return {n: (step * (i - (len(names) - 1) / 2), y) for i, n in enumerate(names)}


def _by_roles(model: CausalModel, size: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    t, y = str(model.treatment), str(model.outcome)
    left, right = list(model.treatment_proxies), list(model.outcome_proxies)
    rest = [n for n in model.variables if n not in (t, y, *left, *right)]
    step = max(height for _, height in size.values()) + STEP
    top = max((max(len(left), len(right)) - 1) * step + step, 2.0)
    half = max((size[t][0] + size[y][0]) / 4 + GAP * 0.7, 1.0)
    centre = {t: (-half, 0.0), y: (half, 0.0)}
    if LATENT in size:
        centre[LATENT] = (0.0, top)
    middle = top / 2 if top > 2 else top * 0.55
    for names, sign, near in ((left, -1, t), (right, 1, y)):
        if names:
            x = half + size[near][0] / 2 + GAP + max(size[n][0] for n in names) / 2
            centre |= _column(names, sign * x, middle, step)
    for i in range(0, len(rest), ROW - 1):
        centre |= _row(rest[i : i + ROW - 1], -1.4 * step * (1 + i // (ROW - 1)), size)
    return centre


def _around(model: CausalModel, size: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Two columns with the latent class between them."""
    names = list(model.variables)
    half = (len(names) + 1) // 2
    step = max(size[n][1] for n in names) + STEP
    x = size[LATENT][0] / 2 + 1.5 * GAP + max(size[n][0] for n in names) / 2
    return _column(names[:half], -x, 0.0, step) | _column(names[half:], x, 0.0, step) | {LATENT: (0.0, 0.0)}


def _layers(model: CausalModel, size: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Parents above their children, the latent class on top."""
    depth: dict[str, int] = {}
    for name in model.order:
        depth[name] = 1 + max((depth[p] for p in model.variables[name].all_parents), default=-1)
    rows = [[LATENT]] if LATENT in size else []
    for layer in range(max(depth.values()) + 1):
        names = [n for n in model.variables if depth[n] == layer]
        rows += [names[i : i + ROW] for i in range(0, len(names), ROW)]
    step = max(height for _, height in size.values()) + 2 * STEP
    out: dict[str, tuple[float, float]] = {}
    for i, names in enumerate(rows):
        aside = 0.5 * (-1) ** i if i and len(names) == 1 else 0.0  # else arrows of a chain lie on each other
        out |= {n: (x + aside, y) for n, (x, y) in _row(names, -step * i, size).items()}
    return out


def route(start: Box, end: Box, others: list[Box]) -> Arrow:
    """Find the shortest arrow, bent if need be, that passes through no box."""
    a, b = (side.reshape(-1, 2) for side in (start.sides(), end.sides()))
    first, last, bend = (
        axis.ravel() for axis in np.meshgrid(range(len(a)), range(len(b)), BENDS, indexing="ij")
    )
    begin, stop = a[first.astype(int)], b[last.astype(int)]
    across = stop - begin
    control = (begin + stop) / 2 + bend[:, None] * across[:, ::-1] * np.array([1, -1])
    s = np.linspace(0, 1, 41)[:, None, None]
    path = (1 - s) ** 2 * begin + 2 * s * (1 - s) * control + s**2 * stop
    margins = [(box, 0.07) for box in others] + [(start, -0.005), (end, -0.005)]
    hits = np.sum([box.holds(path, margin).sum(axis=0) for box, margin in margins], axis=0)
    cost = 10.0 * hits + np.hypot(*across.T) + 3 * np.abs(bend)
    best = int(np.argmin(cost))
    (x0, y0), (x1, y1) = begin[best].tolist(), stop[best].tolist()
    return Arrow((x0, y0), (x1, y1), float(bend[best]))
