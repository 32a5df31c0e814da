"""Figures that compare variants: test success, ablations, and what a reflector says."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reflect_rl.core.variants import VARIANTS
from reflect_rl.envs.registry import get
from reflect_rl.evaluate.stats import t_interval
from reflect_rl.report.claims import on_headline
from reflect_rl.report.style import COLOURS, FAINT, INK, SHARE, STYLE, grid_of_panels, in_order, legend_below
from reflect_rl.report.tables import HEADLINE

ABLATIONS = ["reflect_rl", "reflect_rl_no_negatives", "reflect_rl_no_curriculum"]
_DIAMOND = {
    **{"marker": "D", "linestyle": "none", "markerfacecolor": "none", "markeredgecolor": INK},
    **{"markersize": 6, "markeredgewidth": 1, "zorder": 5},
}


@matplotlib.rc_context(STYLE)
def main_results(main: pd.DataFrame) -> Figure:
    """Test success of every variant with its 95% interval: a column of panels each setting, a row each horizon.

    `main` is `tables.main_table`. Hollow diamonds are the paper's numbers, from a secondary source.
    """
    test = main[main["split"] == HEADLINE["split"]]
    variants = in_order(test["variant"])
    columns = _settings(test)
    horizons = sorted(test["horizon"].unique())
    several_envs = test["env"].nunique() > 1
    height = 0.35 + 0.2 * len(variants)
    figure, axes = grid_of_panels(len(horizons), len(columns), 1.9, height, sharex=True, sharey=True)
    for axis, (horizon, (env, setting)) in zip(axes, [(h, c) for h in horizons for c in columns], strict=True):
        rows = test[(test["env"] == env) & (test["setting"] == setting) & (test["horizon"] == horizon)]
        if rows.empty:
            axis.remove()
            continue
        _draw_success(axis, rows, variants)
        axis.set_title(f"{env + ': ' if several_envs else ''}{setting}, {horizon} steps")
    for axis in axes[-len(columns) :]:
        axis.set_xlabel("Test success (share)")
    for axis in figure.axes:
        axis.set(xlim=(-0.05, 1.05), ylim=(len(variants) - 0.5, -0.5))
        axis.set_xticks(SHARE, [f"{tick:g}" for tick in SHARE])
        axis.set_yticks(range(len(variants)), [VARIANTS[name].label for name in variants])
        axis.grid(axis="y", visible=False)
        axis.tick_params(axis="y", length=0)
    dot = {"color": INK, "linewidth": 1.2, "markersize": 4.5}
    handles = [
        Line2D([], [], marker="o", label="sampled, 95% interval", **dot),
        Line2D([], [], marker="s", markerfacecolor="white", label="greedy, 95% interval", **dot),
    ]
    if test["ceiling"].notna().any():
        handles.append(Line2D([], [], color=INK, linestyle="--", linewidth=0.8, label="ceiling"))
    if test["paper"].notna().any():
        handles.append(Line2D([], [], label="paper (secondary source)", **_DIAMOND))
    legend_below(figure, handles)
    return figure


def _settings(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """(environment, setting) of the rows, settings in the environment's own order, its headline first."""
    found = set(zip(frame["env"], frame["setting"], strict=True))
    ordered = []
    for env in sorted({env for env, _ in found}):
        spec = get(env)
        own = dict.fromkeys((spec.headline, *spec.settings, *sorted(setting for e, setting in found if e == env)))
        ordered += [(env, setting) for setting in own if (env, setting) in found]
    return ordered


def _draw_success(axis: Axes, rows: pd.DataFrame, variants: list[str]) -> None:
    """A dot for each variant and decoding, the paper's number and the ceiling, of one setting and horizon."""
    for y, variant in enumerate(variants):
        own, colour = rows[rows["variant"] == variant], COLOURS[variant]
        for decoding, offset, face, marker in (("sampled", -0.15, colour, "o"), ("greedy", 0.15, "white", "s")):
            for _, row in own[own["decoding"] == decoding].iterrows():
                bar = np.array([[row["success"] - row["ci_low"]], [row["ci_high"] - row["success"]]]).clip(min=0)
                style = {"color": colour, "markersize": 3.8, "elinewidth": 1.2, "markeredgewidth": 1}
                axis.errorbar(row["success"], y + offset, xerr=bar, fmt=marker, markerfacecolor=face, **style)
        for published in own["paper"].dropna():
            axis.plot(published, y, **_DIAMOND)
    for ceiling in rows["ceiling"].dropna().unique():
        axis.axvline(ceiling, color=INK, linestyle="--", linewidth=0.8)


