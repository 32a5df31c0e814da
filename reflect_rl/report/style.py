"""How all figures look, what they have in common, and how they are written to files."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from reflect_rl.core import files
from reflect_rl.core.errors import ReflectRLError

#: One colour a variant in every figure: of the main ones from Okabe and Ito's colour-blind-safe set, greys and browns for most
#: of the untrained.
COLOURS = {
    **{"random": "#9a9a9a", "oracle": "#222222", "expert": "#6b6b6b"},
    **{"blind_search": "#c2b8a3", "name_search": "#a39274", "bm25_paths": "#8fa38c", "bm25_texts": "#5f7a5c"},
    **{"embeddings": "#3f6672", "follow": "#7a1f4f"},
    **{"sft_only": "#e69f00", "rl_only": "#cc79a7", "sft_rl": "#009e73"},
    **{"reflect_sft": "#00395a", "reflect_rl": "#0072b2", "reflect_rl_no_negatives": "#d55e00"},
    **{"reflect_rl_no_milestones": "#56b4e9", "reflect_rl_stages": "#7570b3"},
    **{"reflect_sft_texts": "#0f4c45", "reflect_rl_texts": "#1b998b", "reflect_rl_both": "#b8336a"},
    **{"prompted": "#8c6d31", "prompted_few_shot": "#b5a16a"},
    **{"prompted_reflection": "#5c4a1e", "prompted_few_shot_reflection": "#c9b27c"},
}
INK, FAINT = "#333333", "#b5b5b5"
STYLE = {
    **{"font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 8.5, "axes.labelsize": 8},
    **{"xtick.labelsize": 7.5, "ytick.labelsize": 7.5, "legend.fontsize": 7.5, "legend.frameon": False},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.7, "axes.axisbelow": True},
    **{"axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK},
    **{"axes.grid": True, "grid.color": "#e6e6e6", "grid.linewidth": 0.6},
    **{"lines.linewidth": 1.5, "errorbar.capsize": 2},
    **{"svg.hashsalt": "reflect_rl", "svg.fonttype": "path", "savefig.dpi": 200, "figure.facecolor": "white"},
}
SHARE = [0, 0.25, 0.5, 0.75, 1]  # ticks of an axis of success rates
thousands = EngFormatter(sep="")  # a number of steps or examples on an axis: `800`, `1.5k`
CEILING = {"color": INK, "linestyle": "--", "linewidth": 0.8}


def save(figure: Figure, path_stem: Path, made_by: str, caption: str = "") -> None:
    """Write `path_stem`.png (200 dpi) and .svg; equal figures give equal bytes.

    `made_by` (a script, command or notebook) goes into the metadata as `Source`, a caption as `Description`.
    """
    about = {"Source": made_by} | ({"Description": caption} if caption else {})
    for kind, dated in (("png", {}), ("svg", {"Date": None})):
        content = image(figure, kind, metadata=about | dated)
        files.write_bytes(path_stem.with_name(f"{path_stem.name}.{kind}"), content)


def image(figure: Figure, kind: str = "png", **options) -> bytes:
    """A figure as the content of a file; `options` are those of `Figure.savefig`."""
    kept = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(kept, format=kind, **options)
    return kept.getvalue()


def one_env(rows: pd.DataFrame) -> str:
    """The environment that all rows are of; raises `ReflectRLError` where there are no rows, or several environments."""
    envs = sorted(rows["env"].unique())
    if len(envs) != 1:
        found = " and ".join(envs) or "none: run and evaluate first"
        raise ReflectRLError(f"nothing to draw: a figure is of one environment, and these rows are of {found}")
    return envs[0]


def entry(label: str, **style) -> Line2D:
    """An entry of a legend."""
    return Line2D([], [], label=label, **style)


def legend_below(figure: Figure, entries: list) -> None:
    """A legend below all panels, in as many columns as fit."""
    columns = int(figure.get_figwidth() / 1.75)  # inches that the longest label takes
    figure.legend(handles=entries, loc="outside lower center", ncols=min(len(entries), columns), handlelength=1.8)


def grid_of_panels(num_rows: int, num_columns: int, width: float, height: float, **shared) -> tuple[Figure, np.ndarray]:
    """A figure and its `(num_rows, num_columns)` panels of `width` x `height` inches; `shared`: `sharex`, `sharey`."""
    size = (max(1.0 + width * num_columns, 4.2), 0.55 + (height + 0.45) * num_rows)
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(num_rows, num_columns, squeeze=False, **shared)


def name_ticks(axis: Axes, which: str, names: list[str], places: Sequence[float] = ()) -> None:
    """Names instead of numbers at 0, 1, ... or at `places` of the axis `which` (`x` or `y`), without a grid and tick marks."""
    axis.set(**{f"{which}ticks": places or range(len(names)), f"{which}ticklabels": names})
    axis.grid(axis=which, visible=False)
    axis.tick_params(axis=which, length=0)
