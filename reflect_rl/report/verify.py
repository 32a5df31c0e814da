"""Checks of results: whether the code that made them is still the same, and whether they can be true."""

import numpy as np
import pandas as pd

from reflect_rl.core import paths
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.files import read_json
from reflect_rl.core.identity import STAGES, stage_code
from reflect_rl.envs import settings
from reflect_rl.envs.registry import get, names
from reflect_rl.report.results import collected
from reflect_rl.report.tables import HEADLINE
from reflect_rl.train.release import CARD

NOT_RECORDED = "not recorded"  # results of before code was hashed
NO_SUCH_ENVIRONMENT = "no such environment"


def stale(profile_name: str) -> pd.DataFrame:
    """Which results and released weights of a profile were made by other code than today's.

    A row each environment and stage, then one each release, none where there is nothing. Columns: env, stage, then (hash
    of the code that made them; `NOT_RECORDED`, which counts as stale, in results older than these hashes), now, stale.

    Raises:
        ReflectRLError: there is no such profile.
    """
    settings.profile(profile_name)
    rows = []
    for env, (_, entry) in collected(profile_name).items():
        run = settings.load(profile_name, env) if env in names() else None
        for stage in STAGES:
            then = entry.get("code", {}).get(stage, NOT_RECORDED)
            now = NO_SUCH_ENVIRONMENT if run is None else stage_code(run, stage)
            rows.append([env, stage, then, now, then != now])
    released = paths.weights() / profile_name
    for path in sorted(released.rglob(CARD)):
        env, *regime, variant, seed = path.parent.relative_to(released).parts
        run = settings.load(profile_name, env, variant, int(seed.removeprefix("seed")), regime="".join(regime))
        now, then = stage_code(run, "rl"), read_json(path).get("code", NOT_RECORDED)
        rows.append([env, f"weights of {' '.join([*regime, variant])}, {seed}", then, now, then != now])
    return pd.DataFrame(rows, columns=["env", "stage", "then", "now", "stale"]).astype({"stale": bool})


def check_main(main: pd.DataFrame) -> list[str]:
    """What holds in a main table (`tables.main_table`), in words.

    Raises:
        ReflectRLError: a success rate is above its ceiling or outside its interval, or the oracle misses the ceiling:
            the message names the rows.
    """
    known, oracle = main["ceiling"].notna(), main["variant"] == "oracle"
    outside = (main["ci_low"] > main["success"] + 1e-9) | (main["success"] > main["ci_high"] + 1e-9)
    for wrong, what in (
        (main["success"] > main["ceiling"] + 1e-9, "above the ceiling"),
        (outside, "outside its interval"),
        (oracle & known & ~np.isclose(main["success"], main["ceiling"]), "of the oracle and not at the ceiling"),
    ):
        if wrong.any():
            rows = main.loc[wrong, ["env", "regime", "setting", "horizon", "decoding", "variant", "success"]]
            named = "; ".join(" ".join(filter(None, row)) for row in rows.astype(str).itertuples(index=False))
            raise ReflectRLError(f"success {what}: {named}; the raw episodes or the ceilings are wrong")
    held = [f"{known.sum()} of {len(main)} rates have a ceiling, and none exceeds it"]
    if (oracle & known).any():
        held.append("the oracle reaches the ceiling everywhere")
    chance = main[(main["variant"] == "random") & (main["split"] == HEADLINE["split"])]
    for env, rows in chance.groupby("env"):
        success = rows.loc[rows["setting"] == get(env).headline, "success"].max()
        held.append(f"random play finishes {success:.1%} of the tasks of {env}")
    return held
