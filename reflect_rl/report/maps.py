"""Figures that compare the regimes of one environment: what RL and reflections add, by the number of reflections.

Regimes are those of `regimes.comparable`, and a panel is what the policy imitates and what a reflection tells; or those
that `regimes.along` finds for a setting.
"""

import itertools
from collections.abc import Iterable

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reflect_rl.core.variants import VARIANTS
from reflect_rl.envs.registry import get
from reflect_rl.evaluate.stats import t_interval
from reflect_rl.report import style
from reflect_rl.report.curves import FEW, measurements
from reflect_rl.report.regimes import FACTS, facts
from reflect_rl.report.style import COLOURS, FAINT, INK, SHARE, STYLE, entry
from reflect_rl.report.tables import HEADLINE, at_headline, in_order, matching

TARGETS = {"executed": "The policy imitates executed actions", "oracle": "The policy imitates the expert"}
TELLS = {"action": "name the action", "hint": "give a hint", "verdict": "give the verdict alone"}
ARMS = {  # label: colour, side of the number's tick, variant before and after RL
    "SFT + RL: same situations, no reflections": (COLOURS["sft_rl"], -1, ("sft_only", "sft_rl")),
    "Reflect-RL": (COLOURS["reflect_rl"], 1, ("reflect_sft", "reflect_rl")),
}
CURVES = {  # part: label, colour, marker, side
    "RL, with reflections": ("RL: Reflect-RL after minus before it", INK, "o", -1),
    "reflection, after RL": ("reflections: Reflect-RL minus SFT + RL", "#a50f15", "s", 1),
}
CAPTIONS = {  # also what a reader is told who does not see the figure
    "map": "Test success by the number of distinct reflections that the teacher wrote, before and after RL (arrows), sampled, with "
    "reflections and on the same situations without them (retrained in each panel, with a tokenizer fitted to its "
    "reflections); `all` is one for each situation of the data, not to scale; bars are 95% intervals over tasks and the seeds "
    "of each regime; where a panel has no arrow nothing was run. Look at how long an arrow is (RL's part) and at how far the "
    "ends of the two colours lie apart (reflections' part).",
    "parts": "What RL adds (Reflect-RL minus itself before RL) and what reflections add (Reflect-RL minus SFT + RL on "
    "the same situations, each arm with the settings that were tuned for it in the first regime), sampled, by the number of reflections; bars "
    "are 95% intervals of the paired differences. Look at where one of them is large and the other none.",
    "costs": "Validation success of Reflect-RL over environment steps, from before RL at step 0, by the number of "
    "reflections; dots are means over seeds where it was measured, bars at the end 95% intervals over seeds; dashed is SFT + RL "
    "on the most examples, with executed or else expert targets. Look at which curves still rise at "
    "the end: there more steps may bring more.",
    "warmup": "Test success by the length of the policy's warm-up, the same for all arms, sampled, on the seeds "
    "that all regimes have; bars are 95% intervals over these and tasks. Look at whether a longer warm-up takes Reflect-RL "
    "before RL to where it is after RL, so that RL has nothing to add.",
    "random": "Test success by the share of random actions in the data, which the policy imitates, sampled, on the seeds "
    "that all regimes have; bars are 95% intervals over these and tasks. Look at how much of the randomness RL makes good, "
    "with reflections and without.",
    "steps": "Test success by the environment steps of RL, sampled, on the seeds that all regimes have; bars are "
    "95% intervals over these and tasks. Look at what more steps bring to each arm.",
}
ALONG = {  # dotted setting: name of the figure, the axis
    "policy.steps": ("warmup", "Warm-up of the policy (gradient steps)"),
    "data.random_action_probability": ("random", "Random actions in the data (share)"),
    "rl.env_steps": ("steps", "Environment steps of RL"),
}
OF_TEACHER = "Distinct reflections of the teacher"
Panels = dict[tuple[str, str], Axes]  # by (target, tells)


def figures(main: pd.DataFrame, parts: pd.DataFrame, training: pd.DataFrame) -> dict[str, Figure]:
    """The first three figures of `CAPTIONS`, those that there is something to draw of; see each for what it is made of."""
    made = {"map": success_map(main), "parts": own_parts(parts), "costs": costs(training, main)}
    return {name: figure for name, figure in made.items() if figure is not None}


