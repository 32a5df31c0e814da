"""Figures that compare variants in one environment: test success, ablations, and what a reflector says."""

import itertools

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reflect_rl.core.variants import VARIANTS
from reflect_rl.envs.registry import get
from reflect_rl.evaluate.stats import rate_interval
from reflect_rl.report import style
from reflect_rl.report.style import COLOURS, FAINT, INK, SHARE, STYLE, entry
from reflect_rl.report.tables import HEADLINE, at_headline, in_order, matching, scores

ABLATIONS = ["reflect_rl", "reflect_rl_no_negatives", "reflect_rl_no_milestones", "reflect_rl_stages"]
PAPER = {
    **{"marker": "D", "linestyle": "none", "markerfacecolor": "none", "markeredgecolor": INK},
    **{"markersize": 6, "markeredgewidth": 1, "zorder": 5},
}


@matplotlib.rc_context(STYLE)
def main_results(main: pd.DataFrame) -> Figure:
    """Test success of every variant with its 95% interval: a column of panels each setting, a row each horizon.

    `main` is `tables.main_table`. Hollow diamonds are the paper's numbers, from a secondary source.
    """
    test = main[main["split"] == HEADLINE["split"]]
    settings, variants, horizons = _settings(test), in_order(test["variant"]), sorted(test["horizon"].unique())
    height = 0.35 + 0.2 * len(variants)
    spec = get(style.one_env(test))
    figure, axes = style.grid_of_panels(len(horizons), len(settings), 1.9, height, sharex=True, sharey=True)
    for axis, (horizon, setting) in zip(axes.flat, itertools.product(horizons, settings), strict=True):
        _draw_success(axis, matching(test, setting=setting, horizon=horizon), variants)
        axis.set(title=f"{spec.title(setting)},\n{horizon} steps", xlim=(-0.05, 1.05), ylim=(len(variants) - 0.5, -0.5))
        axis.set_xticks(SHARE, [f"{tick:g}" for tick in SHARE])
        style.name_ticks(axis, "y", [VARIANTS[name].label for name in variants])
    for axis in axes[-1]:
        axis.set_xlabel("Test success (share)")
    dot = {"color": INK, "linewidth": 1.2, "markersize": 4.5}
    entries = [
        entry("sampled, 95% interval", marker="o", **dot),
        entry("greedy, 95% interval", marker="s", markerfacecolor="white", **dot),
    ]
    for column, label, look in (("ceiling", "ceiling", style.CEILING), ("paper", "paper (secondary source)", PAPER)):
        if test[column].notna().any():
            entries.append(entry(label, **look))
    style.legend_below(figure, entries)
    return figure


def _settings(rows: pd.DataFrame) -> list[str]:
    """The settings found here, in the environment's own order, its headline first."""
    spec, found = get(style.one_env(rows)), sorted(rows["setting"].unique())
    order = dict.fromkeys([spec.headline, *spec.settings, *found])
    return [setting for setting in order if setting in found]


def _draw_success(axis: Axes, rows: pd.DataFrame, variants: list[str]) -> None:
    """A dot for each variant and decoding, the paper's number and the ceiling, of one setting and horizon."""
    for y, variant in enumerate(variants):
        own, colour = rows[rows["variant"] == variant], COLOURS[variant]
        looks = {"sampled": (-0.15, colour, "o"), "greedy": (0.15, "white", "s")}
        for row in own.sort_values("decoding", ascending=False).itertuples():
            offset, face, marker = looks[row.decoding]
            bar = np.clip([[row.success - row.ci_low], [row.ci_high - row.success]], 0, None)
            dot = {"markerfacecolor": face, "markersize": 3.8, "elinewidth": 1.2, "markeredgewidth": 1}
            axis.errorbar(row.success, y + offset, xerr=bar, fmt=marker, color=colour, **dot)
        for published in own["paper"].dropna():
            axis.plot(published, y, **PAPER)
    for ceiling in rows["ceiling"].dropna().unique():
        axis.axvline(ceiling, **style.CEILING)


