"""How all figures look, and how they are written to files."""

import io
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reflect_rl.core import files
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.variants import VARIANTS

#: One colour a variant in every figure: Okabe and Ito's colour-blind-safe set, greys for the untrained.
COLOURS = {
    "random": "#9a9a9a",
    "oracle": "#222222",
    "expert": "#6b6b6b",
    "follow": "#7a1f4f",
    "sft_only": "#e69f00",
    "rl_only": "#cc79a7",
    "sft_rl": "#009e73",
    "reflect_rl": "#0072b2",
    "reflect_rl_no_negatives": "#d55e00",
    "reflect_rl_no_curriculum": "#56b4e9",
    "prompted": "#8c6d31",
    "prompted_few_shot": "#b5a16a",
    "prompted_reflection": "#5c4a1e",
    "prompted_few_shot_reflection": "#c9b27c",
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


def save(figure: Figure, path_stem: Path, made_by: str) -> None:
    """Write `path_stem`.png (200 dpi) and .svg, each whole or not at all; equal figures give equal bytes.

    `made_by` (a script, command or notebook) goes into the metadata as `Source`.
    """
    path_stem = Path(path_stem)
    metadata = {"png": {"Source": made_by}, "svg": {"Source": made_by, "Date": None}}
    with matplotlib.rc_context(STYLE):
        for kind in ("png", "svg"):
            image = io.BytesIO()
            figure.savefig(image, format=kind, metadata=metadata[kind])
            files.write_bytes(path_stem.with_name(f"{path_stem.name}.{kind}"), image.getvalue())


def in_order(variants: pd.Series) -> list[str]:
    """The variants found here, in the order of the study."""
    return [name for name in VARIANTS if name in set(variants)]


def legend_below(figure: Figure, handles: list) -> None:
    """A legend below all panels, in as many columns as fit."""
    columns = int(figure.get_figwidth() / 1.75)  # inches that the longest label takes
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), columns), handlelength=1.8)


def grid_of_panels(num_rows: int, num_columns: int, width: float, height: float, **shared) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels of `width` x `height` inches, row by row; `shared` is `sharex` and `sharey`.

    Raises:
        ReflectRLError: there is nothing to draw.
    """
    if not num_rows * num_columns:
        raise ReflectRLError("nothing to draw: no sampled episodes of test tasks here; evaluate these first")
    size = (max(1.0 + width * num_columns, 4.2), 0.55 + (height + 0.45) * num_rows)
    figure = Figure(figsize=size, layout="constrained")
    return figure, list(figure.subplots(num_rows, num_columns, squeeze=False, **shared).flat)
