"""The tables of the study: pure functions of raw episodes, and their CSV and Markdown with the protocol."""

from pathlib import Path

import numpy as np
import pandas as pd

from reflect_rl.core import files
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.variants import VARIANTS
from reflect_rl.envs.registry import get
from reflect_rl.evaluate.stats import rate_interval, t_interval

ROW_KEYS = ["env", "setting", "split", "horizon", "decoding", "variant", "model"]
SITUATIONS = ["start", "right", "wrong"]
#: The rows that claims are judged on, at `EnvSpec.claims_horizon`, and beside which the paper's numbers stand.
HEADLINE = {"split": "test", "decoding": "sampled"}

#: Columns that Markdown shows in per cent (`effect` and the bounds beside it: percentage points).
RATES = {
    *("success", "ci_low", "ci_high", "ceiling", "paper", "effect"),
    *("seed_min", "seed_max", "seed_sd"),
    *("names_best", "names_best_low", "names_best_high"),
    *(f"{when} RL {statistic}" for when in ("before", "after") for statistic in ("mean", "min", "max")),
    *("judges_right", "judges_right_low", "judges_right_high", "names_fatal"),
}


def scores(episodes: pd.DataFrame) -> np.ndarray:
    """Success `(num_seeds, num_tasks)` of one row of the results: mean over repeats, seeds and tasks sorted.

    Raises `ReflectRLError` where seeds differ in their tasks or repeats, or where rows are mixed.
    """
    for key in ROW_KEYS:
        if episodes[key].nunique(dropna=False) != 1:
            found = ", ".join(map(str, episodes[key].unique())) or "none"
            raise ReflectRLError(f"scores need episodes of one {key}, found: {found}; select one first")
    cells = episodes.groupby(["seed", "task"])["success"]
    counts = cells.size().unstack(fill_value=0)
    if counts.to_numpy().min() != counts.to_numpy().max():
        row = " ".join(map(str, episodes[ROW_KEYS].iloc[0]))
        uneven = counts.index[(counts != counts.mode().max().max()).any(axis=1)].tolist()
        raise ReflectRLError(f"{row}: seeds {uneven} lack episodes of some tasks; evaluate them again")
    return cells.mean().unstack().to_numpy()


def main_table(episodes: pd.DataFrame, ceilings: pd.DataFrame) -> pd.DataFrame:
    """One row for each variant, setting and protocol: success with its 95% interval, the ceiling, the paper.

    The interval is that of `stats.rate_interval`. `ceilings` has columns env, setting, split, horizon, ceiling: the rate
    that no policy can exceed, empty where it is not known. The paper's numbers (`EnvSpec.reported`, from a secondary
    source) stand only beside sampled test rows, at the horizon that they name, if they name one.
    """

    def row(rows: pd.DataFrame) -> dict:
        by_seed = scores(rows)
        success, low, high = rate_interval(by_seed)
        key = rows.iloc[0]
        published = None
        if all(key[column] == value for column, value in HEADLINE.items()):
            published = get(key["env"]).reported_rate(key["setting"], key["variant"], key["horizon"])
        return {
            **{"n_seeds": by_seed.shape[0], "n_tasks": by_seed.shape[1], "n_episodes": len(rows)},
            **{"success": success, "ci_low": low, "ci_high": high},
            "paper": np.nan if published is None else published,
        }

    table = _by_row(episodes, row).merge(ceilings, how="left", on=["env", "setting", "split", "horizon"])
    return table[[*ROW_KEYS, "n_seeds", "n_tasks", "n_episodes", "success", "ci_low", "ci_high", "ceiling", "paper"]]


def headline(main: pd.DataFrame, env: str, setting: str) -> pd.DataFrame:
    """The main table for a reader in a hurry: a row a variant, a column a protocol, `0.950 (0.930-0.970)` in each cell.

    `seeds x tasks` says how much stands behind a row.
    """
    spec = get(env)
    rows = main[(main["env"] == env) & (main["setting"] == setting) & (main["split"] == HEADLINE["split"])]
    protocols = [(d, h) for d in ("sampled", "greedy") for h in sorted(rows["horizon"].unique(), reverse=True)]
    table = []
    for variant in [name for name in VARIANTS if name in set(rows["variant"])]:
        own = rows[rows["variant"] == variant]
        line = {"variant": VARIANTS[variant].label}
        line["seeds x tasks"] = f"{own['n_seeds'].iloc[0]} x {own['n_tasks'].iloc[0]}"
        for decoding, horizon in protocols:
            cell = own[(own["decoding"] == decoding) & (own["horizon"] == horizon)]
            text = "".join(f"{r.success:.3f} ({r.ci_low:.3f}-{r.ci_high:.3f})" for r in cell.itertuples())
            line[f"{decoding}, {horizon} steps"] = text
        if spec.reported:
            model = {number.model for number in spec.reported if (number.setting, number.variant) == (setting, variant)}
            line["paper (secondary source)"] = "".join(
                f"{rate:.2f} ({', '.join(model)})" for rate in own["paper"].dropna().unique()
            )
        table.append(line)
    return pd.DataFrame(table)


