"""The figures of the study: functions of tables that return a `matplotlib.figure.Figure`, and their files."""

import io
import textwrap
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyBboxPatch, Patch, Rectangle, RegularPolygon, Wedge

from reflect_rl import paper, runs
from reflect_rl.config import warmup_of
from reflect_rl.envs import domain
from reflect_rl.errors import ReflectRLError
from reflect_rl.stats import seed_bootstrap

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
ABLATIONS = ["reflect_rl", "reflect_rl_no_negatives", "reflect_rl_no_curriculum"]
INK, FAINT = "#333333", "#b5b5b5"
STYLE = {
    **{"font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 8.5, "axes.labelsize": 8},
    **{"xtick.labelsize": 7.5, "ytick.labelsize": 7.5, "legend.fontsize": 7.5, "legend.frameon": False},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.7, "axes.axisbelow": True},
    **{"axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK},
    **{
        "axes.grid": True,
        "grid.color": "#e6e6e6",
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.5,
        "errorbar.capsize": 2,
    },
    **{"svg.hashsalt": "reflect_rl", "svg.fonttype": "path", "savefig.dpi": 200, "figure.facecolor": "white"},
}

LANDMARK_COLOURS = {"R": "#d1495b", "G": "#2e8b57", "Y": "#d9a400", "B": "#2f6fb0"}
#: What the symbols of a taxi grid mean (`envs.taxi.LEGEND`), each drawn by `_draw_glyph`.
GLYPHS = {
    "t": "taxi, empty",
    "T": "taxi, passenger aboard",
    "w": "passenger waits",
    "s": "set down before",
    "d": "destination",
    "*": "delivered",
}
_DIAMOND = {
    **{"marker": "D", "linestyle": "none", "markerfacecolor": "none", "markeredgecolor": INK},
    **{"markersize": 6, "markeredgewidth": 1, "zorder": 5},
}


def save(figure: Figure, path_stem: Path, made_by: str) -> None:
    """Write `path_stem`.png (200 dpi) and .svg, each whole or not at all; equal figures give equal bytes.

    `made_by` (a script or notebook) goes into the metadata as `Source`.
    """
    path_stem = Path(path_stem)
    metadata = {"png": {"Source": made_by}, "svg": {"Source": made_by, "Date": None}}
    with matplotlib.rc_context(STYLE):
        for kind in ("png", "svg"):
            image = io.BytesIO()
            figure.savefig(image, format=kind, metadata=metadata[kind])
            runs.write_bytes(path_stem.with_name(f"{path_stem.name}.{kind}"), image.getvalue())


@matplotlib.rc_context(STYLE)
def training_curves(training: pd.DataFrame, ceilings: pd.DataFrame) -> Figure:
    """Validation success, policy entropy and episode length over environment steps, a row of panels each env.

    Seeds are linearly interpolated to common environment steps, over the range that all of them reached;
    lines are their mean, bands its 95% bootstrap interval over seeds. Vertical lines mark curriculum stages where all seeds of a
    variant change together. `ceilings` as in `tables.main_table`; the one of validation at
    `paper.HORIZON` in the environment's headline setting is drawn.
    """
    if training.empty:
        raise ReflectRLError("no training curves to draw: no run has logged an update; train one with RL")
    envs = sorted(training["env"].unique())
    figure = Figure(figsize=(7.2, 0.75 + 1.9 * len(envs)), layout="constrained")
    panels = figure.subplots(len(envs), 3, squeeze=False, sharex="row")
    labels = {
        "val_success": "Validation success",
        "entropy": "Policy entropy (nats)",
        "episode_length": "Episode length (steps)",
    }
    for row, env in zip(panels, envs, strict=True):
        of_env = training[training["env"] == env]
        for axis, (column, label) in zip(row, labels.items(), strict=True):
            for variant in _in_order(of_env["variant"]):
                _seed_band(axis, of_env[of_env["variant"] == variant], column, variant)
            axis.set(xlabel="Environment steps", ylabel=label)
            axis.xaxis.set_major_formatter(_short_number)
            axis.grid(axis="x", visible=False)
        row[0].set_ylim(-0.03, 1.06)
        for axis, column in zip(row[1:], list(labels)[1:], strict=True):
            axis.set_ylim(0, 1.1 * of_env[column].max())
        row[2].locator_params(axis="y", integer=True, nbins=6)
        _draw_ceiling(row[0], ceilings, env)
        _mark_stages(row, of_env)
        if len(envs) > 1:
            row[0].set_title(env, loc="left")
    handles = [
        Line2D([], [], color=COLOURS[name], label=paper.VARIANTS[name].label, linestyle=_dashes(name))
        for name in _in_order(training["variant"])
    ]
    handles += [
        Patch(color=FAINT, alpha=0.5, linewidth=0, label="95% interval over seeds"),
        Line2D([], [], color=INK, linestyle="--", linewidth=0.8, label="ceiling"),
    ]
    _legend_below(figure, handles)
    return figure


@matplotlib.rc_context(STYLE)
def warm_up(logs: dict[str, pd.DataFrame]) -> Figure:
    """Loss of each player and follow success of the reflector over the gradient steps of one warm-up.

    `logs` maps a player to its log with columns step, loss and eval_follow_success.
    """
    figure = Figure(figsize=(6.4, 2.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (name, log), colour in zip(logs.items(), (COLOURS["reflect_rl"], COLOURS["sft_only"]), strict=False):
        losses = log.dropna(subset="loss")
        left.plot(losses["step"], losses["loss"], color=colour, label=name)
        followed = log.dropna(subset="eval_follow_success")
        if len(followed):
            right.plot(
                followed["step"], followed["eval_follow_success"], "o-", color=colour, markersize=3.5, label=name
            )
    left.set(xlabel="Gradient steps", ylabel="Loss (nats per token)", yscale="log")
    right.set(xlabel="Gradient steps", ylabel="Follow success, validation", ylim=(-0.03, 1.06))
    left.legend()
    return figure


@matplotlib.rc_context(STYLE)
def warmup_length(tuning: pd.DataFrame) -> Figure:
    """Validation success over the length of the policy's warm-up, of the variants that have one.

    `tuning`: env, variant, seed, overrides, success as `evaluate.collect_tuning` writes them. Small dots are single runs;
    large ones the best mean over seeds among the other settings of the grid. One panel an environment.
    """
    points = tuning.assign(steps=tuning["overrides"].str.extract(r"policy\.steps=(\d+)", expand=False).astype(int))
    envs = sorted(points["env"].unique())
    figure = Figure(figsize=(4.2 * len(envs), 2.9), layout="constrained")
    points = points[points["variant"].map(warmup_of).notna()]
    variants = _in_order(points["variant"])
    for axis, env in zip(figure.subplots(1, len(envs), squeeze=False)[0], envs, strict=True):
        of_env = points[points["env"] == env]
        lengths = sorted(of_env["steps"].unique())
        for i, variant in enumerate(variants):
            rows = of_env[of_env["variant"] == variant]
            shift = 0.12 * (i - (len(variants) - 1) / 2)
            axis.plot(rows["steps"].map(lengths.index) + shift, rows["success"], ".", color=COLOURS[variant], alpha=0.5)
            best = rows.groupby(["steps", "overrides"])["success"].mean().groupby("steps").max()
            axis.plot([lengths.index(n) + shift for n in best.index], best, "o", color=COLOURS[variant], markersize=6)
        axis.set(xlabel="Warm-up of the policy (gradient steps)", ylabel="Validation success", title=env)
        axis.set_xticks(range(len(lengths)), lengths)
        axis.grid(axis="x", visible=False)
        axis.set(xlim=(-0.5, len(lengths) - 0.5), ylim=(-0.03, 1.06))
    _legend_below(
        figure,
        [Line2D([], [], marker="o", linestyle="", color=COLOURS[v], label=paper.VARIANTS[v].label) for v in variants],
    )
    return figure


@matplotlib.rc_context(STYLE)
def main_results(main: pd.DataFrame) -> Figure:
    """Test success of every variant with its 95% interval, a panel each env, setting and horizon.

    `main` is `tables.main_table`. Hollow diamonds are the paper's numbers (`paper.REPORTED_SOURCE`).
    """
    test = main[main["split"] == paper.HEADLINE["split"]]
    variants = _in_order(test["variant"])
    panels = list(test.groupby(["env", "setting", "horizon"]))
    several_envs = test["env"].nunique() > 1
    figure, axes = _panels(len(panels), height=0.5 + 0.24 * len(variants))
    for axis, ((env, setting, horizon), rows) in zip(axes, panels, strict=True):
        for y, variant in enumerate(variants):
            for decoding, offset, face in (("sampled", -0.15, COLOURS[variant]), ("greedy", 0.15, "white")):
                for _, row in rows[(rows["variant"] == variant) & (rows["decoding"] == decoding)].iterrows():
                    _dot(axis, row, y + offset, COLOURS[variant], face, "o" if decoding == "sampled" else "s")
            for published in rows.loc[rows["variant"] == variant, "paper"].dropna():
                axis.plot(published, y, **_DIAMOND)
        for ceiling in rows["ceiling"].dropna().unique():
            axis.axvline(ceiling, color=INK, linestyle="--", linewidth=0.8)
        axis.set(xlim=(-0.03, 1.03), xlabel="Test success", title=f"{setting}, horizon {horizon}")
        axis.set_yticks(range(len(variants)), [paper.VARIANTS[name].label for name in variants])
        axis.set_ylim(len(variants) - 0.5, -0.5)
        axis.grid(axis="y", visible=False)
        axis.tick_params(axis="y", length=0)
        if several_envs:
            axis.set_title(f"{env}: {setting}, horizon {horizon}")
    dot = {"color": INK, "linewidth": 1.2, "markersize": 4.5}
    handles = [
        Line2D([], [], marker="o", label="sampled, 95% interval", **dot),
        Line2D([], [], marker="s", markerfacecolor="white", label="greedy, 95% interval", **dot),
        Line2D([], [], color=INK, linestyle="--", linewidth=0.8, label="ceiling"),
        Line2D([], [], label="paper (secondary source)", **_DIAMOND),
    ]
    _legend_below(figure, handles)
    return figure


@matplotlib.rc_context(STYLE)
def ablations(episodes: pd.DataFrame) -> Figure:
    """Reflect-RL beside its ablations on `paper.HEADLINE`, a panel each env and setting.

    Each panel's axis starts at its worst seed.

    Every small dot is a seed, thin lines join equal seeds, and the large dot is their mean with the 95%
    interval of `stats.seed_bootstrap`.
    """
    episodes = paper.on_headline(episodes)
    episodes = episodes[episodes["variant"].isin(ABLATIONS)]
    variants = _in_order(episodes["variant"])
    panels = list(episodes.groupby(["env", "setting"]))
    figure, axes = _panels(len(panels), height=2.1, sharey=False)
    for axis, ((env, setting), rows) in zip(axes, panels, strict=True):
        by_seed = rows.groupby(["seed", "variant"])["success"].mean().unstack().reindex(columns=variants)
        for _, success in by_seed.iterrows():
            axis.plot(range(len(variants)), success, color=FAINT, linewidth=0.7, zorder=1)
        for x, variant in enumerate(variants):
            seeds = by_seed[variant].dropna().to_numpy()
            if not len(seeds):
                continue
            mean, low, high = seed_bootstrap(seeds[:, None], np.random.default_rng(0))
            colour = COLOURS[variant]
            axis.scatter([x] * len(seeds), seeds, s=14, color=colour, alpha=0.55, linewidth=0, zorder=2)
            bar = np.array([[mean - low], [high - mean]])
            axis.errorbar(x + 0.2, mean, bar, fmt="o", color=colour, markersize=5.5, elinewidth=1.5)
        lowest = float(np.nanmin(by_seed.to_numpy(), initial=0.95))  # not a hair's breadth where all are perfect
        axis.set(
            ylim=(lowest - 0.1 * (1.02 - lowest), 1.01), xlim=(-0.5, len(variants) - 0.3), title=f"{env}, {setting}"
        )
        axis.set_xticks(range(len(variants)), [paper.VARIANTS[n].label.replace(" ", "\n") for n in variants])
        axis.grid(axis="x", visible=False)
        axis.tick_params(axis="x", length=0)
    axes[0].set_ylabel("Test success")
    handles = [
        Line2D([], [], marker="o", color=INK, markersize=5.5, linewidth=1.5, label="mean, 95% interval"),
        Line2D([], [], marker="o", color=FAINT, markersize=3.5, linewidth=0.7, label="one seed"),
    ]
    _legend_below(figure, handles)
    return figure


@matplotlib.rc_context(STYLE)
def reflector_effect(reflector: pd.DataFrame) -> Figure:
    """What negative examples change in the reflector: accuracy by situation, 95% intervals over seeds.

    `reflector` is `tables.reflector_table`.
    """
    titles = {"names_best": "Names a best action next", "judges_right": "Judges the last action rightly"}
    situations = {"start": "start", "right": "after a\nright action", "wrong": "after a\nwrong action"}
    variants = _in_order(reflector["variant"])
    envs = sorted(reflector["env"].unique())
    figure = Figure(figsize=(5.2, 0.6 + 1.9 * len(envs)), layout="constrained")
    panels = figure.subplots(len(envs), 2, squeeze=False, sharey=True)
    for row, env in zip(panels, envs, strict=True):
        for axis, (mark, title) in zip(row, titles.items(), strict=True):
            for i, variant in enumerate(variants):
                rows = reflector[(reflector["env"] == env) & (reflector["variant"] == variant)]
                rows = rows.set_index("situation").reindex(list(situations))
                x = np.arange(len(situations)) + 0.22 * (i - (len(variants) - 1) / 2)
                bar = [rows[mark] - rows[f"{mark}_low"], rows[f"{mark}_high"] - rows[mark]]
                dot = {"fmt": "os^D"[i % 4], "color": COLOURS[variant], "markersize": 4, "elinewidth": 1.3}
                axis.errorbar(x, rows[mark], bar, clip_on=False, **dot)
            axis.set(ylim=(0, 1.02), xlim=(-0.5, 2.5), title=title)
            axis.set_xticks(range(len(situations)), list(situations.values()))
            axis.grid(axis="x", visible=False)
            axis.tick_params(axis="x", length=0)
        row[0].set_ylabel(f"Share of prompts\n({env})")
    handles = [
        Line2D([], [], marker="os^D"[i % 4], color=COLOURS[name], label=paper.VARIANTS[name].label)
        for i, name in enumerate(variants)
    ]
    _legend_below(figure, handles)
    return figure


@matplotlib.rc_context(STYLE)
def film_strip(frames: list[dict], title: str) -> Figure:
    """An episode as a strip of scenes, each with the reflection on it and the action then taken.

    `frames` hold `observation`, `reflection`, `action` (empty at the end) and `reward`. A taxi's grid of text is drawn,
    any other text is set as it is.
    """
    if not frames:
        raise ReflectRLError("no frames to draw; give at least the first observation of an episode")
    grids = frames[0]["observation"].startswith("|")
    most, letters = (8, 27) if grids else (5, 40)
    num_rows = -(-len(frames) // most)
    num_columns = -(-len(frames) // num_rows)
    width, gap, line = 1.5 if grids else 2.2, 0.22, 0.115  # inches: a scene, the space between two, a line of caption
    captions = [textwrap.wrap(frame["reflection"], letters) for frame in frames]
    rows = [range(start, min(start + num_columns, len(frames))) for start in range(0, len(frames), num_columns)]
    heights = [width + 0.52 + line * max(len(captions[i]) for i in row) for row in rows]
    figure_width = max(num_columns * (width + gap) + gap, 6.9)
    figure_height = 0.4 + sum(heights) + 0.42
    figure = Figure(figsize=(figure_width, figure_height))

    def write(x, y, text, **style):
        figure.text(x / figure_width, y / figure_height, text, va="top", color=INK, **style)

    size = min(10.0, 115 * (figure_width - 2 * gap) / max(len(title), 1))  # points: a long one is written smaller
    write(gap, figure_height - 0.12, title, fontsize=size, fontweight="bold")
    top = figure_height - 0.4
    for row, height in zip(rows, heights, strict=True):
        for column, i in enumerate(row):
            left, bottom = gap + column * (width + gap), top - 0.17 - width
            write(left, top, f"step {i}" if frames[i]["action"] else "end", fontsize=7, fontweight="bold")
            axis = figure.add_axes(
                [left / figure_width, bottom / figure_height, width / figure_width, width / figure_height]
            )
            (_draw_grid if grids else _draw_text)(axis, frames[i]["observation"])
            write(
                left,
                bottom - 0.06,
                "\n".join(captions[i]),
                fontsize=6.3,
                fontstyle="italic",
                linespacing=1.25,
            )
            if frames[i]["action"]:
                action = f"→ {frames[i]['action']}  ({frames[i]['reward']:+.2f})".replace("-", "−")
                write(left, bottom - 0.1 - line * len(captions[i]), action, fontsize=7, fontweight="bold")
        top -= height
    if grids:
        axis = figure.add_axes([gap / figure_width, 0.06 / figure_height, 6.5 / figure_width, 0.3 / figure_height])
        _draw_glyph_legend(axis)
    return figure


def _draw_text(axis: Axes, observation: str) -> None:
    """A card with the text of an observation, each of its lines wrapped; the longest is cut, which dots tell."""
    lines = [part for text in observation.splitlines() for part in textwrap.wrap(text, 38, subsequent_indent="  ")]
    if len(lines) > 17:
        lines = [*lines[:16], "..."]
    axis.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1))
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set(visible=True, color=FAINT)
    axis.text(0.03, 0.97, "\n".join(lines), va="top", fontsize=6, linespacing=1.3, color=INK)


def _in_order(variants: pd.Series) -> list[str]:
    return [name for name in paper.VARIANTS if name in set(variants)]


def _dashes(variant: str) -> str | tuple:
    return (0, (4, 1.5)) if variant in ABLATIONS[1:] else "-"


def _short_number(value: float, _position) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def _legend_below(figure: Figure, handles: list) -> None:
    columns = int(figure.get_figwidth() / 1.75)  # inches that the longest label takes
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), columns), handlelength=1.8)


