"""Pictures of a walk through a repository.

Scenes: the way to where the player stands, what is there, and in a box what was read last, or before that the question.
Whole walks: the repository's tree, and at each step the folder or file that the player went to, read or named.
"""

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Rectangle

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.autoexplore.env import Question
from reflect_rl.envs.autoexplore.repository import joined, parent
from reflect_rl.envs.base import Drawing

INK, FAINT, READ = "#333333", "#b5b5b5", "#e8f0f7"
FOLDER = {"": "#f2c230", "been": "#f7e3a1", "twice": "#f7e3a1", "done": "#e6e6e6"}  # by its mark
SCENE = re.compile(
    r"Read: (?P<read>.*)\n(?:Shows: (?P<shows>.*)\n)?Question: (?P<question>.*)\n"
    r"At: (?P<at>.*)\nFolders: (?P<folders>.*)\nFiles: (?P<files>.*)"
)
FOLDERS = re.compile(r"(?:(?P<mark>been|twice|done) )?(?P<name>.*)")
FILES = re.compile(r"(?:(?P<mark>read) )?\S+ (?P<name>.*)")  # with their type
ROWS, BOX, LETTERS = 16, 6, 38  # lines of a scene, those of its box at most, and letters in one
WIDTH = 0.058  # of a folder's or file's sign


def draw(axis: Axes, observation: str) -> None:
    """The observation of an AutoExplore environment; a long list is cut, which dots tell."""
    scene, at = _scene(observation)
    axis.set(xlim=(0, 1), ylim=(ROWS, 0), xticks=[], yticks=[])
    axis.spines[:].set(visible=True, color=FAINT)
    _line(axis, 0, " / ".join(["top", *filter(None, at.split("/"))]), weight="bold")
    title, said = f"Last read: {scene['read'].rpartition('/')[2]}", scene["shows"]
    if said is None:  # nothing was read yet
        title, said = "What is asked", scene["question"]
    box = textwrap.wrap(said, LETTERS, max_lines=BOX, placeholder=" ...")
    listed = [(name, True) for name in _listed(scene["folders"])] + [(name, False) for name in _listed(scene["files"])]
    room = ROWS - len(box) - 4
    for row, (item, is_folder) in enumerate(listed[:room], start=1):
        if row == room and len(listed) > room:
            hidden = listed[row - 1 :]
            read = sum(not is_folder and item.startswith("read ") for item, is_folder in hidden)
            _line(axis, row, f"... and {len(hidden)} more{f', {read} read' if read else ''}", color=FAINT)
            break
        name, mark = (FOLDERS if is_folder else FILES).fullmatch(item).group("name", "mark")
        (_folder if is_folder else _page)(axis, row, mark or "")
        _line(axis, row, f"{name} ({mark})" if is_folder and mark else name, 0.12, FAINT if mark else INK)
    top = ROWS - len(box) - 1.6
    axis.add_patch(Rectangle((0.02, top), 0.96, len(box) + 1.4, facecolor=READ, linewidth=0))
    _line(axis, top + 0.15, title, 0.04, weight="bold")
    for i, text in enumerate(box, start=1):
        _line(axis, top + 0.15 + i, text, 0.04)


def _scene(observation: str) -> tuple[re.Match, str]:
    """The parts of an observation, and the path of the folder where the player stands."""
    scene = SCENE.match(observation)
    if scene is None:
        raise ReflectRLError(f"no scene of AutoExplore: {observation[:40]!r}; give the observation of its environment")
    at = scene["at"].removesuffix(" (again)")
    return scene, "" if at == "top" else at


def _listed(text: str) -> list[str]:
    return [] if text == "none" else text.split(", ")


def _line(axis: Axes, row: float, text: str, x: float = 0.03, color: str = INK, **style) -> None:
    short = text if len(text) <= LETTERS else f"{text[: LETTERS - 3]}..."
    axis.text(x, row + 0.55, short, va="center", fontsize=5.8, color=color, parse_math=False, **style)


def _folder(axis: Axes, row: float, mark: str) -> None:
    style = {
        "boxstyle": "round,pad=0,rounding_size=0.01",
        "facecolor": FOLDER[mark],
        "edgecolor": INK,
        "linewidth": 0.4,
    }
    axis.add_patch(FancyBboxPatch((0.04, row + 0.3), WIDTH, 0.55, **style))


def _page(axis: Axes, row: float, mark: str) -> None:
    axis.add_patch(
        Rectangle((0.047, row + 0.2), 0.043, 0.7, facecolor=READ if mark else "white", edgecolor=INK, linewidth=0.4)
    )


def draw_legend(axis: Axes) -> None:
    """What the signs mean."""
    axis.set(xlim=(0, 4), ylim=(1, 0))
    axis.axis("off")
    signs = [
        ("folder", FOLDER[""]),
        ("folder that was entered", FOLDER["been"]),
        ("nothing left in it", FOLDER["done"]),
    ]
    for x, (text, colour) in enumerate([*signs, ("file that was read", READ)]):
        axis.add_patch(Rectangle((x, 0.25), 0.07, 0.5, facecolor=colour, edgecolor=INK, linewidth=0.4))
        axis.text(x + 0.11, 0.52, text, va="center", fontsize=6.5, color=INK)


