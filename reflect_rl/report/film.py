"""An episode as a strip of scenes."""

import textwrap

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.base import Drawing
from reflect_rl.report.style import FAINT, INK, STYLE

CARD_LINES = 17  # of text on a card
GAP, LINE = 0.22, 0.115  # inches: the space between two scenes, a line of a caption


def draw_text(axis: Axes, observation: str) -> None:
    """A card with the text of an observation, each of its lines wrapped; of a long one its end, which dots tell."""
    lines = [part for text in observation.splitlines() for part in textwrap.wrap(text, 38, subsequent_indent="  ")]
    if len(lines) > CARD_LINES:
        lines = ["...", *lines[1 - CARD_LINES :]]
    axis.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1))
    axis.spines[:].set(visible=True, color=FAINT)
    for i, line in enumerate(lines):  # each for itself, or lines with descenders stand farther apart
        axis.text(0.03, 0.94 - i * 0.9 / (CARD_LINES - 1), line, va="baseline", fontsize=6, color=INK)


CARDS = Drawing(draw_text, width=2.2, per_row=5, caption_width=38)


@matplotlib.rc_context(STYLE)
def film_strip(frames: list[dict], title: str, drawing: Drawing | None = None) -> Figure:
    """An episode as a strip of scenes, each with the reflection on it and the action then taken.

    `frames` hold `observation`, `reflection`, `action` (empty at the end) and `reward`; `drawing` is the environment's
    (`EnvSpec.load_draw`), without one observations are set as text. Raises `ReflectRLError` where there are no frames.
    """
    if not frames:
        raise ReflectRLError("no frames to draw; give at least the first observation of an episode")
    drawing = drawing or CARDS
    width, letters = drawing.width, drawing.caption_width
    num_rows = -(-len(frames) // drawing.per_row)
    num_columns = -(-len(frames) // num_rows)
    said = [textwrap.wrap(frame["reflection"], letters) for frame in frames]
    done = [textwrap.wrap(_action(frame), letters - 4, subsequent_indent="    ") for frame in frames]
    rows = [range(len(frames))[start : start + num_columns] for start in range(0, len(frames), num_columns)]
    heights = [width + 0.4 + LINE * max(len(said[i]) + len(done[i]) for i in row) for row in rows]
    figure_width = max(num_columns * (width + GAP) + GAP, 6.9)
    figure_height = 0.4 + sum(heights) + (0.42 if drawing.draw_legend else 0.0)
    figure = Figure(figsize=(figure_width, figure_height))

    def write(x: float, y: float, text: str, **style) -> None:
        figure.text(x / figure_width, y / figure_height, text, va="top", color=INK, linespacing=1.25, **style)

    def panel(x: float, y: float, w: float, h: float) -> Axes:
        return figure.add_axes((x / figure_width, y / figure_height, w / figure_width, h / figure_height))

    size = min(10.0, 115 * (figure_width - 2 * GAP) / max(len(title), 1))  # points: a long one is written smaller
    write(GAP, figure_height - 0.12, title, fontsize=size, fontweight="bold")
    top = figure_height - 0.4
    for row, height in zip(rows, heights, strict=True):
        for column, i in enumerate(row):
            left, bottom = GAP + column * (width + GAP), top - 0.17 - width
            write(left, top, f"step {i}" if frames[i]["action"] else "end", fontsize=7, fontweight="bold")
            drawing.draw(panel(left, bottom, width, width), frames[i]["observation"])
            write(left, bottom - 0.06, "\n".join(said[i]), fontsize=6.3, fontstyle="italic")
            write(left, bottom - 0.1 - LINE * len(said[i]), "\n".join(done[i]), fontsize=7, fontweight="bold")
        top -= height
    if drawing.draw_legend:
        drawing.draw_legend(panel(GAP, 0.06, 6.5, 0.3))
    return figure


def _action(frame: dict) -> str:
    """What was done in a frame and what it earned; empty for the last one."""
    reward = f"{frame['reward']:+.2f}".replace("-", "−")
    return f"→ {frame['action']}  ({reward})" if frame["action"] else ""