def _panels(count: int, height: float, sharey: bool = True) -> tuple[Figure, list[Axes]]:
    """`count` panels of `height` inches, two or three in a row."""
    if not count:
        raise ReflectRLError(f"nothing to draw: no episodes of {paper.HEADLINE}; evaluate these first")
    columns = 2 if count == 4 else min(count, 3)
    num_rows = -(-count // columns)
    size = (max(1.0 + 2.05 * columns, 4.2), 0.55 + (height + 0.45) * num_rows)
    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(num_rows, columns, squeeze=False, sharey=sharey).flat)
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def _seed_band(axis: Axes, rows: pd.DataFrame, column: str, variant: str) -> None:
    """Mean (line) and its 95% `seed_bootstrap` interval (band), on the environment steps that all seeds reached."""
    curves = [curve for _, curve in rows.dropna(subset=[column]).groupby("seed")]
    if not curves:
        return
    first = max(curve["env_steps"].min() for curve in curves)
    last = min(curve["env_steps"].max() for curve in curves)
    steps = np.linspace(first, last, 120)
    values = np.stack([np.interp(steps, curve["env_steps"], curve[column]) for curve in curves])
    if len(curves) > 1:
        rng = np.random.default_rng(0)
        bounds = np.array([seed_bootstrap(column[:, None], rng, resamples=500)[1:] for column in values.T])
        axis.fill_between(steps, bounds[:, 0], bounds[:, 1], color=COLOURS[variant], alpha=0.16, linewidth=0)
    marker = "o" if first == last else None  # a single evaluation draws no line
    axis.plot(steps, values.mean(0), color=COLOURS[variant], linestyle=_dashes(variant), marker=marker, markersize=4)


