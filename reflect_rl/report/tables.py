"""The tables of the study: pure functions of raw results, and their CSV and Markdown with the protocol."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.typing import DataFrameGroupBy

from reflect_rl.core import files
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.variants import VARIANTS
from reflect_rl.envs.registry import get
from reflect_rl.evaluate.stats import rate_interval, t_interval

ROW_KEYS = [
    *("env", "regime", "setting", "split", "horizon", "decoding", "variant", "model"),
    *("reflections", "target", "tells"),
]
#: The rows beside which the paper's numbers stand; at `EnvSpec.claims_horizon` also those of figures.
HEADLINE = {"split": "test", "decoding": "sampled"}
SITUATIONS = ["start", "right", "wrong"]
#: what an arm is before its RL
BEFORE_RL = {"sft_rl": "sft_only", "reflect_rl": "reflect_sft", "reflect_rl_texts": "reflect_sft_texts"}
MARKS = ("names_best", "judges_right", "facts_right")  #: of a reflector, with intervals
#: Columns that Markdown shows in per cent (`effect` and the bounds beside it: percentage points).
RATES = {
    *("success", "ci_low", "ci_high", "validation", "ceiling", "paper", "effect", "names_fatal"),
    *("seed_min", "seed_max", "seed_sd", "SFT + RL", "Reflect-RL before RL", "after RL", "advice alone"),
    "success, greedy",
    *(f"{mark}{bound}" for mark in MARKS for bound in ("", "_low", "_high")),
    *(f"{when} RL {statistic}" for when in ("before", "after") for statistic in ("mean", "min", "max")),
}


def in_order(variants: Iterable[str]) -> list[str]:
    """The variants found here, in the order of the study."""
    found = set(variants)
    return [name for name in VARIANTS if name in found]


def versus(comparison: str) -> str:
    """What a comparison such as `reflect_rl vs sft_rl` is the difference of, as figures name it: `Reflect-RL - SFT + RL`."""
    return " - ".join(VARIANTS[name].label if name in VARIANTS else name for name in comparison.split(" vs "))


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The same with its variants as figures name them (in the columns `variant` and `comparison`, the rows and the header),
    and nothing where nothing is known."""
    names = {name: variant.label for name, variant in VARIANTS.items()}
    for axis in ("index", "columns"):
        if "variant" in getattr(table, axis).names:
            table = table.rename(names, axis=axis, level="variant" if getattr(table, axis).nlevels > 1 else None)
    said = {name: versus(name) for name in table.get("comparison", ()) if isinstance(name, str)}
    table = table.replace({"variant": names, "comparison": said})
    return table.astype(object).where(table.notna(), "") if table.isna().any(axis=None) else table


def matching(rows: pd.DataFrame, **values) -> pd.DataFrame:
    """The rows that have these values in these columns."""
    for name, value in values.items():
        rows = rows[rows[name] == value]
    return rows


def at_headline(rows: pd.DataFrame, every_setting: bool = False) -> pd.DataFrame:
    """The rows at the horizon that an environment's claims are judged at, of its headline setting or of every one."""
    specs = {env: get(env) for env in rows["env"].unique()}
    kept = rows["horizon"] == rows["env"].map({env: spec.claims_horizon for env, spec in specs.items()})
    if not every_setting:
        kept &= rows["setting"] == rows["env"].map({env: spec.headline for env, spec in specs.items()})
    return rows[kept]


def ceiling_of(ceilings: pd.DataFrame, env: str, setting: str, split: str, horizon: int) -> float | None:
    """Success of an optimal player within the horizon; None where it is not known.

    `ceilings` has columns env, setting, split, horizon, ceiling (`results.ceilings`), of one regime.
    """
    found = matching(ceilings, env=env, setting=setting, split=split, horizon=horizon)
    known = found["ceiling"].dropna()
    return float(known.iloc[0]) if len(known) else None


def scores(episodes: pd.DataFrame) -> np.ndarray:
    """Success `(num_seeds, num_tasks)` of one row of the results: the values of `seeds_by_tasks`."""
    return seeds_by_tasks(episodes).to_numpy()


def seeds_by_tasks(episodes: pd.DataFrame) -> pd.DataFrame:
    """Success of one row of the results, a row a seed and a column a task, both sorted: mean over repeats.

    Raises `ReflectRLError` where seeds differ in their tasks or repeats, or where rows are mixed.
    """
    for key in ROW_KEYS:
        if episodes[key].nunique(dropna=False) != 1:
            found = ", ".join(map(str, episodes[key].unique())) or "none"
            raise ReflectRLError(f"scores need episodes of one {key}, found: {found}; select one first")
    cells = episodes.groupby(["seed", "task"])["success"]
    counts = cells.size().unstack(fill_value=0)
    if counts.to_numpy().min() != counts.to_numpy().max():
        row = " ".join(filter(None, episodes[ROW_KEYS].iloc[0].astype(object).fillna("").map(str)))
        uneven = counts.index[(counts != counts.mode().max().max()).any(axis=1)].tolist()
        raise ReflectRLError(f"{row}: seeds {uneven} lack episodes of some tasks; evaluate them again")
    return cells.mean().unstack()


