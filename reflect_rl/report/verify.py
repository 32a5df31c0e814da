"""Checks of results: whether the code that made them is still the same, and whether they can be true."""

import numpy as np
import pandas as pd

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.identity import STAGES, stage_code
from reflect_rl.envs import settings
from reflect_rl.envs.registry import get, names
from reflect_rl.report.results import entries, places
from reflect_rl.report.tables import HEADLINE

NOT_RECORDED = "not recorded"  # results of before code was hashed
NO_SUCH_ENVIRONMENT = "no such environment"


def stale(profile_name: str) -> pd.DataFrame:
    """Which collected results of a profile were made by other code than today's.

    Columns: env, stage, then (hash of the code when the results were collected, `NOT_RECORDED` where they are older than
    these hashes, which counts as stale), now, stale. No rows where a profile has no results.
    """
    known: dict[str, dict] = {}
    for folder in reversed(places(profile_name)):  # what was collected here counts before what was committed
        known |= entries(folder)
    rows = []
    for env, entry in known.items():
        run = settings.load(profile_name, env) if env in names() else None
        for stage in STAGES:
            then = entry.get("code", {}).get(stage, NOT_RECORDED)
            now = NO_SUCH_ENVIRONMENT if run is None else stage_code(run, stage)
            rows.append([env, stage, then, now, then != now])
    return pd.DataFrame(rows, columns=["env", "stage", "then", "now", "stale"])


def check_main(main: pd.DataFrame) -> list[str]:
    """What holds in a main table (`tables.main_table`), in words.

    Raises:
        ReflectRLError: a success rate is above its ceiling or outside its interval, or the oracle misses the ceiling:
            the message names the rows.
    """
    _none(main[main["success"] > main["ceiling"] + 1e-9], "above the ceiling")
    outside = (main["ci_low"] > main["success"] + 1e-9) | (main["success"] > main["ci_high"] + 1e-9)
    _none(main[outside], "outside its interval")
    held = [f"{main['ceiling'].notna().sum()} of {len(main)} rates have a ceiling, and none exceeds it"]
    oracle = main[(main["variant"] == "oracle") & main["ceiling"].notna()]
    if len(oracle):
        _none(oracle[~np.isclose(oracle["success"], oracle["ceiling"])], "of the oracle and not at the ceiling")
        held.append("the oracle reaches the ceiling everywhere")
    chance = main[(main["variant"] == "random") & (main["split"] == HEADLINE["split"])]
    for env, rows in chance.groupby("env"):
        own = rows[rows["setting"] == get(env).headline]["success"]
        if len(own):
            held.append(f"random play finishes {own.max():.1%} of the tasks of {env}")
    return held


def _none(rows: pd.DataFrame, what: str) -> None:
    if len(rows):
        named = rows[["env", "setting", "horizon", "decoding", "variant", "success"]].astype(str).agg(" ".join, axis=1)
        raise ReflectRLError(f"success {what}: {'; '.join(named)}; the raw episodes or the ceilings are wrong")
