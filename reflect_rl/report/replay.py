"""Whether the code that made results is still the same, and whether it makes them again."""

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
from filelock import FileLock

from reflect_rl.core import paths
from reflect_rl.core.config import Config
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.files import read_json, write_json
from reflect_rl.core.identity import STAGES, stage_code
from reflect_rl.core.runtime import progress
from reflect_rl.envs import settings
from reflect_rl.envs.registry import names
from reflect_rl.report.raw import collected
from reflect_rl.report.results import MAIN_VARIANT, code_of, deciding, made_by, results, runs_of
from reflect_rl.report.tables import matching
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


REPLAYED = ("episodes", "training", "reflections", "prompts")  # what of a run's results no machine should change


def replay(profile_name: str, env: str, number: int = 3, every_variant: bool = False) -> pd.DataFrame:
    """Make some runs of a profile with today's code, in a folder of their own, and compare them with its results.

    The main variant comes first, then others in turn, always the same ones; with `every_variant` at least one of each. A row
    each: regime, variant, seed, and of `REPLAYED` how many rows there are and how many of them differ in any digit, such as
    `0 of 240`; empty where a variant has none.

    Raises:
        ReflectRLError: there are no results, or none of runs of the profile, or settings differ from those of the results.
    """
    rows_of, entry = vars(results(profile_name, env)), collected(profile_name)[env][1]
    known = set(rows_of["episodes"].groupby(["env", "regime", "variant", "seed"]).groups)
    runs = [r for r in runs_of(settings.profile(profile_name), env) if (env, r.regime, r.variant, r.seed) in known]
    if not runs:
        raise ReflectRLError(f"results of {env} in profile {profile_name!r} hold none of its runs; reproduce it first")
    for run in runs:
        if changed := changed_settings(entry["regimes"][run.regime]["settings"][run.variant], run):
            what = f"{profile_name} {env} {run.regime} {run.variant}".replace("  ", " ")
            raise ReflectRLError(
                f"{what}: {', '.join(changed)} differ from what the results were made with; undo that first"
            )
    drawn = [runs[i] for i in np.random.default_rng(0).permutation(len(runs))]
    drawn.sort(key=lambda run: run.variant != MAIN_VARIANT)
    turns = pd.Series([run.variant for run in drawn], dtype=object)
    order = turns.groupby(turns).cumcount().sort_values(kind="stable").index  # one of each variant after the other
    number = max(number, turns.nunique()) if every_variant else number
    rows = []
    with home_of_its_own():
        for run in progress([drawn[i] for i in order[:number]], f"{profile_name} {env}: replay", unit="run"):
            key, made = {"regime": run.regime, "variant": run.variant, "seed": run.seed}, made_by(run).rows
            theirs = {name: matching(rows_of[name], env=env, **key) for name in REPLAYED}
            rows.append(key | {name: _differing(made.get(name), theirs[name]) for name in REPLAYED})
    return pd.DataFrame(rows, dtype=object)


def agree(replayed: pd.DataFrame) -> bool:
    """Whether a `replay` found no row that differs."""
    return not replayed[[*REPLAYED]].map(lambda text: text and not text.startswith("0 of")).any(axis=None)


def accept_replay(profile_name: str, env: str, replayed: pd.DataFrame) -> None:
    """Let results of other code count as made by today's, since `replay` of every variant found no difference: noted in the
    manifest, with the runs. New settings are noted with their values. Raises ReflectRLError where a row differs."""
    if not agree(replayed):
        raise ReflectRLError(f"rows of {env} differ; reproduce it, or undo what changed them")
    runs, (folder, _) = runs_of(settings.profile(profile_name), env), collected(profile_name)[env]
    with FileLock(folder / ".lock"):
        manifest = read_json(folder / "manifest.json")
        entry = manifest["environments"][env]
        noted = {"instead_of": entry["code"], "runs": replayed.to_dict("records")}
        entry.setdefault("replayed", []).append(noted)
        entry["code"] = code_of(runs)
        for run in runs:
            known = entry["regimes"].get(run.regime, {}).get("settings", {})
            if run.variant in known:
                known[run.variant] = deciding(run) | {"seed": known[run.variant]["seed"]}
        write_json(folder / "manifest.json", manifest)


def changed_settings(made: dict, run: Config) -> list[str]:
    """The names of the settings that a manifest has of a run and that differ now, or are no more; new ones do not count."""
    return _changed(made | {"seed": None}, deciding(run))


def _changed(then: dict, now: dict, place: str = "") -> list[str]:
    found = []
    for name, value in then.items():
        if isinstance(value, dict) and isinstance(now.get(name), dict):
            found += _changed(value, now[name], f"{place}{name}.")
        elif name not in now or now[name] != value:
            found.append(place + name)
    return found


@contextmanager
def home_of_its_own() -> Iterator[None]:
    """A folder for products that is thrown away; data that are fetched or generated once are those of the usual one."""
    data = paths.cache("")
    data.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, REFLECT_RL_HOME=folder):
        (Path(folder) / data.name).symlink_to(data.resolve())
        yield


def _differing(made: pd.DataFrame | None, held: pd.DataFrame) -> str:
    """How many of the rows of a run are not those that results hold of it."""
    made = held.head(0) if made is None else made
    number = max(len(made), len(held))
    if len(made) != len(held) or set(made) - set(held):
        return f"{number} of {number}"
    texts = (io.StringIO(rows.to_csv(index=False)) for rows in (made, held[[*made]]))
    made, held = (pd.read_csv(text) for text in texts)  # 1 and 1.0 are the same number
    return f"{len(made.compare(held))} of {number}" if number else ""
