"""Pictures of DangerousTaxi's grid."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyBboxPatch, Rectangle, RegularPolygon, Wedge

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.base import Drawing

INK = "#333333"
LANDMARK_COLOURS = {"R": "#d1495b", "G": "#2e8b57", "Y": "#d9a400", "B": "#2f6fb0"}
#: What the symbols of a taxi grid mean (the legend in `spec`), each drawn by `_draw_glyph`.
GLYPHS = {
    "t": "taxi, empty",
    "T": "taxi, passenger aboard",
    "w": "passenger waits",
    "s": "set down before",
    "d": "destination",
    "*": "delivered",
}


def draw(axis: Axes, observation: str) -> None:
    """A grid (`env.grid`): cells of three characters (taxi, landmark, tag), walls between them as `|`."""
    lines = observation.splitlines()
    num_columns = len(lines[0]) // 5 if lines else 0
    if not lines or any(len(line) != 5 * num_columns or line[0] != "|" for line in lines):
        raise ReflectRLError(f"not a taxi grid: {observation[:40]!r}; give the observation of DangerousTaxi")
    axis.set(xlim=(-0.06, num_columns + 0.06), ylim=(len(lines) + 0.06, -0.06), aspect="equal")
    axis.axis("off")
    for i, line in enumerate(lines):
        for j in range(num_columns):
            occupant, place, tag = line[1 + 5 * j : 4 + 5 * j]
            colour = LANDMARK_COLOURS.get(place)
            axis.add_patch(Rectangle((j, i), 1, 1, facecolor="white", edgecolor="#e2e2e2", linewidth=0.5))
            if colour:
                axis.add_patch(Rectangle((j, i), 1, 1, facecolor=colour, alpha=0.25, linewidth=0))
                axis.text(
                    j + 0.22,
                    i + 0.22,
                    place,
                    color=colour,
                    fontsize=6,
                    fontweight="bold",
                    ha="center",
                    va="center",
                )
            _draw_glyph(axis, tag, j, i)
            _draw_glyph(axis, occupant, j, i)
            if line[4 + 5 * j] == "|" and j < num_columns - 1:
                axis.plot([j + 1, j + 1], [i, i + 1], color=INK, linewidth=2.2, solid_capstyle="butt", zorder=4)
    axis.add_patch(Rectangle((0, 0), num_columns, len(lines), fill=False, edgecolor=INK, linewidth=1.6, zorder=4))


def draw_legend(axis: Axes) -> None:
    """What the symbols mean, side by side, and how an action is written below a scene."""
    axis.set(xlim=(0, 30), ylim=(1, 0), aspect="equal", anchor="W")
    axis.axis("off")
    widths = (3.8, 6.0, 4.6, 4.6, 3.8, 3.5)
    for x, (symbol, meaning) in zip(np.cumsum((0, *widths[:-1])), GLYPHS.items(), strict=True):
        _draw_glyph(axis, symbol, x, -0.15 if symbol in "tT" else 0.22)
        axis.text(x + 1.1, 0.5, meaning, fontsize=6, color=INK, va="center")
    axis.text(sum(widths), 0.5, "→ action (reward)", fontsize=6, color=INK, va="center")


def _draw_glyph(axis: Axes, symbol: str, x: float, y: float) -> None:
    """One symbol of `GLYPHS` in the cell whose upper left corner is `(x, y)`; a dot draws nothing."""
    if symbol in "tT":
        aboard = symbol == "T"
        body = {
            "facecolor": "#f2c230" if aboard else "white",
            "edgecolor": INK,
            "linewidth": 0.9,
            "zorder": 3,
        }
        shape = "round,pad=0,rounding_size=0.09"
        axis.add_patch(FancyBboxPatch((x + 0.3, y + 0.49), 0.4, 0.25, boxstyle=shape, **body))
        axis.add_patch(FancyBboxPatch((x + 0.14, y + 0.65), 0.72, 0.2, boxstyle=shape, **body))
        for wheel in (0.31, 0.69):
            axis.add_patch(Circle((x + wheel, y + 0.85), 0.085, facecolor=INK, linewidth=0, zorder=3))
        if aboard:
            axis.add_patch(Circle((x + 0.5, y + 0.6), 0.065, facecolor=INK, linewidth=0, zorder=3))
    elif symbol in "ws":
        face = INK if symbol == "w" else "white"
        person = {"facecolor": face, "edgecolor": INK, "linewidth": 0.7, "zorder": 3}
        axis.add_patch(Wedge((x + 0.73, y + 0.42), 0.17, 180, 360, **person))
        axis.add_patch(Circle((x + 0.73, y + 0.16), 0.09, **person))
    elif symbol == "d":
        axis.plot([x + 0.62, x + 0.62], [y + 0.08, y + 0.45], color=INK, linewidth=0.9, zorder=3)
        flag = {"facecolor": INK, "linewidth": 0, "zorder": 3}
        axis.add_patch(Rectangle((x + 0.62, y + 0.08), 0.27, 0.19, **flag))
    elif symbol == "*":
        star = {"facecolor": INK, "linewidth": 0, "zorder": 3}
        axis.add_patch(RegularPolygon((x + 0.72, y + 0.23), 3, radius=0.18, **star))
        axis.add_patch(RegularPolygon((x + 0.72, y + 0.23), 3, radius=0.18, orientation=np.pi, **star))


DRAWING = Drawing(draw, draw_legend)
