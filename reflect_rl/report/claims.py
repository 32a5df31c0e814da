"""The claims of the paper, and when one counts as reproduced.

Zhou, Du & Li, "Reflect-RL: Two-Player Online RL Fine-Tuning for LMs", ACL 2024, doi 10.18653/v1/2024.acl-long.56.

A claim says that one arm beats another; `configs/claims.yaml` (`rule.Rule`) lists what is compared, and the constants.
The verdict on a comparison is that of the first of these that applies:

1. `undecided` with too few seeds;
2. `undecided` where both arms succeed in less than `floor`: neither has learned the task;
3. `at the ceiling` where both reach `ceiling` of the best possible success: nothing is left to show;
4. `reproduced` where the difference is above 0, `not reproduced` where it is below, with p below `alpha` after Holm's
   adjustment for all comparisons, of all environments and regimes, that 1 to 3 leave; a note says so where the interval
   lies within `margin` of 0;
5. `equivalent` where its 95% interval lies within `margin` of 0;
6. `undecided`: more seeds or tasks are needed.
"""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from reflect_rl.core import paths
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.files import read_csv
from reflect_rl.core.variants import VARIANTS
from reflect_rl.evaluate.stats import holm, p_value, paired_difference, seeds_needed
from reflect_rl.report.rule import Entry, Rule, read_rule
from reflect_rl.report.tables import ceiling_of, matching, scores, seeds_by_tasks, versus

COLUMNS = [
    *("claim", "env", "setting", "regime", "comparison", "effect", "ci_low", "ci_high", "p", "p_holm", "verdict"),
    *("n_seeds", "n_tasks", "note"),
]


def verdict(row: dict, rule: Rule) -> tuple[str, str] | None:
    """(verdict, why) on a row of `_compared` by the first point that applies; None where it is to be tested first."""
    if row["n_seeds"] < row["seeds"]:
        return "undecided", f"only {row['n_seeds']} seed{'s' * (row['n_seeds'] != 1)}"
    if max(row["better"], row["worse"]) < rule.floor:
        return "undecided", f"both below {rule.floor:.0%}"
    if min(row["better"], row["worse"]) >= rule.ceiling * row["best"]:
        return "at the ceiling", ""
    if np.isnan(row["p_holm"]):
        return None
    if row["p_holm"] < rule.alpha:
        return ("reproduced" if row["effect"] > 0 else "not reproduced"), ""
    if _within_margin(row, rule):
        return "equivalent", ""
    if row["ci_low"] > 0 or row["ci_high"] < 0:
        return "undecided", f"p = {row['p_holm']:.3f} after Holm"
    return "undecided", "interval holds 0"


def _within_margin(row: dict, rule: Rule) -> bool:
    return -rule.margin <= row["ci_low"] and row["ci_high"] <= rule.margin


def claims_table(
    episodes: pd.DataFrame, ceilings: pd.DataFrame | None = None, rule: Rule | None = None
) -> pd.DataFrame:
    """The comparisons of the rule (by default the project's) whose regime was played here, judged; columns `COLUMNS`, and
    for `verdicts` the panel in words and the difference under greedy decoding, with its interval, in words.

    `effect` is the difference of the two success rates, with the 95% interval of `paired_difference` over the seeds and
    tasks that both have; with one seed over tasks alone. `p` is the `p_value` of that interval, and `p_holm` that after
    Holm's adjustment. A prompted model, which has one seed, is compared on the tasks that it played, and left out where
    these are too few episodes. Without `ceilings` (`results.ceilings`) the best possible success is 1.

    Raises:
        ReflectRLError: two variants have no seeds or tasks in common.
    """
    rule, rows = rule or read_rule(), []
    for env, entries in rule.comparisons.items():
        for entry in entries:
            found = matching(episodes, env=env, regime=entry.regime)
            if not found.empty and (row := _compared(env, entry, found, rule)):
                panel = env, entry.setting, entry.split, entry.horizon
                best = None if ceilings is None else ceiling_of(matching(ceilings, regime=entry.regime), *panel)
                rows.append(row | {"best": 1.0 if best is None else best})
    rows.sort(key=lambda row: list(rule.claims).index(row["claim"]))
    tested = [row for row in rows if verdict(row, rule) is None]
    for row, p_holm in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p_holm"] = p_holm
    for row in rows:
        row["verdict"], why = verdict(row, rule)
        notes = [f"{why}; {_needed(row, rule, max(len(tested), 1))}"] if why else []
        if row["verdict"] in ("reproduced", "not reproduced") and _within_margin(row, rule):
            notes.append(f"a difference of less than {100 * rule.margin:.0f} points")
        if row["greedy"]:
            notes.append(f"decoded greedily the difference is {row['greedy']} points")
        row["note"] = "; ".join(notes)
    return pd.DataFrame(rows, columns=[*COLUMNS, "panel", "greedy"])