RIGHT, WRONG = "#009e73", "#d55e00"
SIGNS = {  # of a step of a walk
    "goes into the folder": {"marker": "s", "markerfacecolor": FOLDER[""], "markersize": 7},
    "reads the file": {"marker": "o", "markerfacecolor": "#56b4e9", "markersize": 6},
    "names it: the one that answers": {"marker": "*", "markerfacecolor": RIGHT, "markersize": 13},
    "names it: another": {"marker": "X", "markerfacecolor": WRONG, "markersize": 9},
}


def walks(axes: Sequence[Axes], question: Question, episodes: Sequence[Sequence[Mapping]], rows: int = 60) -> None:
    """Whole episodes of one question, each on its axes: across its steps, downwards the repository's tree, which all share and
    which is named on the first of them; the file that answers is green.

    Args:
        episodes: the frames of each, as of `evaluate.panels.frames`.
        rows: of the tree at most; of a larger one only the folders that were entered, and those of the file that answers,
            are shown with what is in them.
    """
    taken, names = [_taken(question, frames) for frames in episodes], question.target.split("/")
    entered = {"/".join(names[:i]) for i in range(len(names))}
    entered |= {path for steps in taken for path, sign in steps if sign == "goes into the folder"}
    tree = _tree(question, "", None)
    tree = tree if len(tree) <= rows else _tree(question, "", entered)
    place = {path: row for row, (path, _) in enumerate(tree)}
    for number, (axis, steps) in enumerate(zip(axes, taken, strict=True)):
        span, left = max(len(steps), 6), 0.04 if number else 0.77
        if number == 0:
            _name_rows(axis, question, tree, span)
        done = [(step, place[path], sign) for step, (path, sign) in enumerate(steps, start=1) if path in place]
        axis.plot([0, *(x for x, _, _ in done)], [0, *(y for _, y, _ in done)], color=FAINT, linewidth=1, zorder=1)
        for step, row, sign in done:
            axis.plot(step, row, linestyle="", markeredgecolor=INK, markeredgewidth=0.5, **SIGNS[sign])
        axis.set(xlim=(-left * span, 1.03 * span + 0.5), ylim=(len(tree) - 0.3, -0.9), yticks=[], xlabel="step")
        axis.set_xticks(range(1, len(steps) + 1, 1 + len(steps) // 8))
        axis.spines["left"].set_visible(False)
        axis.grid(axis="x", color="#eeeeee")


def _taken(question: Question, frames: Sequence[Mapping]) -> list[tuple[str, str]]:
    """(path, one of `SIGNS`) of each step of an episode."""
    steps = []
    for frame in frames[:-1]:
        _, at = _scene(frame["observation"])
        verb, _, name = frame["action"].partition(" ")
        path = parent(at) if name == ".." else joined(at, name)
        named = "names it: the one that answers" if path == question.target else "names it: another"
        steps.append((path, {"cd": "goes into the folder", "cat": "reads the file"}.get(verb, named)))
    return steps


def _name_rows(axis: Axes, question: Question, tree: Sequence[tuple[str, bool]], span: float) -> None:
    for row, (path, is_folder) in enumerate(tree):
        name = f"{path.rpartition('/')[2]}/" if is_folder else path.rpartition("/")[2]
        color = RIGHT if path == question.target else INK if is_folder else "#777777"
        style = {"weight": "bold"} if is_folder or path == question.target else {}
        x = span * (0.04 * (path.count("/") + 1 if path else 0) - 0.74)
        axis.text(x, row, name if path else "top", va="center", fontsize=7, color=color, parse_math=False, **style)


def _tree(question: Question, folder: str, entered: set[str] | None) -> list[tuple[str, bool]]:
    """(path, whether it is a folder) of a folder and all below it in order; with `entered` what is in other folders is
    left out."""
    found, held = [(folder, True)], question.folders[folder]
    if entered is not None and folder not in entered:
        return found
    for name in held.folders:
        found += _tree(question, joined(folder, name), entered)
    return found + [(joined(folder, name), False) for name in held.files]


def walk_legend() -> list[Line2D]:
    """What the signs of walks mean, for a figure's legend."""
    edge = {"linestyle": "", "markeredgecolor": INK, "markeredgewidth": 0.5}
    return [Line2D([], [], label=name, **edge, **style) for name, style in SIGNS.items()]


@dataclass(frozen=True)
class TreeDrawing(Drawing):
    """How whole episodes are drawn, beside their scenes."""

    walks: Callable[[Sequence[Axes], Question, Sequence[Sequence[Mapping]]], None] = walks
    walk_legend: Callable[[], list[Line2D]] = walk_legend


DRAWING = TreeDrawing(draw, draw_legend, width=2.0, per_row=4, caption_width=38)