@matplotlib.rc_context(STYLE)
def success_along(main: pd.DataFrame, values: dict[tuple[str, str], float], xlabel: str) -> Figure | None:
    """Success where claims are judged (`tables.main_table`) by the `values` that a setting has, by regime and variant
    (`regimes.along`), a curve for each variant with more than one of them; None without such a curve."""
    rows = matching(at_headline(main), **HEADLINE)
    given = [values.get(key, np.nan) for key in zip(rows["regime"], rows["variant"], strict=True)]
    rows = rows.assign(value=given).dropna(subset="value").sort_values("value")
    rows = rows[rows.groupby("variant")["value"].transform("nunique") > 1]
    if rows.empty:
        return None
    figure = Figure(figsize=(4.6, 2.9), layout="constrained")
    axis, ticks = figure.subplots(), sorted(rows["value"].unique())
    variants = in_order(rows["variant"])
    for i, variant in enumerate(variants):
        own, colour = rows[rows["variant"] == variant], COLOURS[variant]
        x = own["value"].map(ticks.index) + 0.06 * (i - (len(variants) - 1) / 2)
        bar = np.clip([own["success"] - own["ci_low"], own["ci_high"] - own["success"]], 0, None)
        axis.errorbar(x, own["success"], bar, fmt="o-", color=colour, markersize=4, elinewidth=0.8, linewidth=1.2)
    axis.set(xlabel=xlabel, ylabel=_test_success(rows), ylim=(-0.03, 1.06), xlim=(-0.5, len(ticks) - 0.5))
    axis.set_xticks(range(len(ticks)), [style.thousands(tick) if tick >= 1 else f"{tick:g}" for tick in ticks])
    axis.grid(axis="x", visible=False)
    entries = [entry(VARIANTS[v].label, color=COLOURS[v], marker="o", markersize=4) for v in variants]
    style.legend_below(figure, [*entries, entry("95% interval", color=INK, linewidth=0.8, marker="|")])
    return figure


@matplotlib.rc_context(STYLE)
def success_map(main: pd.DataFrame) -> Figure | None:
    """Success where claims are judged (`tables.main_table`), with arrows from before to after RL; None without rows."""
    variants = [variant for _, _, ends in ARMS.values() for variant in ends]
    rows = _numbered(matching(at_headline(main), **HEADLINE), facts(main))
    rows = rows[rows["variant"].isin(variants)]
    if rows.empty:
        return None
    figure, panels = _panels(rows, _test_success(rows))
    places = _places(rows["number"])
    for key, axis in panels.items():
        own = _of_panel(rows, key)
        unit = _number_axis(axis, places)
        for _, regime in own.groupby("regime", sort=False):
            for colour, side, ends in ARMS.values():
                _arrow(axis, regime, ends, places[regime["number"].iloc[0]] * unit ** (2 * side), unit, colour)
        for ceiling in own["ceiling"].dropna().unique():
            axis.axhline(ceiling, **style.CEILING)
        axis.set(ylim=(-0.03, 1.06))
        axis.set_yticks(SHARE, [f"{tick:g}" for tick in SHARE])
    entries = [entry(label, color=colour, linewidth=2) for label, (colour, *_) in ARMS.items()]
    dot = {"color": INK, "marker": "o", "markersize": 4.5, "linewidth": 0.8}
    entries += [entry("before RL", markerfacecolor="white", **dot), entry("after RL", **dot)]
    entries.append(entry("95% interval", color=INK, linewidth=0.8, marker="|"))
    if rows["ceiling"].notna().any():
        entries.append(entry("ceiling", **style.CEILING))
    style.legend_below(figure, entries)
    return figure


def _test_success(rows: pd.DataFrame) -> str:
    """The axis of success on one panel, with the panel's name."""
    row = rows.iloc[0]
    return f"Test success, sampled (share),\n{get(row['env']).title(row['setting'])}, {row['horizon']} steps"


