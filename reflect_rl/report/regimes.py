"""What sets the regimes of an environment apart, and what RL and reflection each add in every one of them."""

import numpy as np
import pandas as pd

from reflect_rl.core.config import DECIDING, Config
from reflect_rl.envs import settings
from reflect_rl.envs.registry import get
from reflect_rl.evaluate.stats import paired_difference, rate_interval
from reflect_rl.report.claims import difference, in_points
from reflect_rl.report.curves import on_common_steps
from reflect_rl.report.rule import Rule, read_rule
from reflect_rl.report.tables import HEADLINE, matching, ordered, seeds_by_tasks

#: What tells regimes on one map apart, by section of the settings: the columns of `FACTS`, in their order.
AXES = {"data": ("reflections", "target"), "teacher": ("tells",)}
FACTS = ["reflections", "target", "tells"]
NEAR = 0.13  # of the environment steps: how far the nearest measurement may lie
PANEL = ["env", "regime", "setting", "horizon"]
PARTS = {  # each the success of one variant minus that of another, with a decoding that both have
    "RL, with reflections": ("reflect_rl", "reflect_sft", "sampled"),
    "RL, without": ("sft_rl", "sft_only", "sampled"),
    "reflection, before RL": ("reflect_sft", "sft_only", "sampled"),
    "reflection, after RL": ("reflect_rl", "sft_rl", "sampled"),
    "RL, with reflections, greedy": ("reflect_rl", "reflect_sft", "greedy"),
    "RL, without, greedy": ("sft_rl", "sft_only", "greedy"),
    "reflection, before RL, greedy": ("reflect_sft", "sft_only", "greedy"),
    "reflection, after RL, greedy": ("reflect_rl", "sft_rl", "greedy"),
    "beyond the advice": ("reflect_rl", "follow", "greedy"),
}
IMITATED = {"executed": "executed", "oracle": "expert"}
SHOWN = {"sft_rl": "SFT + RL", "reflect_sft": "Reflect-RL before RL", "reflect_rl": "after RL"}
ADDED = {
    "RL, with reflections": "RL adds",
    "RL, with reflections, greedy": "RL adds, greedy",
    "reflection, after RL": "reflections add",
}
UNDECIDED = " †"
COLUMNS = [*PANEL, "part", "comparison", "decoding", *FACTS, "n_seeds", "n_tasks", "effect", "ci_low", "ci_high"]


def comparable(profile: str, env: str) -> list[str]:
    """The regimes of an environment that differ from its first one with the same `data.target` in `FACTS` alone; of equal
    ones the first."""
    runs = [settings.load(profile, env, regime=name) for name in settings.profile(profile).regimes_of(env)]
    points, first = {}, {}
    for run in runs:
        point, others = _point(run)
        if others == first.setdefault(run.data.target, others):
            points.setdefault(point, run.regime)
    return [*points.values()]


def along(profile: str, env: str, name: str) -> dict[tuple[str, str], float]:
    """The value of a dotted setting, by (regime, variant), in each regime in which the variant's settings differ from
    those of the first in it alone; of equal ones the first. A mixture of several values is none."""
    section, field = name.split(".")
    grid, found = settings.profile(profile), {}
    first: dict[str, dict] = {}
    for regime in grid.regimes_of(env):
        for variant in grid.variants_of(env, regime):
            (value,), others = _point(settings.load(profile, env, variant, regime=regime), {section: (field,)})
            values = value if isinstance(value, tuple) else (value,)
            if others == first.setdefault(variant, others) and len(values) == 1:
                found.setdefault((variant, values[0]), regime)
    return {(regime, variant): value for (variant, value), regime in found.items()}


