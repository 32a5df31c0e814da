"""Figures of what happens over time: online RL, the warm-up, and how long the warm-up is."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.variants import VARIANTS, warmup_of
from reflect_rl.envs.registry import get
from reflect_rl.evaluate.stats import t_interval
from reflect_rl.report.style import COLOURS, FAINT, INK, STYLE, in_order, legend_below

MEASURES = {
    "val_success": "Validation success (share)",
    "entropy": "Policy entropy (nats)",
    "episode_length": "Episode length (steps)",
}


@matplotlib.rc_context(STYLE)
def training_curves(training: pd.DataFrame, ceilings: pd.DataFrame) -> Figure:
    """Validation success, policy entropy and episode length over environment steps, a row of panels each env.

    Seeds are linearly interpolated to common environment steps, over the range that all of them reached;
    lines are their mean, bands its 95% interval over seeds. Vertical lines mark the curriculum's stages where
    all seeds of a variant change together. `ceilings` as in `tables.main_table`; the one of validation in the
    environment's headline setting at its `claims_horizon` is drawn, where it is known.
    """
    if training.empty:
        raise ReflectRLError("no training curves to draw: no run has logged an update; train one with RL")
    envs = sorted(training["env"].unique())
    figure = Figure(figsize=(7.2, 0.75 + 1.95 * len(envs)), layout="constrained")
    panels, known = figure.subplots(len(envs), 3, squeeze=False, sharex="row"), []
    for row, env in zip(panels, envs, strict=True):
        of_env = training[training["env"] == env]
        for axis, (column, label) in zip(row, MEASURES.items(), strict=True):
            for variant in in_order(of_env["variant"]):
                _seed_band(axis, of_env[of_env["variant"] == variant], column, variant)
            axis.set(xlabel="Environment steps", ylabel=label)
            axis.xaxis.set_major_formatter(_short_number)
            axis.grid(axis="x", visible=False)
        row[0].set_ylim(-0.03, 1.06)
        for axis, column in zip(row[1:], list(MEASURES)[1:], strict=True):
            axis.set_ylim(0, 1.1 * of_env[column].max())
        row[2].locator_params(axis="y", integer=True, nbins=6)
        known.append(_draw_ceiling(row[0], ceilings, env))
        _mark_stages(row, of_env)
        if len(envs) > 1:
            row[0].set_title(env, loc="left")
    handles = [
        Line2D([], [], color=COLOURS[name], label=VARIANTS[name].label, linestyle=_dashes(name))
        for name in in_order(training["variant"])
    ]
    if training["seed"].nunique() > 1:
        handles.append(Patch(color=FAINT, alpha=0.5, linewidth=0, label="95% interval over seeds"))
    if any(known):
        handles.append(Line2D([], [], color=INK, linestyle="--", linewidth=0.8, label="ceiling"))
    legend_below(figure, handles)
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
    right.set(xlabel="Gradient steps", ylabel="Follow success, validation (share)", ylim=(-0.03, 1.06))
    left.legend()
    return figure


@matplotlib.rc_context(STYLE)
def warmup_length(tuning: pd.DataFrame) -> Figure:
    """Validation success over the length of the policy's warm-up, of the variants that have one.

    `tuning`: env, variant, seed, overrides, success as `tuning.collect_tuning` writes them. Small dots are single runs;
    large ones the best mean over seeds among the other settings of the grid. One panel an environment.
    """
    points = tuning.assign(steps=tuning["overrides"].str.extract(r"policy\.steps=(\d+)", expand=False).astype(int))
    envs = sorted(points["env"].unique())
    figure = Figure(figsize=(4.6 * len(envs), 2.9), layout="constrained")
    points = points[points["variant"].map(warmup_of).notna()]
    variants = in_order(points["variant"])
    for axis, env in zip(figure.subplots(1, len(envs), squeeze=False)[0], envs, strict=True):
        of_env = points[points["env"] == env]
        lengths = sorted(of_env["steps"].unique())
        for i, variant in enumerate(variants):
            rows = of_env[of_env["variant"] == variant]
            shift, colour = 0.12 * (i - (len(variants) - 1) / 2), COLOURS[variant]
            axis.plot(rows["steps"].map(lengths.index) + shift + 0.04, rows["success"], ".", color=colour, alpha=0.5)
            best = rows.groupby(["steps", "overrides"])["success"].mean().groupby("steps").max()
            axis.plot([lengths.index(n) + shift for n in best.index], best, "o", color=colour, markersize=6)
        axis.set(xlabel="Warm-up of the policy (gradient steps)", ylabel="Validation success (share)", title=env)
        axis.set_xticks(range(len(lengths)), lengths)
        axis.grid(axis="x", visible=False)
        axis.set(xlim=(-0.5, len(lengths) - 0.5), ylim=(-0.03, 1.06))
    dot = {"linestyle": "", "color": INK}
    handles = [Line2D([], [], marker="o", linestyle="", color=COLOURS[v], label=VARIANTS[v].label) for v in variants]
    handles.append(Line2D([], [], marker="o", markersize=6, label="best mean of the grid", **dot))
    legend_below(figure, [*handles, Line2D([], [], marker=".", label="one run", **dot)])
    return figure


def _dashes(variant: str) -> str | tuple:
    """Ablations are dashed, since they often lie on what they are compared with."""
    return (0, (4, 1.5)) if variant.startswith("reflect_rl_") else "-"


def _short_number(value: float, _position) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def _seed_band(axis: Axes, rows: pd.DataFrame, column: str, variant: str) -> None:
    """Mean (line) and its 95% `t_interval` (band), on the environment steps that all seeds reached."""
    curves = [curve for _, curve in rows.dropna(subset=[column]).groupby("seed")]
    if not curves:
        return
    first = max(curve["env_steps"].min() for curve in curves)
    last = min(curve["env_steps"].max() for curve in curves)
    steps = np.linspace(first, last, 120)
    values = np.stack([np.interp(steps, curve["env_steps"], curve[column]) for curve in curves])
    if len(curves) > 1:
        bounds = np.clip([t_interval(at)[1:] for at in values.T], 0, 1 if column == "val_success" else None)
        axis.fill_between(steps, *bounds.T, color=COLOURS[variant], alpha=0.16, linewidth=0)
    marker = "o" if first == last else None  # a single evaluation draws no line
    axis.plot(steps, values.mean(0), color=COLOURS[variant], linestyle=_dashes(variant), marker=marker, markersize=4)


def _draw_ceiling(axis: Axes, ceilings: pd.DataFrame, env: str) -> bool:
    """Whether the ceiling of the headline setting on validation tasks is known and was drawn."""
    spec = get(env)
    wanted = {"env": env, "setting": spec.headline, "split": "validation", "horizon": spec.claims_horizon}
    found = ceilings[(ceilings[list(wanted)] == pd.Series(wanted)).all(axis=1)]["ceiling"].dropna()
    for ceiling in found:
        axis.axhline(ceiling, color=INK, linestyle="--", linewidth=0.8)
    return len(found) > 0


def _mark_stages(row: Sequence[Axes], training: pd.DataFrame) -> None:
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
        place = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom", "rotation": 90}
        row[0].annotate(f" {stage}", (steps, 1), fontsize=6.5, color="#777777", **place)
