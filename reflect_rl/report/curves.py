"""Figures of what happens over time, each of one environment: online RL and the warm-up."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from reflect_rl.core.variants import VARIANTS
from reflect_rl.envs.registry import get
from reflect_rl.evaluate.stats import t_interval
from reflect_rl.report.style import CEILING, COLOURS, FAINT, STYLE, entry, legend_below, one_env, thousands
from reflect_rl.report.tables import ceiling_of, in_order

FEW = 4  # measurements of a run
MEASURES = {
    "val_success": "Validation success (share)",
    "entropy": "Policy entropy (nats)",
    "episode_length": "Episode length (steps)",
}


@matplotlib.rc_context(STYLE)
def training_curves(training: pd.DataFrame, ceilings: pd.DataFrame, horizon: int) -> Figure:
    """Validation success, policy entropy and episode length over environment steps, with the ceiling where it is known
    (`results.ceilings`, of the training setting within the horizon of RL).

    Lines are means over seeds, bands their 95% intervals. Vertical lines mark the stages of the curriculum that all seeds
    of a variant begin together, in its colour where it alone has them.
    """
    env, variants = one_env(training), in_order(training["variant"])
    figure = Figure(figsize=(7.2, 2.7), layout="constrained")
    axes = figure.subplots(1, 3, sharex=True)
    for axis, (column, label) in zip(axes, MEASURES.items(), strict=True):
        for variant in variants:
            rows, look = training[training["variant"] == variant], {"color": COLOURS[variant]}
            seed_band(axis, rows, column, linestyle=_dashes(variant), **look)
        limits = (-0.03, 1.06) if column == "val_success" else (0, 1.1 * training[column].max())
        axis.set(xlabel="Environment steps", ylabel=label, ylim=limits)
        axis.xaxis.set_major_formatter(lambda steps, _: thousands(steps))
        axis.grid(axis="x", visible=False)
    axes[2].locator_params(axis="y", integer=True, nbins=6)
    entries = [entry(VARIANTS[v].label, color=COLOURS[v], linestyle=_dashes(v)) for v in variants]
    if training["seed"].nunique() > 1:
        entries.append(Patch(color=FAINT, alpha=0.5, linewidth=0, label="95% interval over seeds"))
    ceiling = ceiling_of(ceilings, env, get(env).training_setting, "validation", horizon)
    if ceiling is not None:
        axes[0].axhline(ceiling, **CEILING)
        entries.append(entry("ceiling", **CEILING))
    _mark_stages(axes, training)
    legend_below(figure, entries)
    return figure


def _dashes(variant: str) -> str | tuple:
    """Ablations are dashed, since they often lie on what they are compared with."""
    return (0, (4, 1.5)) if variant.startswith("reflect_rl_") else "-"


def on_common_steps(rows: pd.DataFrame, column: str, num: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """`(num,)` environment steps that all seeds reached, and a column interpolated on them `(num_seeds, num)`."""
    curves = [curve for _, curve in rows.dropna(subset=[column]).groupby("seed")]
    first = max(curve["env_steps"].min() for curve in curves)
    last = min(curve["env_steps"].max() for curve in curves)
    steps = np.linspace(first, last, num)
    return steps, np.stack([np.interp(steps, curve["env_steps"], curve[column]) for curve in curves])


def measurements(rows: pd.DataFrame, column: str) -> np.ndarray:
    """`(2, M)` environment steps and mean over seeds of a column, at each measurement that all seeds have and at their last."""
    runs = rows.sort_values(["seed", "env_steps"]).groupby("seed")
    measured = [runs.nth(i) for i in range(runs.size().min() - 1)] + [runs.last()]
    return np.transpose([at[["env_steps", column]].mean() for at in measured])


def seed_band(axis: Axes, rows: pd.DataFrame, column: str, **look) -> None:
    """Mean over seeds (line, as `look` has it) and its 95% `t_interval` (band), on the steps that all seeds reached.

    Where there are few measurements dots, on the mean over seeds, say when they were made, and the line is dotted."""
    if rows[column].isna().all():
        return
    steps, values = on_common_steps(rows, column)
    if len(values) > 1:
        bounds = np.clip([t_interval(at)[1:] for at in values.T], 0, 1 if column == "val_success" else None)
        axis.fill_between(steps, *bounds.T, color=look["color"], alpha=0.16, linewidth=0)
    rows = rows.dropna(subset=[column])
    if rows.groupby("seed").size().max() <= FEW:
        axis.plot(*measurements(rows, column), "o", color=look["color"], markersize=4)
        look |= {"linestyle": ":"}
    axis.plot(steps, values.mean(0), **look)


def _mark_stages(axes: Sequence[Axes], training: pd.DataFrame) -> None:
    """A line where a stage begins, if all seeds of a variant begin it within one update of each other."""
    rows = training.sort_values(["variant", "seed", "env_steps"])
    curves = rows.groupby(["variant", "seed"])
    rows = rows.assign(before=curves["env_steps"].shift(fill_value=0), changes=rows["stage"] != curves["stage"].shift())
    marks, begun_by = {}, {}
    for variant, of_variant in rows.groupby("variant"):
        largest_update = (of_variant["env_steps"] - of_variant["before"]).max()
        begins = of_variant[of_variant["changes"] & (of_variant["before"] > 0)]
        for stage, steps in begins.groupby("stage", sort=False)["before"]:
            if len(steps) == of_variant["seed"].nunique() and np.ptp(steps) <= largest_update:
                # all pass the same share of the budget; the earliest is the nearest to it
                marks[stage] = min(marks.get(stage, np.inf), *steps)
                begun_by.setdefault(stage, []).append(variant)
    for stage, steps in marks.items():
        one = len(begun_by[stage]) == 1 < training["variant"].nunique()  # has stages, and is named by its colour
        colour = COLOURS[begun_by[stage][0]] if one else "#777777"
        for axis in axes:
            axis.axvline(steps, color=colour if one else FAINT, linewidth=0.8, zorder=0)
        place = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom", "rotation": 90}
        axes[0].annotate(f" {stage}", (steps, 1), fontsize=6.5, color=colour, **place)


@matplotlib.rc_context(STYLE)
def warm_up(logs: dict[str, pd.DataFrame]) -> Figure:
    """Loss of each player and the reflector's score over the gradient steps of one warm-up: its success when followed, or
    its share of right facts where it names no action.

    `logs` maps a player to its log with columns step, loss and eval_score.
    """
    figure = Figure(figsize=(6.4, 2.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, log in logs.items():
        colour = COLOURS["follow" if name == "reflector" else "reflect_rl"]
        losses, followed = log.dropna(subset="loss"), log.dropna(subset="eval_score")
        left.plot(losses["step"], losses["loss"], color=colour, label=name)
        right.plot(followed["step"], followed["eval_score"], "o-", color=colour, markersize=3.5)
    left.set(xlabel="Gradient steps", ylabel="Loss (nats per token)", yscale="log")
    right.set(xlabel="Gradient steps", ylabel="Validation score (share)", ylim=(-0.03, 1.06))
    left.legend()
    return figure
