"""Pictures of DangerousTaxi's grid."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyBboxPatch, Patch, Rectangle, RegularPolygon, Wedge
from matplotlib.transforms import Affine2D

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.base import Drawing

INK = "#333333"
SOLID = {"facecolor": INK, "linewidth": 0}
LANDMARK_COLOURS = {"R": "#d1495b", "G": "#2e8b57", "Y": "#d9a400", "B": "#2f6fb0"}


def _taxi(colour: str) -> list[Patch]:
    style = {"boxstyle": "round,pad=0,rounding_size=0.09", "facecolor": colour, "edgecolor": INK, "linewidth": 0.9}
    boxes = [FancyBboxPatch((0.3, 0.49), 0.4, 0.25, **style), FancyBboxPatch((0.14, 0.65), 0.72, 0.2, **style)]
    return boxes + [Circle((x, 0.85), 0.085, **SOLID) for x in (0.31, 0.69)]


def _person(colour: str) -> list[Patch]:
    style = {"facecolor": colour, "edgecolor": INK, "linewidth": 0.7}
    return [Wedge((0.73, 0.42), 0.17, 180, 360, **style), Circle((0.73, 0.16), 0.09, **style)]


#: What the symbols of a taxi grid mean (the legend in `spec`), and how each looks in a cell of 1 x 1.
GLYPHS = {
    "t": ("taxi, empty", lambda: _taxi("white")),
    "T": ("taxi, passenger aboard", lambda: [*_taxi("#f2c230"), Circle((0.5, 0.6), 0.065, **SOLID)]),
    "w": ("passenger waits", lambda: _person(INK)),
    "s": ("set down before", lambda: _person("white")),
    "d": ("destination", lambda: [Rectangle((0.6, 0.08), *size, **SOLID) for size in ((0.04, 0.37), (0.29, 0.19))]),
    "*": (
        "delivered",
        lambda: [RegularPolygon((0.72, 0.23), 3, radius=0.18, orientation=a, **SOLID) for a in (0, np.pi)],
    ),
}


def draw(axis: Axes, observation: str) -> None:
    """A grid (`env.grid`): cells of three characters (taxi, landmark, tag), walls between them as `|`."""
    lines = observation.splitlines()
    if [(len(line), line[:1]) for line in lines] != [(25, "|")] * 5:
        raise ReflectRLError(f"not a taxi grid: {observation[:40]!r}; give the observation of DangerousTaxi")
    axis.set(xlim=(-0.06, 5.06), ylim=(5.06, -0.06), aspect="equal")
    axis.axis("off")
    for i, line in enumerate(lines):
        for j in range(5):
            occupant, place, tag = line[1 + 5 * j : 4 + 5 * j]
            axis.add_patch(Rectangle((j, i), 1, 1, facecolor="white", edgecolor="#e2e2e2", linewidth=0.5))
            if colour := LANDMARK_COLOURS.get(place):
                axis.add_patch(Rectangle((j, i), 1, 1, facecolor=colour, alpha=0.25, linewidth=0))
                axis.text(j + 0.22, i + 0.22, place, color=colour, size=6, weight="bold", ha="center", va="center")
            _draw_glyph(axis, tag, j, i)
            _draw_glyph(axis, occupant, j, i)
            if line[4 + 5 * j] == "|" and j < 4:
                axis.plot([j + 1, j + 1], [i, i + 1], color=INK, linewidth=2.2, solid_capstyle="butt", zorder=4)
    axis.add_patch(Rectangle((0, 0), 5, 5, fill=False, edgecolor=INK, linewidth=1.6, zorder=4))


def draw_legend(axis: Axes) -> None:
    """What the symbols mean, side by side, and how an action is written below a scene."""
    axis.set(xlim=(0, 30), ylim=(1, 0), aspect="equal", anchor="W")
    axis.axis("off")
    widths = (3.8, 6.0, 4.6, 4.6, 3.8, 3.5)
    for x, (symbol, (meaning, _)) in zip(np.cumsum((0, *widths[:-1])), GLYPHS.items(), strict=True):
        _draw_glyph(axis, symbol, x, -0.15 if symbol in "tT" else 0.22)
        axis.text(x + 1.1, 0.5, meaning, fontsize=6, color=INK, va="center")
    axis.text(sum(widths), 0.5, "→ action (reward)", fontsize=6, color=INK, va="center")


def _draw_glyph(axis: Axes, symbol: str, x: float, y: float) -> None:
    """One symbol of `GLYPHS` in the cell whose upper left corner is `(x, y)`; a dot draws nothing."""
    for patch in GLYPHS[symbol][1]() if symbol in GLYPHS else ():
        patch.set(zorder=3, transform=Affine2D().translate(x, y) + axis.transData)
        axis.add_patch(patch)


DRAWING = Drawing(draw, draw_legend)