@matplotlib.rc_context(STYLE)
def ablations(episodes: pd.DataFrame) -> Figure:
    """Reflect-RL beside its ablations where claims are judged, a panel each setting, all on one axis.

    Small dots are seeds, thin lines join equal ones, and the large dot is their mean with the tables' 95% interval.
    """
    episodes = matching(at_headline(episodes[episodes["variant"].isin(ABLATIONS)], every_setting=True), **HEADLINE)
    settings, variants, spec = _settings(episodes), in_order(episodes["variant"]), get(style.one_env(episodes))
    num_columns = min(len(settings), 2 if len(settings) <= 4 else 3)
    figure, axes = style.grid_of_panels(-(-len(settings) // num_columns), num_columns, 2.8, 2.1, sharey=True)
    lowest = 0.95  # not a hair's breadth where all are perfect
    for axis, setting in zip(axes.flat, settings, strict=False):
        rows = episodes[episodes["setting"] == setting]
        lowest = min(lowest, _draw_seeds(axis, rows, variants))
        axis.set(xlim=(-0.5, len(variants) - 0.2), title=spec.title(setting))
        labels = [VARIANTS[name].label.replace("w/o ", "w/o\n").replace("-RL", "-\nRL") for name in variants]
        style.name_ticks(axis, "x", labels)
    for unused in axes.flat[len(settings) :]:
        unused.remove()
    bottom = lowest - 0.08 * (1 - lowest) if lowest > 0.2 else -0.03
    axes[0, 0].set_ylim(bottom, 1 + 0.03 * (1 - lowest))
    axes[0, 0].set_yticks([tick for tick in axes[0, 0].get_yticks() if bottom <= tick <= 1 + 1e-9])
    for axis in axes[:, 0]:
        axis.set_ylabel("Test success (share)")
    mean = entry("mean, 95% interval over seeds and tasks", marker="o", color=INK, markersize=5.5, linewidth=1.5)
    style.legend_below(figure, [mean, entry("one seed", marker="o", color=FAINT, markersize=3.5, linewidth=0.7)])
    return figure


def _draw_seeds(axis: Axes, episodes: pd.DataFrame, variants: list[str]) -> float:
    """Draw the success of the seeds of each variant, beside it mean and interval; returns the lowest value drawn."""
    by_seed = episodes.groupby(["seed", "variant"])["success"].mean().unstack().reindex(columns=variants)
    lowest = [by_seed.min(axis=None)]
    for _, success in by_seed.iterrows():
        axis.plot(range(len(variants)), success, color=FAINT, linewidth=0.7, zorder=1)
    for x, variant in enumerate(variants):
        own, colour = episodes[episodes["variant"] == variant], COLOURS[variant]
        if len(own):
            mean, low, high = rate_interval(scores(own))
            seeds = by_seed[variant].dropna()
            axis.scatter([x] * len(seeds), seeds, s=14, color=colour, alpha=0.55, linewidth=0, zorder=2)
            bar = [[mean - low], [high - mean]]
            axis.errorbar(x + 0.2, mean, bar, fmt="o", color=colour, markersize=5.5, elinewidth=1.5)
            lowest.append(low)
    return float(np.nanmin(lowest))


@matplotlib.rc_context(STYLE)
def reflector_effect(reflector: pd.DataFrame) -> Figure:
    """What negative examples change in the reflector (`tables.reflector_table`): accuracy by situation, 95% intervals.

    On the left its advice, or where it gives none its share of right facts; on the right, where some action loses the
    game at once, how often it advises one.
    """
    titles = {"names_best": "Names a best action next", "judges_right": "Judges the last action rightly"}
    if reflector["names_best"].isna().all():
        titles = {"facts_right": "States the teacher's facts", "judges_right": titles["judges_right"]}
    if reflector["names_fatal"].gt(0).any():
        titles["names_fatal"] = "Its advice would lose the game"
    situations = {"start": "at the\nstart", "right": "after a\nright action", "wrong": "after a\nwrong action"}
    env, variants = style.one_env(reflector), in_order(reflector["variant"])
    figure = Figure(figsize=(2.5 * len(titles) + 0.2, 2.5), layout="constrained")
    axes = figure.subplots(1, len(titles), sharey=True)
    for axis, (mark, title) in zip(axes, titles.items(), strict=True):
        for i, variant in enumerate(variants):
            rows = reflector[reflector["variant"] == variant].set_index("situation").reindex(list(situations))
            x = np.arange(len(situations)) + 0.22 * (i - (len(variants) - 1) / 2)
            known = f"{mark}_low" in rows
            bar = [rows[mark] - rows[f"{mark}_low"], rows[f"{mark}_high"] - rows[mark]] if known else None
            dot = {"fmt": "os^D"[i % 4], "color": COLOURS[variant], "markersize": 4, "elinewidth": 1.3}
            axis.errorbar(x, rows[mark], bar, clip_on=False, **dot)
        axis.set(ylim=(0, 1.02), xlim=(-0.5, 2.5), title=title)
        axis.set_yticks(SHARE, [f"{tick:g}" for tick in SHARE])
        style.name_ticks(axis, "x", list(situations.values()))
    axes[0].set_ylabel(f"{get(env).label}: share of prompts")
    entries = [entry(VARIANTS[v].label, marker="os^D"[i % 4], color=COLOURS[v]) for i, v in enumerate(variants)]
    style.legend_below(figure, entries)
    return figure