def elsewhere(profile: str, envs: Collection[str], claims: pd.DataFrame) -> pd.DataFrame:
    """What other profiles' results say of claims that no row of `claims` (columns `COLUMNS`) tests in an environment of `envs`:
    rows of their `claims.csv`, with a column `profile`; of a comparison that several have, the one of the most seeds. A note says
    what p would be, had Holm's adjustment counted the comparisons of this profile, too."""
    tested, found = set(zip(claims["env"], claims["claim"].astype(str), strict=True)), []
    for other in sorted({path.stem for path in paths.configs().glob("*.yaml")} - {profile}):
        if path := paths.result_file(other, "claims.csv"):
            rows = read_csv(path, COLUMNS).astype({"claim": str}).assign(profile=other)
            keys = zip(rows["env"], rows["claim"], strict=True)
            found.append(rows[[key[0] in envs and key not in tested for key in keys]])
    table = pd.concat(found) if found else pd.DataFrame(columns=[*COLUMNS, "profile"])
    alike = ["claim", "env", "setting", "regime", "comparison"]
    table = table.sort_values(["n_seeds", "profile"], ascending=[False, True]).drop_duplicates(alike)
    table = table.sort_values(alike).reset_index(drop=True)
    ours, theirs = claims.loc[claims["p_holm"].notna(), "p"], table["p_holm"].notna()
    joint = holm([*ours, *table.loc[theirs, "p"]])[len(ours) :]
    said = [f"p = {p:.3f} after Holm with those of {profile}; " for p in joint]
    table.loc[theirs, "note"] = said + table.loc[theirs, "note"].fillna("")
    return table


def counted(claims: pd.DataFrame, envs: Sequence[str], rule: Rule, others: pd.DataFrame | None = None) -> str:
    """How many of the verdicts of `claims_table` are which, what no comparison in `envs` tests, and what others (`elsewhere`)
    say of that, in words."""
    if claims.empty:
        return "Nothing that configs/claims.yaml lists was played here, so no claim is judged."
    said = ", ".join(f"{number} {name}" for name, number in claims["verdict"].value_counts().items())
    tested = set(zip(claims["env"], claims["claim"], strict=True))
    untested = {env: [claim for claim in rule.claims if (env, claim) not in tested] for env in envs}
    left = "; ".join(f"{', '.join(names)} in {env}" for env, names in untested.items() if names)
    told = f"Comparisons: {said}." + f"\n\nClaims that are not tested here: {left}." * bool(left)
    if others is None or others.empty:
        return told
    lines = [
        f"- {row['claim']} in {row['env']}, {', '.join(filter(None, (row['setting'], row['regime'])))} (`{row['profile']}`): "
        f"{versus(row['comparison'])}: {row['verdict']}, {in_points(row['effect'], row['ci_low'], row['ci_high'])}"
        + f"; {row['note']}"
        * bool(row["note"])
        for row in others.dropna(subset="effect").fillna("").to_dict("records")
    ]
    return "\n".join([f"{told}\n\nIn other profiles, each judged by itself:\n", *lines])


def verdicts(claims: pd.DataFrame, rule: Rule | None = None) -> pd.DataFrame:
    """Rows of `claims_table` at a glance: a row a claim and comparison, a column a panel; effects in percentage points.

    Beside each stands the difference under greedy decoding, which the rule does not judge.
    """
    told, sentences = {}, (rule or read_rule()).claims
    for row in claims.to_dict("records"):
        text, numbers = row["verdict"], [row.get(name, np.nan) for name in ("effect", "ci_low", "ci_high")]
        if np.isfinite(numbers[0]):
            text += f": {in_points(*numbers)}"
        if row["greedy"]:
            text += f"; greedy {row['greedy']}"
        key = f"{row['claim']}. {sentences[row['claim']]}", versus(row["comparison"])
        told.setdefault(key, {})[row["panel"]] = text
    rows = [{"claim": claim, "comparison": compared} | of for (claim, compared), of in told.items()]
    return pd.DataFrame(rows, columns=None if rows else ["claim", "comparison"]).fillna("")