def main_table(episodes: pd.DataFrame, ceilings: pd.DataFrame, validated: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row for each variant, regime, setting and protocol: success with its `rate_interval`, the ceiling, the paper's
    number.

    Ceilings (`results.ceilings`) are the success that no policy can exceed. Success on validation tasks (`validation`)
    and the paper's numbers (`EnvSpec.reported`, from a secondary source) stand only beside rows of `HEADLINE`, these where the
    policy imitates executed actions, as the authors' does, and at the horizon that they name, if they name one.
    """

    def row(rows: pd.DataFrame) -> dict:
        by_seed = scores(rows)
        success, low, high = rate_interval(by_seed)
        counts = {"n_seeds": by_seed.shape[0], "n_tasks": by_seed.shape[1], "n_episodes": len(rows)}
        return counts | {"success": success, "ci_low": low, "ci_high": high}

    table = _row_per_group(episodes, ROW_KEYS, row)
    if validated is None:
        table = table.assign(validation=np.nan)
    else:
        table = table.merge(validated.assign(**HEADLINE), how="left")  # on all columns that both have
    table = table.merge(ceilings, how="left", on=["env", "regime", "setting", "split", "horizon"])
    compared = matching(table, **HEADLINE, target="executed")
    reported = [get(r.env).reported_rate(r.setting, r.variant, r.horizon) for r in compared.itertuples()]
    return table.assign(paper=pd.Series(reported, compared.index, dtype=float))


def validation(training: pd.DataFrame, horizons: dict[tuple[str, str], int]) -> pd.DataFrame:
    """Sampled success on validation tasks of the training setting, mean over seeds: of an arm with RL at its end, of what
    it was before (`BEFORE_RL`) at its beginning. Columns env, regime, setting, horizon, variant, validation.

    `training` has `rl.METRICS` of each run, `horizons` that of RL in each environment and regime.
    """
    ends = _ends_of_rl(training, "env", "regime", "variant").mean()
    begins = ends["before RL"][ends.index.isin(BEFORE_RL, level="variant")].rename(index=BEFORE_RL, level="variant")
    table = pd.concat([ends["after RL"], begins]).rename("validation").reset_index()
    settings = table["env"].map({env: get(env).training_setting for env in table["env"].unique()})
    steps = [horizons[key] for key in zip(table["env"], table["regime"], strict=True)]
    return table.assign(setting=settings, horizon=steps)


def seed_table(episodes: pd.DataFrame) -> pd.DataFrame:
    """How far seeds lie apart: of every row its mean, its worst and its best seed, and the deviation between seeds."""

    def row(rows: pd.DataFrame) -> dict:
        by_seed = scores(rows).mean(axis=1)
        ends = {"seed_min": by_seed.min(), "seed_max": by_seed.max()}
        return {"n_seeds": len(by_seed), "success": by_seed.mean(), **ends, "seed_sd": pd.Series(by_seed).std()}

    return _row_per_group(episodes, ROW_KEYS, row)


def headline(main: pd.DataFrame, env: str, setting: str) -> pd.DataFrame:
    """The main table of one regime in short: a row a variant, a column a protocol, `0.950 (0.930-0.970)` in each cell.

    `seeds x tasks` says how much stands behind a row.
    """
    spec = get(env)
    rows, table = matching(main, env=env, setting=setting, split=HEADLINE["split"]), []
    for variant in in_order(rows["variant"]):
        own = rows[rows["variant"] == variant]
        line = {"variant": VARIANTS[variant].label}
        line["seeds x tasks"] = f"{own['n_seeds'].iloc[0]} x {own['n_tasks'].iloc[0]}"
        for decoding in ("sampled", "greedy"):
            for horizon in sorted(rows["horizon"].unique(), reverse=True):
                cells = matching(own, decoding=decoding, horizon=horizon).itertuples()
                texts = [f"{cell.success:.3f} ({cell.ci_low:.3f}-{cell.ci_high:.3f})" for cell in cells]
                line[f"{decoding}, {horizon} steps"] = "".join(texts)
        if rows["paper"].notna().any():
            model = {number.model for number in spec.reported if (number.setting, number.variant) == (setting, variant)}
            texts = [f"{rate:.2f} ({', '.join(model)})" for rate in own["paper"].dropna().unique()]
            line["paper (secondary source)"] = "".join(texts)
        table.append(line)
    return pd.DataFrame(table)


def reflector_table(reflections: pd.DataFrame) -> pd.DataFrame:
    """How often the reflector is right, by situation: means over seeds of each seed's rate, with Student's 95% interval.

    `reflections` has `probes.REFLECTION_COLUMNS`; a mark that applies to no prompt is NaN.
    """

    def row(rows: pd.DataFrame) -> dict:
        by_seed = rows.groupby("seed")[[*MARKS, "names_fatal"]].mean()
        entry = {"n_seeds": len(by_seed), "n_prompts": len(rows)}
        for mark in MARKS:
            rates = by_seed[mark].dropna().to_numpy()
            bounds = np.clip(t_interval(rates), 0, 1) if len(rates) else [np.nan] * 3
            entry |= dict(zip((mark, f"{mark}_low", f"{mark}_high"), bounds, strict=True))
        return entry | {"names_fatal": by_seed["names_fatal"].mean()}

    return _row_per_group(reflections, ["env", "regime", "variant", "situation"], row)


def online_rl_table(training: pd.DataFrame) -> pd.DataFrame:
    """Validation success before and after online RL in one regime, a row a variant: mean, worst and best seed."""
    table = _ends_of_rl(training, "variant").agg(["mean", "min", "max"])
    table.columns = [" ".join(names) for names in table.columns]
    return ordered(table.reset_index(), ["variant"])


def _ends_of_rl(training: pd.DataFrame, *keys: str) -> DataFrameGroupBy:
    """Validation success before and after the RL of each seed, grouped by `keys`."""
    measured = training.dropna(subset=["val_success"]).sort_values("env_steps")
    ends = measured.groupby([*keys, "seed"])["val_success"]
    return pd.DataFrame({"before RL": ends.first(), "after RL": ends.last()}).groupby([*keys])


def given(budgets: pd.DataFrame) -> pd.DataFrame:
    """What each variant was given (`results.budget`): means over seeds."""
    keys, values = ["env", "regime", "variant"], list(budgets.columns[4:])
    table = budgets.astype(dict.fromkeys(values, float)).groupby(keys, sort=False)
    table = table[values].mean().round().astype("Int64").assign(n_seeds=table["seed"].nunique())
    return ordered(table.reset_index()[[*keys, "n_seeds", *values]], keys)


def prompt_table(prompts: pd.DataFrame) -> pd.DataFrame:
    """Whether prompts fit: of each variant the prompts that its policies read in evaluation, and how many were cut."""
    how = {"seed": "nunique", "prompts": "sum", "longest": "max", "limit": "min", "shortened": "sum"}
    keys = ["env", "regime", "variant"]
    table = prompts.groupby(keys, sort=False).agg(how).rename(columns={"seed": "n_seeds"})
    return ordered(table.reset_index(), keys)


def shown(frame: pd.DataFrame) -> pd.DataFrame:
    """A table in words: rates in per cent, differences in points, variants as figures name them, nothing where unknown."""
    return readable(pd.DataFrame({name: [_cell(name, value) for value in frame[name]] for name in frame}))


def write_table(
    frame: pd.DataFrame, path_stem: Path, title: str, protocol: str, made_by: str = "", opening: str = ""
) -> None:
    """Write `path_stem`.csv (rates 0 to 1, 4 digits) and .md (rates in per cent, variants as figures name them, with title,
    opening, protocol and the command)."""
    files.write_csv(path_stem.with_name(path_stem.name + ".csv"), frame.round(4))
    sides = ["right" if pd.api.types.is_numeric_dtype(frame[name]) else "left" for name in frame]
    body = shown(frame).to_markdown(index=False, disable_numparse=True, colalign=sides)
    units = "Rates in per cent. " * bool(RATES & set(frame))
    units = "Differences in percentage points. " if "effect" in frame else units
    command = f"\n\nMade by `{made_by}`." if made_by else ""
    opening = f"{opening}\n\n" if opening else ""
    text = f"# {title}\n\n{opening}{body}\n\n{units}Empty where unknown or not tested. {protocol}{command}\n"
    files.write_text(path_stem.with_name(path_stem.name + ".md"), text)


def _row_per_group(frame: pd.DataFrame, keys: list[str], row) -> pd.DataFrame:
    """The keys and `row(rows)` of each group of rows, in the order of the study."""
    groups = frame.groupby(keys, dropna=False, sort=False)
    return ordered(pd.DataFrame([{**dict(zip(keys, key, strict=True)), **row(rows)} for key, rows in groups]), keys)


def ordered(frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Sorted by `keys`; variants and situations in the order of the study, regimes in that of the rows, others by value."""
    places = {"variant": list(VARIANTS), "situation": SITUATIONS}
    if "regime" in frame:
        places["regime"] = list(frame["regime"].unique())
    for column in set(places) & set(frame):
        if unheard := set(frame[column]) - set(places[column]):
            raise ReflectRLError(f"unknown {column} {sorted(unheard)}; choose among: {', '.join(places[column])}")

    def place(values: pd.Series) -> pd.Series:
        return values.map(places[values.name].index) if values.name in places else values

    return frame.sort_values(keys, key=place, ignore_index=True)


def _cell(column: str, value) -> str:
    if pd.isna(value):
        return ""
    if column in RATES:
        return f"{100 * value:.1f}"
    if column in ("p", "p_holm"):
        return f"{value:.3f}" if value >= 0.001 else "< 0.001"
    return f"{value:,.1f}" if isinstance(value, float) else str(value)