def _draw_ceiling(axis: Axes, ceilings: pd.DataFrame, env: str) -> None:
    wanted = {"env": env, "setting": domain(env).headline, "split": "validation", "horizon": paper.HORIZON[env]}
    rows = ceilings[(ceilings[list(wanted)] == pd.Series(wanted)).all(axis=1)]
    for ceiling in rows["ceiling"]:
        axis.axhline(ceiling, color=INK, linestyle="--", linewidth=0.8)


def _mark_stages(row: list[Axes], training: pd.DataFrame) -> None:
    """A line where a stage begins, if all seeds of a variant begin it within one update of each other."""
    marks = {}
    for _, rows in training.groupby("variant"):
        begins = {}
        largest_update = 0
        for _, curve in rows.groupby("seed"):
            curve = curve.sort_values("env_steps", ignore_index=True)
            before = curve["env_steps"].shift(fill_value=0)
            largest_update = max(largest_update, (curve["env_steps"] - before).max())
            for change in curve.index[((curve["stage"] != curve["stage"].shift()) & (before > 0)).to_numpy()]:
                begins.setdefault(str(curve.loc[change, "stage"]), []).append(before[change])
        for stage, steps in begins.items():
            if len(steps) == rows["seed"].nunique() and np.ptp(steps) <= largest_update:
                # All pass the same share of the budget; the earliest is the nearest to it.
                marks[stage] = min(marks.get(stage, np.inf), *steps)
    for stage, steps in marks.items():
        for axis in row:
            axis.axvline(steps, color=FAINT, linewidth=0.8, zorder=0)
        place = {
            "xycoords": ("data", "axes fraction"),
            "va": "bottom",
            "rotation": 50,
            "rotation_mode": "anchor",
        }
        row[0].annotate(f" {stage}", (steps, 1), fontsize=6.5, color="#777777", **place)


