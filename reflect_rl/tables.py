"""The tables of the study: pure functions of raw episodes, and their CSV and Markdown with the protocol."""

from pathlib import Path

import numpy as np
import pandas as pd

from reflect_rl import paper, runs
from reflect_rl.config import VARIANTS
from reflect_rl.errors import ReflectRLError
from reflect_rl.stats import paired_difference, seed_bootstrap, stratified_bootstrap, wilson

EPISODE_COLUMNS = [
    *("env", "setting", "variant", "model", "seed", "split", "task", "horizon", "decoding", "repeat"),
    *("success", "return", "steps", "ended", "provenance"),
]
ROW_KEYS = ["env", "setting", "split", "horizon", "decoding", "variant", "model"]
SITUATIONS = ["start", "right", "wrong"]

#: Columns that Markdown shows in per cent (`effect` and the bounds beside it: percentage points).
RATES = {
    *("success", "ci_low", "ci_high", "ceiling", "paper", "effect"),
    *("stratified_low", "stratified_high", "seed_low", "seed_high", "seed_min", "seed_max"),
    *("names_best", "names_best_low", "names_best_high"),
    *(f"{when} RL {statistic}" for when in ("before", "after") for statistic in ("mean", "min", "max")),
    *("judges_right", "judges_right_low", "judges_right_high", "names_fatal"),
}
INTERVAL_SEED = 20240812  # every row starts its own generator from it, so that no row depends on another


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

    The interval is the stratified bootstrap over `(seeds, tasks)`; with one seed Wilson's over episodes.
    `ceilings` has columns env, setting, split, horizon, ceiling: the rate that no policy can exceed.
    The paper's numbers (secondary source) stand only beside sampled test rows. Its taxi protocol is 100
    random maps at a horizon that is not known, so its taxi numbers stand beside horizon 20 alone.
    """

    def row(rows: pd.DataFrame) -> dict:
        by_seed = scores(rows)
        success, low, high = stratified_bootstrap(by_seed, _generator())
        if len(by_seed) == 1:
            low, high = wilson(int(rows["success"].sum()), len(rows))
        key = rows.iloc[0]
        published = None
        if (key["split"], key["decoding"]) == (paper.HEADLINE["split"], paper.HEADLINE["decoding"]):
            published = paper.reported(key["env"], key["setting"], key["variant"], key["horizon"])
        return {
            **{"n_seeds": by_seed.shape[0], "n_tasks": by_seed.shape[1], "n_episodes": len(rows)},
            **{"success": success, "ci_low": low, "ci_high": high},
            "paper": np.nan if published is None else published,
        }

    table = _by_row(episodes, row).merge(ceilings, how="left", on=["env", "setting", "split", "horizon"])
    return table[[*ROW_KEYS, "n_seeds", "n_tasks", "n_episodes", "success", "ci_low", "ci_high", "ceiling", "paper"]]


def with_seed_intervals(main: pd.DataFrame, episodes: pd.DataFrame) -> pd.DataFrame:
    """The main table with the intervals between seeds in place of those within: wide where failure is by seed.

    Rows of one seed keep their interval over episodes.
    """
    between = interval_table(episodes)[[*ROW_KEYS, "seed_low", "seed_high"]]
    table = main.merge(between, how="left", on=ROW_KEYS, validate="one_to_one")
    several = table["n_seeds"] > 1
    table["ci_low"] = table["seed_low"].where(several, table["ci_low"])
    table["ci_high"] = table["seed_high"].where(several, table["ci_high"])
    return table[main.columns]


def headline(main: pd.DataFrame, env: str, setting: str) -> pd.DataFrame:
    """The main table for a reader in a hurry: a row a variant, a column a protocol, `0.95 (0.93-0.97)` in each cell."""
    rows = main[(main["env"] == env) & (main["setting"] == setting) & (main["split"] == paper.HEADLINE["split"])]
    protocols = [(d, h) for d in ("sampled", "greedy") for h in sorted(rows["horizon"].unique(), reverse=True)]
    table = []
    for variant in [name for name in paper.VARIANTS if name in set(rows["variant"])]:
        own = rows[rows["variant"] == variant]
        line = {"variant": paper.VARIANTS[variant].label}
        for decoding, horizon in protocols:
            cell = own[(own["decoding"] == decoding) & (own["horizon"] == horizon)]
            text = "".join(f"{r.success:.3f} ({r.ci_low:.3f}-{r.ci_high:.3f})" for r in cell.itertuples())
            line[f"{decoding}, {horizon} steps"] = text
        models = {number.model for number in paper.REPORTED if (number.env, number.variant) == (env, variant)}
        other = "".join(f" ({model})" for model in models - {paper.MODEL})
        reported = "".join(f"{rate:.2f}{other}" for rate in own["paper"].dropna().unique())
        table.append(line | {"paper (secondary source)": reported})
    return pd.DataFrame(table)


def interval_table(episodes: pd.DataFrame) -> pd.DataFrame:
    """Both 95% intervals of every row, its worst and its best seed: how far seeds lie apart."""

    def row(rows: pd.DataFrame) -> dict:
        by_seed = scores(rows)
        success, stratified_low, stratified_high = stratified_bootstrap(by_seed, _generator())
        _, seed_low, seed_high = seed_bootstrap(by_seed, _generator())
        return {
            **{"n_seeds": len(by_seed), "success": success},
            **{"stratified_low": stratified_low, "stratified_high": stratified_high},
            **{"seed_low": seed_low, "seed_high": seed_high},
            **{"seed_min": by_seed.mean(axis=1).min(), "seed_max": by_seed.mean(axis=1).max()},
        }

    return _by_row(episodes, row)


def claims_table(episodes: pd.DataFrame) -> pd.DataFrame:
    """The paper's claims that compare two variants found here, judged on `paper.HEADLINE`, paired by seed.

    `effect` is the success of the first variant of `comparison` minus that of the second, with the 95%
    interval of `seed_bootstrap`. Seeds that only one of the two has are left out. A prompted model may have played a
    part of the tasks; it is compared on these.
    """
    table = []
    for (env, setting), found in paper.on_headline(episodes).groupby(["env", "setting"]):
        for claim in paper.CLAIMS:
            if not {claim.better, claim.worse} <= set(found["variant"]):
                continue
            better, worse = (found[found["variant"] == name] for name in (claim.better, claim.worse))
            comparison = f"{claim.better} vs {claim.worse}"
            untrained = VARIANTS[claim.worse].prompted  # its one seed stands against each of the other's
            if untrained:
                better = better[better["task"].isin(worse["task"])]
            common = set(better["seed"]) & set(worse["seed"])
            if not common or set(better["task"]) != set(worse["task"]):
                raise ReflectRLError(f"{env} {setting} {comparison}: no common seeds and tasks; evaluate both alike")
            if untrained:
                better, worse = scores(better), scores(worse)
                worse = np.broadcast_to(worse, better.shape)
            else:
                better, worse = (scores(rows[rows["seed"].isin(common)]) for rows in (better, worse))
            effect, low, high = paired_difference(better, worse, _generator())
            judged = paper.verdict(low, high)
            table.append((claim.number, env, setting, comparison, effect, low, high, judged))
    columns = ["claim", "env", "setting", "comparison", "effect", "ci_low", "ci_high", "verdict"]
    return pd.DataFrame(table, columns=columns).sort_values(["claim", "env", "setting"], ignore_index=True)


def reflector_table(reflections: pd.DataFrame) -> pd.DataFrame:
    """How often the reflector is right, after a right action, after a wrong one and at the start.

    `reflections` has one row a prompt: env, variant, seed, situation, phase and the 0/1 marks names_best,
    judges_right, names_fatal (NaN where a mark does not apply). Rates are means over seeds of each seed's
    rate, with the 95% interval of `seed_bootstrap`.
    """
    table = []
    for (env, variant, situation), rows in reflections.groupby(["env", "variant", "situation"]):
        by_seed = rows.groupby("seed")[["names_best", "judges_right", "names_fatal"]].mean()
        entry = {"env": env, "variant": variant, "situation": situation}
        entry |= {"n_seeds": len(by_seed), "n_prompts": len(rows)}
        for mark in ("names_best", "judges_right"):
            rates = by_seed[[mark]].dropna().to_numpy()
            interval = seed_bootstrap(rates, _generator()) if len(rates) else (np.nan, np.nan, np.nan)
            entry |= dict(zip((mark, f"{mark}_low", f"{mark}_high"), interval, strict=True))
        table.append(entry | {"names_fatal": by_seed["names_fatal"].mean()})
    return _ordered(pd.DataFrame(table), ["env", "variant", "situation"])


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


def flat(frame: pd.DataFrame) -> pd.DataFrame:
    """Index and nested column names as plain columns, `after RL mean` and so on."""
    frame = frame.copy()
    frame.columns = [" ".join(map(str, c)) if isinstance(c, tuple) else c for c in frame.columns]
    return frame.reset_index()


def write_table(frame: pd.DataFrame, path_stem: Path, title: str, protocol: str) -> None:
    """Write `path_stem`.csv (rates 0 to 1, 4 digits) and .md (rates in per cent, with title and protocol).

    Each file is replaced whole; raises `ReflectRLError` where the folder cannot be written.
    """
    path_stem = Path(path_stem)
    runs.write_csv(path_stem.with_name(path_stem.name + ".csv"), frame.round(4))
    shown = pd.DataFrame({name: [_cell(name, value) for value in frame[name]] for name in frame})
    numeric = [pd.api.types.is_numeric_dtype(frame[name]) for name in frame]
    body = shown.to_markdown(
        index=False, disable_numparse=True, colalign=["right" if number else "left" for number in numeric]
    )
    units = "Rates in per cent. " if RATES & set(frame) else ""
    text = f"# {title}\n\n{body}\n\n{units}Empty where unknown. {protocol}\n"
    runs.write_text(path_stem.with_name(path_stem.name + ".md"), text)


def _generator() -> np.random.Generator:
    return np.random.default_rng(INTERVAL_SEED)


def _by_row(episodes: pd.DataFrame, row) -> pd.DataFrame:
    """`row(rows)` for each row of the results, keys in front, in the order of the tables."""
    groups = episodes.groupby(ROW_KEYS, dropna=False)
    table = [{**dict(zip(ROW_KEYS, key, strict=True)), **row(rows)} for key, rows in groups]
    return _ordered(pd.DataFrame(table), ROW_KEYS)


def _ordered(frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Sorted by `keys`; variants and situations in the order of the study, others by value."""
    places = {"variant": list(paper.VARIANTS), "situation": SITUATIONS}
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
    return f"{value:,.1f}" if isinstance(value, float) else str(value)