def _arrow(axis: Axes, rows: pd.DataFrame, ends: tuple[str, str], x: float, unit: float, colour: str) -> None:
    """A hollow dot before RL, a filled one after it, thin bars for their intervals, and an arrow where both are known."""
    points = []
    for variant, face, at in zip(ends, ("white", colour), (x / unit, x * unit), strict=True):
        for row in rows[rows["variant"] == variant].itertuples():
            bar = np.clip([[row.success - row.ci_low], [row.ci_high - row.success]], 0, None)
            look = {"markersize": 3.8, "markeredgewidth": 1, "elinewidth": 0.7, "capsize": 0}
            axis.errorbar(at, row.success, bar, fmt="o", color=colour, markerfacecolor=face, **look)
            points.append((at, row.success))
    if len(points) == len(ends):
        shape = {"arrowstyle": "-|>,head_width=0.2,head_length=0.35", "shrinkA": 1.5, "shrinkB": 1.5}
        before, after = points
        axis.annotate("", after, before, arrowprops={"color": colour, "linewidth": 0.9, **shape}, zorder=1)


@matplotlib.rc_context(STYLE)
def own_parts(parts: pd.DataFrame) -> Figure | None:
    """RL's and reflection's own part where claims are judged (`regimes.parts_table`); None without rows.

    Lines join neighbouring numbers of reflections; no limit, at the right end, is no number.
    """
    rows = _numbered(at_headline(parts), facts(parts))
    rows = rows[rows["part"].isin(CURVES)]
    if rows.empty:
        return None
    rows = rows.assign(**{column: 100 * rows[column] for column in ("effect", "ci_low", "ci_high")})
    figure, panels = _panels(rows, "Difference in test success\n(percentage points)")
    places = _places(rows["number"])
    for key, axis in panels.items():
        unit = _number_axis(axis, places)
        axis.axhline(0, color=INK, linewidth=0.8, zorder=0)
        for part, (_, colour, marker, side) in CURVES.items():
            own = _of_panel(rows[rows["part"] == part], key).sort_values("number")
            x = own["number"].map(places) * unit**side
            bar = np.clip([own["effect"] - own["ci_low"], own["ci_high"] - own["effect"]], 0, None)
            axis.errorbar(x, own["effect"], bar, fmt=marker, color=colour, markersize=4, elinewidth=0.8)
            line = own.set_index("number")["effect"].reindex([number for number in places if np.isfinite(number)])
            axis.plot([places[number] * unit**side for number in line.index], line, color=colour, linewidth=1.2)
    looks = CURVES.values()
    entries = [entry(label, color=colour, marker=marker, markersize=4) for label, colour, marker, _ in looks]
    style.legend_below(figure, [*entries, entry("95% interval", color=INK, linewidth=0.8, marker="|")])
    return figure


@matplotlib.rc_context(STYLE)
def costs(training: pd.DataFrame, main: pd.DataFrame) -> Figure | None:
    """Validation success over environment steps, a curve for each number of reflections; None without curves.

    `training` has `rl.METRICS` of each run, `main` (`tables.main_table`) what the regimes are. Without reflections the
    regime of the panel with the most examples counts.
    """
    rows = _numbered(training[training["val_success"].notna()], facts(main))
    reflecting, free = (rows[rows["variant"] == name] for name in ("reflect_rl", "sft_rl"))
    if reflecting.empty:
        return None
    figure, panels = _panels(reflecting, "Validation success (share)", "Environment steps")
    numbers = sorted(reflecting["number"].unique())
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(numbers))[::-1])  # the most is dark
    shades = dict(zip(numbers, colours, strict=True))
    for (target, tells), axis in panels.items():
        for (number, _), of_regime in _of_panel(reflecting, (target, tells)).groupby(["number", "regime"]):
            _curve(axis, of_regime, 1 + numbers.index(number), color=shades[number])
        others = _of_panel(free, (target, tells))
        if len(others):
            most = others.loc[others["number"].idxmax(), "regime"]
            look = {"color": INK, "linestyle": (0, (4, 1.5)), "linewidth": 1.2}
            _curve(axis, others[others["regime"] == most], 0, **look)
        axis.set(ylim=(-0.03, 1.06))
        axis.locator_params(axis="x", nbins=4)
        axis.xaxis.set_major_formatter(lambda steps, _: style.thousands(steps))
        axis.grid(axis="x", visible=False)
    entries = [entry(f"{_name(number)} reflections", color=shades[number]) for number in numbers]
    if len(free):
        entries.append(entry("none: SFT + RL", color=INK, linestyle=(0, (4, 1.5)), linewidth=1.2))
    if rows["seed"].nunique() > 1:
        entries.append(entry("95% interval over seeds, at the end", color=INK, linewidth=0.8, marker="|"))
    style.legend_below(figure, entries)
    return figure