@matplotlib.rc_context(STYLE)
def ablations(episodes: pd.DataFrame) -> Figure:
    """Reflect-RL beside its ablations where claims are judged, a panel each env and setting, all on one axis.

    Every small dot is a seed, thin lines join equal seeds, and the large dot is their mean with Student's 95% interval.
    The axis starts at the worst seed or the lowest bound.
    """
    episodes = on_headline(episodes)
    episodes = episodes[episodes["variant"].isin(ABLATIONS)]
    variants = in_order(episodes["variant"])
    panels = _settings(episodes)
    num_columns = len(panels) if len(panels) <= 4 else 3
    num_rows = -(-len(panels) // max(num_columns, 1))
    figure, axes = grid_of_panels(num_rows, num_columns, 2.0, 2.1, sharey=True)
    lowest = 1.0
    for axis, (env, setting) in zip(axes, panels, strict=False):
        rows = episodes[(episodes["env"] == env) & (episodes["setting"] == setting)]
        by_seed = rows.groupby(["seed", "variant"])["success"].mean().unstack().reindex(columns=variants)
        lowest = min(lowest, _draw_seeds(axis, by_seed))
        axis.set(xlim=(-0.5, len(variants) - 0.2), title=f"{env}, {setting}")
        labels = [VARIANTS[name].label.replace("w/o ", "w/o\n").replace("-RL", "-\nRL") for name in variants]
        axis.set_xticks(range(len(variants)), labels)
        axis.grid(axis="x", visible=False)
        axis.tick_params(axis="x", length=0)
    for unused in axes[len(panels) :]:
        unused.remove()
    lowest = min(lowest, 0.95)  # not a hair's breadth where all are perfect
    axes[0].set_ylim(lowest - 0.08 * (1 - lowest), 1 + 0.03 * (1 - lowest))
    axes[0].set_yticks([tick for tick in axes[0].get_yticks() if lowest - 0.08 * (1 - lowest) <= tick <= 1 + 1e-9])
    for axis in axes[: len(panels) : num_columns]:
        axis.set_ylabel("Test success (share)")
    handles = [
        Line2D([], [], marker="o", color=INK, markersize=5.5, linewidth=1.5, label="mean, 95% interval"),
        Line2D([], [], marker="o", color=FAINT, markersize=3.5, linewidth=0.7, label="one seed"),
    ]
    legend_below(figure, handles)
    return figure


def _draw_seeds(axis: Axes, by_seed: pd.DataFrame) -> float:
    """Success by seed (rows) and variant (columns): dots that are joined by seed, beside them mean and interval.

    Returns the lowest value drawn.
    """
    lowest = [by_seed.min(axis=None)]
    for _, success in by_seed.iterrows():
        axis.plot(range(len(by_seed.columns)), success, color=FAINT, linewidth=0.7, zorder=1)
    for x, variant in enumerate(by_seed.columns):
        seeds = by_seed[variant].dropna().to_numpy()
        if not len(seeds):
            continue
        mean, low, high = np.clip(t_interval(seeds), 0, 1)
        colour = COLOURS[variant]
        axis.scatter([x] * len(seeds), seeds, s=14, color=colour, alpha=0.55, linewidth=0, zorder=2)
        bar = np.array([[mean - low], [high - mean]])
        axis.errorbar(x + 0.2, mean, bar, fmt="o", color=colour, markersize=5.5, elinewidth=1.5)
        lowest.append(low)
    return float(np.nanmin(lowest))


@matplotlib.rc_context(STYLE)
def reflector_effect(reflector: pd.DataFrame) -> Figure:
    """What negative examples change in the reflector: accuracy by situation, 95% intervals over seeds.

    `reflector` is `tables.reflector_table`.
    """
    titles = {"names_best": "Names a best action next", "judges_right": "Judges the last action rightly"}
    situations = {"start": "at the\nstart", "right": "after a\nright action", "wrong": "after a\nwrong action"}
    variants = in_order(reflector["variant"])
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
            axis.set_yticks(SHARE, [f"{tick:g}" for tick in SHARE])
            axis.grid(axis="x", visible=False)
            axis.tick_params(axis="x", length=0)
        row[0].set_ylabel(f"{env}: share of prompts")
    handles = [
        Line2D([], [], marker="os^D"[i % 4], color=COLOURS[name], label=VARIANTS[name].label)
        for i, name in enumerate(variants)
    ]
    legend_below(figure, handles)
    return figure