def _dot(axis: Axes, row: pd.Series, y: float, colour: str, face: str, marker: str) -> None:
    bar = np.array([[row["success"] - row["ci_low"]], [row["ci_high"] - row["success"]]]).clip(min=0)
    style = {"color": colour, "markersize": 3.8, "elinewidth": 1.2, "markeredgewidth": 1}
    axis.errorbar(row["success"], y, xerr=bar, fmt=marker, markerfacecolor=face, **style)


def _draw_grid(axis: Axes, observation: str) -> None:
    """Draw `envs.taxi.grid`: cells of three characters (taxi, landmark, tag), walls between them as `|`."""
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


def _draw_glyph_legend(axis: Axes) -> None:
    axis.set(xlim=(0, 30), ylim=(1, 0), aspect="equal", anchor="W")
    axis.axis("off")
    widths = (3.8, 6.0, 4.6, 4.6, 3.8, 3.5)
    for x, (symbol, meaning) in zip(np.cumsum((0, *widths[:-1])), GLYPHS.items(), strict=True):
        _draw_glyph(axis, symbol, x, -0.15 if symbol in "tT" else 0.22)
        axis.text(x + 1.1, 0.5, meaning, fontsize=6, color=INK, va="center")
    axis.text(sum(widths), 0.5, "→ action (reward)", fontsize=6, color=INK, va="center")