def _curve(axis: Axes, rows: pd.DataFrame, place: int, **look) -> None:
    """Mean validation success over seeds at each measurement that all have and at their last one, and behind that, at a
    `place` of its own, its 95% `t_interval`: as bands, several curves could not be told apart."""
    steps, success = measurements(rows, "val_success")
    line = ":" if len(steps) <= FEW else "-"
    axis.plot(steps, success, marker="o", markersize=2.2, clip_on=False, **{"linestyle": line} | look)
    if rows["seed"].nunique() > 1:
        mean, *bounds = t_interval(rows.sort_values("env_steps").groupby("seed")["val_success"].last().to_numpy())
        bar = np.abs(np.clip(bounds, 0, 1) - mean)[:, None]
        axis.errorbar(steps[-1] * (1.03 + 0.02 * place), mean, bar, color=look["color"], elinewidth=0.8)


def _numbered(rows: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """The rows with the `facts` of their regimes, and `number`: of reflections, infinite where there is no limit."""
    rows = rows.drop(columns=FACTS, errors="ignore").merge(known, on=["env", "regime"])
    return rows.assign(number=rows["reflections"].astype("Float64").fillna(np.inf).astype(float))


def _of_panel(rows: pd.DataFrame, key: tuple[str, str]) -> pd.DataFrame:
    return rows[(rows["target"] == key[0]) & (rows["tells"] == key[1])]


def _panels(rows: pd.DataFrame, ylabel: str, xlabel: str = OF_TEACHER) -> tuple[Figure, Panels]:
    """A figure with a panel for each target and telling among the rows, all on the same axes."""
    run = {*zip(rows["target"], rows["tells"], strict=True)}
    keys = [key for key in itertools.product(TARGETS, TELLS) if key in run]
    num_columns = 2 if len(keys) == 4 else min(len(keys), 3)
    num_rows = -(-len(keys) // num_columns)
    width = 2.7 if rows["number"].nunique() > 1 or xlabel != OF_TEACHER else 2.2
    figure, axes = style.grid_of_panels(num_rows, num_columns, width, 1.9, sharex=True, sharey=True)
    for i, (axis, (target, tells)) in enumerate(zip(axes.flat, keys, strict=False)):
        axis.set_title(f"{TARGETS[target]};\nreflections {TELLS[tells]}")
        axis.tick_params(labelbottom=True)
        if i + num_columns >= len(keys):  # the lowest of its column
            axis.set_xlabel(xlabel)
    for unused in axes.flat[len(keys) :]:
        unused.remove()
    for axis in axes[:, 0]:
        axis.set_ylabel(ylabel)
    return figure, dict(zip(keys, axes.flat, strict=False))


def _places(numbers: Iterable[float]) -> dict[float, float]:
    """Where numbers of reflections stand on a logarithmic axis, in their order: no limit one step beyond the largest."""
    counts = sorted({number for number in numbers if np.isfinite(number)})
    places = {count: count for count in counts}
    if np.isinf([*numbers]).any():
        steps = max(len(counts) - 1, 1)
        places[np.inf] = counts[-1] * max((counts[-1] / counts[0]) ** (1 / steps), 1.6) if counts else 1.0
    return places


def _number_axis(axis: Axes, places: dict[float, float]) -> float:
    """A logarithmic x-axis with a tick at each place, named where there is room; returns the factor between neighbours
    that share a place."""
    low, high = min(places.values()), max(places.values())
    span = max(np.log10(high / low), 0.5)
    named = [[*places][-1]]
    for number in reversed([*places]):
        if np.log10(places[named[-1]] / places[number]) >= span / 8:
            named.append(number)
    labels = [_name(number) if number in named else "" for number in places]
    margin = 10 ** (0.1 * span)
    axis.set(xscale="log", xlim=(low / margin, high * margin))
    axis.set_xticks([*places.values()], labels)
    axis.minorticks_off()
    axis.grid(axis="x", visible=False)
    if np.inf in places and len(places) > 1:  # not to scale
        axis.axvline(
            np.sqrt(places[np.inf] * [*places.values()][-2]), color=FAINT, linewidth=0.8, linestyle=":", zorder=0
        )
    return 10 ** (0.014 * span)


def _name(number: float) -> str:
    return style.thousands(number) if np.isfinite(number) else "all"