def _compared(env: str, entry: Entry, episodes: pd.DataFrame, rule: Rule) -> dict | None:
    """A row of the claims, not yet judged, with what decides; None for a prompted model of too few episodes."""
    place = {"setting": entry.setting, "horizon": entry.horizon, "split": entry.split, "decoding": entry.decoding}
    found, prompted = matching(episodes, **place), VARIANTS[entry.comparison[1]].prompted
    better, worse = (found[found["variant"] == name] for name in entry.comparison)
    if prompted and len(worse) < rule.prompted_episodes:
        return None
    row = {"claim": entry.claim, "env": env, "setting": entry.setting, "regime": entry.regime, "panel": entry.panel}
    row["greedy"] = "" if prompted else _greedy(entry, matching(episodes, **place | {"decoding": "greedy"}))
    row |= {"comparison": " vs ".join(entry.comparison), "n_seeds": 0, "n_tasks": 0, "a": None}
    row["seeds"] = rule.seeds_of_regime.get(env, {}).get(entry.regime, rule.seeds)
    row |= dict.fromkeys(("p_holm", "better", "worse"), np.nan)
    if better.empty or worse.empty:
        return row
    if prompted:
        better = better[better["task"].isin(worse["task"])]
    else:
        better, worse = better[better["seed"].isin(worse["seed"])], worse[worse["seed"].isin(better["seed"])]
    if better.empty or set(better["task"]) != set(worse["task"]):
        where = f"{env} {entry.setting} {row['comparison']}, regime {entry.regime}"
        raise ReflectRLError(f"{where}: no common seeds and tasks; evaluate both alike")
    a, b = scores(better), scores(worse)
    row |= dict(zip(("effect", "ci_low", "ci_high"), paired_difference(a, b), strict=True))
    row |= {"n_seeds": len(a), "n_tasks": a.shape[1], "p": p_value(a, b)}
    return row | {"a": a, "b": b, "better": a.mean(), "worse": b.mean()}


def _greedy(entry: Entry, episodes: pd.DataFrame) -> str:
    """Difference in success under greedy decoding, over the seeds and tasks that both have; empty without any."""
    better, worse = (episodes[episodes["variant"] == name] for name in entry.comparison)
    if better.empty or worse.empty:
        return ""
    return difference(seeds_by_tasks(better), seeds_by_tasks(worse))


def difference(a: pd.DataFrame, b: pd.DataFrame) -> str:
    """Difference of two `seeds_by_tasks` over the seeds and tasks that both have, in words; empty without any."""
    a, b = a.align(b, join="inner")
    return in_points(*paired_difference(a.to_numpy(), b.to_numpy())) if a.size else ""


def in_points(effect: float, low: float, high: float) -> str:
    """A difference of shares and its interval, in percentage points."""
    effect, low, high = (f"{whole:+d}" if (whole := round(100 * value)) else "0" for value in (effect, low, high))
    return f"{effect} ({low} to {high})"


def _needed(row: dict, rule: Rule, comparisons: int) -> str:
    """How many seeds a decision needs, and tasks where seeds are not enough, in words."""
    least, a = row["seeds"], row["a"]
    if a is None:
        return f"a decision needs {least} seeds of both"
    if max(row["better"], row["worse"]) < rule.floor:
        return "a decision needs an arm that has learned the task"
    if len(a) == 1:
        return f"the interval is over tasks alone, and a decision needs {least} seeds"
    with_enough = verdict(row | {"n_seeds": max(len(a), least)}, rule)
    if with_enough and with_enough[0] == "at the ceiling":
        return f"a decision needs {least} seeds"
    b = np.broadcast_to(row["b"], a.shape)
    sizes = {"margin": rule.margin, "alpha": rule.alpha, "comparisons": comparisons}
    if seeds := seeds_needed(a, b, **sizes):
        return f"a decision needs {max(seeds, least, len(a) + (len(a) >= least))} seeds"
    if tasks := seeds_needed(a.T, b.T, **sizes):
        return f"a decision needs {max(len(a), least)} seeds and {max(tasks, a.shape[1] + 1)} tasks"
    return f"a decision needs more seeds than {max(len(a), least)} and more tasks than {a.shape[1]}"