def seed_table(episodes: pd.DataFrame) -> pd.DataFrame:
    """How far seeds lie apart: of every row its mean, its worst and its best seed, and the deviation between seeds."""

    def row(rows: pd.DataFrame) -> dict:
        by_seed = scores(rows).mean(axis=1)
        spread = by_seed.std(ddof=1) if len(by_seed) > 1 else np.nan
        ends = {"seed_min": by_seed.min(), "seed_max": by_seed.max()}
        return {"n_seeds": len(by_seed), "success": by_seed.mean(), **ends, "seed_sd": spread}

    return _by_row(episodes, row)


def reflector_table(reflections: pd.DataFrame) -> pd.DataFrame:
    """How often the reflector is right, after a right action, after a wrong one and at the start.

    `reflections` has one row a prompt: env, variant, seed, situation, phase and the 0/1 marks names_best,
    judges_right, names_fatal (NaN where a mark does not apply). Rates are means over seeds of each seed's
    rate, with Student's 95% interval.
    """
    table = []
    for (env, variant, situation), rows in reflections.groupby(["env", "variant", "situation"]):
        by_seed = rows.groupby("seed")[["names_best", "judges_right", "names_fatal"]].mean()
        entry = {"env": env, "variant": variant, "situation": situation}
        entry |= {"n_seeds": len(by_seed), "n_prompts": len(rows)}
        for mark in ("names_best", "judges_right"):
            rates = by_seed[mark].dropna().to_numpy()
            bounds = np.clip(t_interval(rates), 0, 1) if len(rates) else (np.nan, np.nan, np.nan)
            entry |= dict(zip((mark, f"{mark}_low", f"{mark}_high"), bounds, strict=True))
        table.append(entry | {"names_fatal": by_seed["names_fatal"].mean()})
    return _ordered(pd.DataFrame(table), ["env", "variant", "situation"])


def online_rl_table(training: pd.DataFrame) -> pd.DataFrame:
    """Validation success before and after online RL, a row a variant: mean, worst and best seed."""
    measured = training.dropna(subset=["val_success"]).sort_values("env_steps")
    ends = measured.groupby(["variant", "seed"])["val_success"]
    table = pd.DataFrame({"before RL": ends.first(), "after RL": ends.last()}).groupby("variant")
    table = table.agg(["mean", "min", "max"])
    table.columns = [" ".join(names) for names in table.columns]
    return _ordered(table.reset_index(), ["variant"])


def run_table(training_runs: pd.DataFrame) -> pd.DataFrame:
    """What each run cost and how it ended: env, variant, seed, status, reason, env_steps, seconds,
    peak_memory_mb; sorted by variant and seed."""
    return _ordered(training_runs, ["env", "variant", "seed"])


def prompt_table(prompts: pd.DataFrame) -> pd.DataFrame:
    """Whether prompts fit: of each variant the different prompts that its policies read in evaluation, the longest in
    tokens, the limit, and how many were shortened to it. `prompts` has one row a policy."""
    how = {"prompts": "sum", "longest": "max", "limit": "min", "shortened": "sum"}
    table = prompts.groupby(["env", "variant"]).agg(n_seeds=("seed", "nunique"), **{k: (k, f) for k, f in how.items()})
    return _ordered(table.reset_index(), ["env", "variant"])


def write_table(frame: pd.DataFrame, path_stem: Path, title: str, protocol: str) -> None:
    """Write `path_stem`.csv (rates 0 to 1, 4 digits) and .md (rates in per cent, with title and protocol).

    Each file is replaced whole; raises `ReflectRLError` where the folder cannot be written.
    """
    path_stem = Path(path_stem)
    files.write_csv(path_stem.with_name(path_stem.name + ".csv"), frame.round(4))
    shown = pd.DataFrame({name: [_cell(name, value) for value in frame[name]] for name in frame})
    numeric = [pd.api.types.is_numeric_dtype(frame[name]) for name in frame]
    body = shown.to_markdown(
        index=False, disable_numparse=True, colalign=["right" if number else "left" for number in numeric]
    )
    units = "Rates in per cent. " if RATES & set(frame) else ""
    text = f"# {title}\n\n{body}\n\n{units}Empty where unknown. {protocol}\n"
    files.write_text(path_stem.with_name(path_stem.name + ".md"), text)


def _by_row(episodes: pd.DataFrame, row) -> pd.DataFrame:
    """`row(rows)` for each row of the results, keys in front, in the order of the tables."""
    groups = episodes.groupby(ROW_KEYS, dropna=False)
    table = [{**dict(zip(ROW_KEYS, key, strict=True)), **row(rows)} for key, rows in groups]
    return _ordered(pd.DataFrame(table), ROW_KEYS)


def _ordered(frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Sorted by `keys`; variants and situations in the order of the study, others by value."""
    places = {"variant": list(VARIANTS), "situation": SITUATIONS}
    for column in set(places) & set(frame):
        unheard = set(frame[column]) - set(places[column])
        if unheard:
            raise ReflectRLError(f"unknown {column} {sorted(unheard)}; choose among: {', '.join(places[column])}")
    return frame.sort_values(
        keys,
        key=lambda values: values.map(places[values.name].index) if values.name in places else values,
        ignore_index=True,
    )


def _cell(column: str, value) -> str:
    if pd.isna(value):
        return ""
    if column in RATES:
        return f"{100 * value:.1f}"
    if column in ("p", "p_holm"):
        return f"{value:.3f}" if value >= 0.001 else "< 0.001"
    return f"{value:,.1f}" if isinstance(value, float) else str(value)