def on_common_seeds(episodes: pd.DataFrame, values: dict[tuple[str, str], float]) -> pd.DataFrame:
    """The episodes of an environment's variants that have several `values` (`along`), of the seeds that all of these have."""
    several = {variant for _, variant in values if len({v for (_, of), v in values.items() if of == variant}) > 1}
    keys = pd.MultiIndex.from_frame(episodes[["regime", "variant"]])
    rows = episodes[keys.isin([key for key in values if key[1] in several])]
    seeds = [set(of) for _, of in rows.groupby(["regime", "variant"])["seed"]]
    return rows[rows["seed"].isin(set.intersection(*seeds))] if seeds else rows


def _point(run: Config, axes: dict[str, tuple[str, ...]] = AXES) -> tuple[tuple, dict]:
    """The settings of `axes`, and all others that decide numbers."""
    others = run.sections(*DECIDING)
    return tuple(others[section].pop(name) for section, names in axes.items() for name in names), others


def facts(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns `FACTS` of each environment and regime, from rows of episodes or of the main table; no limit is NA.

    They are the regime's: also beside variants without reflection, in whose own rows `tells` is empty.
    """
    found = rows.groupby(["env", "regime"], sort=False)[FACTS].first()
    return found.astype({"reflections": "Int64"}).reset_index()


def parts_table(episodes: pd.DataFrame) -> pd.DataFrame:
    """The `PARTS` in each regime, setting and horizon of the test tasks: `paired_difference` over common seeds and tasks.

    A part of which one variant was not evaluated is left out.
    """
    rows, test = [], matching(episodes, split=HEADLINE["split"])
    test = test[test["variant"].isin({variant for *compared, _ in PARTS.values() for variant in compared})]
    for key, panel in test.groupby(PANEL, sort=False):
        found = {played: seeds_by_tasks(of) for played, of in panel.groupby(["variant", "decoding"])}
        for part, (variant, other, decoding) in PARTS.items():
            a, b = found.get((variant, decoding)), found.get((other, decoding))
            if effect := None if a is None or b is None else _difference(a, b):
                about = {"part": part, "comparison": f"{variant} vs {other}", "decoding": decoding}
                rows.append(dict(zip(PANEL, key, strict=True)) | about | effect)
    table = pd.DataFrame(rows, columns=[name for name in COLUMNS if name not in FACTS])
    return ordered(table.merge(facts(episodes), how="left", on=["env", "regime"])[COLUMNS], PANEL)


def _difference(a: pd.DataFrame, b: pd.DataFrame) -> dict | None:
    """Difference in success of two variants with its interval; None where they have no seed or no task in common."""
    a, b = a.align(b, join="inner")
    if not a.size:
        return None
    effect = dict(zip(("effect", "ci_low", "ci_high"), paired_difference(a.to_numpy(), b.to_numpy()), strict=True))
    return {"n_seeds": len(a), "n_tasks": a.shape[1]} | effect


def contributions(
    main: pd.DataFrame, parts: pd.DataFrame, claims: pd.DataFrame, rule: Rule | None = None
) -> pd.DataFrame:
    """What RL and reflections add at a glance, a row for each panel and regime in which the rule asks for RL's own part:
    success on test tasks, sampled, with that of the reflector's advice alone, and the differences in points, in words.

    `main` is `tables.main_table`, `parts` is `parts_table`, `claims` is `claims.claims_table`: `UNDECIDED` marks what it calls
    undecided.
    """
    rows, undecided = [], matching(claims, verdict="undecided")
    for env, entries in (rule or read_rule()).comparisons.items():
        for entry in (entry for entry in entries if entry.comparison == PARTS["RL, with reflections"][:2]):
            place = {"env": env, "regime": entry.regime, "setting": entry.setting, "horizon": entry.horizon}
            own, added = matching(main, **place, split=HEADLINE["split"]), matching(parts, **place).set_index("part")
            success = own.set_index(["variant", "decoding"])["success"]
            spec = get(env)
            row = {"panel": f"{spec.label}: {spec.title(entry.setting)}, {entry.horizon} steps", "regime": entry.regime}
            row["policy imitates"] = IMITATED[own["target"].dropna().iloc[0]] if own["target"].any() else ""
            for name, label in SHOWN.items():
                row[label] = success.get((name, HEADLINE["decoding"]), np.nan)
            row["advice alone"] = success.get(("follow", "greedy"), np.nan)
            for part, name in ADDED.items():
                known = part in added.index
                row[name] = in_points(*added.loc[part, ["effect", "ci_low", "ci_high"]]) if known else ""
                *compared, decoding = PARTS[part]
                panel = entry.model_copy(update={"decoding": decoding}).panel
                judged = {"env": env, "regime": entry.regime, "panel": panel, "comparison": " vs ".join(compared)}
                if len(matching(undecided, **judged)):
                    row[name] += UNDECIDED
            rows += [row] * bool(len(own))
    return pd.DataFrame(rows)


def contrasts(episodes: pd.DataFrame, rule: Rule | None = None) -> pd.DataFrame:
    """The `Rule.contrasts` of which the first and another were played: test success with its `rate_interval`, that of the
    worst seed, and under both decodings the difference from the first over common seeds and tasks, in words."""
    rows, test = [], matching(episodes, split=HEADLINE["split"])
    for env, entries in (rule or read_rule()).contrasts.items():
        for entry in entries:
            panel = matching(test, env=env, setting=entry.setting, horizon=entry.horizon)
            played = {key: seeds_by_tasks(of) for key, of in panel.groupby(["regime", "variant", "decoding"])}
            known = [of for of in entry.of if (*of, HEADLINE["decoding"]) in played]
            if len(known) > 1 and known[0] == entry.of[0]:
                rows += [{"env": env, "contrast": entry.title} | _beside(played, known[0], of) for of in known]
    return pd.DataFrame(rows)


def _beside(played: dict[tuple[str, str, str], pd.DataFrame], first: tuple[str, str], of: tuple[str, str]) -> dict:
    """A row of `contrasts`; `played` has the success of each regime, variant and decoding."""
    values, greedy = played[*of, HEADLINE["decoding"]], played.get((*of, "greedy"))
    row = {"regime": of[0], "variant": of[1], "n_seeds": len(values), "seed_min": values.mean(axis=1).min()}
    row |= dict(zip(("success", "ci_low", "ci_high"), rate_interval(values.to_numpy()), strict=True))
    row["success, greedy"] = np.nan if greedy is None else greedy.to_numpy().mean()
    for decoding, name in ((HEADLINE["decoding"], "minus the first"), ("greedy", "minus the first, greedy")):
        both = [played[*key, decoding] for key in (of, first) if (*key, decoding) in played]
        row[name] = difference(*both) if of != first and len(both) == 2 else ""
    return row


def budget_table(training: pd.DataFrame, known: pd.DataFrame, variant: str = "reflect_rl") -> pd.DataFrame:
    """Validation success of a variant, mean over seeds, before RL and after shares of its environment steps, by regime.

    `known` is `facts`. Empty where no seed was measured near a share. Sorted by target, what reflections tell, and their
    number, without a limit last.
    """
    measured = training[(training["variant"] == variant) & training["val_success"].notna()]
    rows = []
    for (env, regime), of_regime in measured.groupby(["env", "regime"], sort=False):
        steps, success = on_common_steps(of_regime, "val_success", 5)
        row = {"env": env, "regime": regime, "n_seeds": len(success), "env_steps": round(steps[-1])}
        at = of_regime["env_steps"].to_numpy()
        near = [np.abs(at - step).min() <= NEAR * steps[-1] for step in steps]
        means = np.where(near, success.mean(axis=0), np.nan)
        rows.append(row | dict(zip(("0", "25%", "50%", "75%", "100%"), means, strict=True)))
    table = known.merge(pd.DataFrame(rows, columns=["env", "regime"] if not rows else None), on=["env", "regime"])
    return table.sort_values(["env", "target", "tells", "reflections"], ignore_index=True)
