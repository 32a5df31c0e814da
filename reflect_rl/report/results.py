"""The raw results of a profile: collected from the run folders once, then read."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock

from reflect_rl.core import paths
from reflect_rl.core.config import DECIDING, Config
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.files import read_csv, read_json, write_csv, write_json, writing
from reflect_rl.core.identity import STAGES, stage_code, stage_dir
from reflect_rl.core.profiles import Profile
from reflect_rl.core.runtime import progress, provenance
from reflect_rl.envs import settings
from reflect_rl.envs.registry import get
from reflect_rl.evaluate.panels import PROMPT_COUNTS, agents, evaluate, frames
from reflect_rl.evaluate.probes import reflector_probes
from reflect_rl.train import data, rl
from reflect_rl.train.rollout import play

FILES = {
    "episodes": "episodes.csv.gz",
    "training": "training.csv.gz",
    "reflections": "reflections.csv.gz",
    "runs": "runs.csv",
    "ceilings": "ceilings.csv",
    "prompts": "prompts.csv",
}
MAIN_VARIANT = "reflect_rl"  # which every profile has


@dataclass(frozen=True)
class Results:
    """The raw results of a profile, as they lie in `results/<profile>/`.

    Attributes:
        episodes: `panels.EPISODE_COLUMNS`.
        training: the metrics of every RL run, with env, variant and seed.
        reflections: `probes.REFLECTION_COLUMNS`.
        runs: status, environment steps, seconds and memory of every RL run.
        ceilings: see `ceilings`.
        prompts: env, variant, seed and `panels.PROMPT_COUNTS`: the prompts that each policy read in its evaluation.
    """

    episodes: pd.DataFrame
    training: pd.DataFrame
    reflections: pd.DataFrame
    runs: pd.DataFrame
    ceilings: pd.DataFrame
    prompts: pd.DataFrame

    def of(self, env: str) -> "Results":
        """Those of one environment."""
        kept = {name: getattr(self, name) for name in FILES}
        return Results(**{name: rows[rows["env"] == env].reset_index(drop=True) for name, rows in kept.items()})


def entries(folder: Path) -> dict:
    """What a folder's manifest says of each environment; nothing where there is none."""
    path = folder / "manifest.json"
    return read_json(path).get("environments", {}) if path.exists() else {}


def places(profile_name: str) -> tuple[Path, Path]:
    """Where results of a profile may be: what was collected here, then what was committed."""
    return paths.results(profile_name), paths.project() / "results" / profile_name


def results(profile_name: str, env: str, collect: bool = False) -> Results:
    """The raw results of a profile, all environments that lie beside those of `env`.

    Only with `collect` is anything run or written: then `env` is collected from its run folders, where what is missing
    is run first. Otherwise results are read as they were collected here, or else as they were committed.

    Raises:
        ReflectRLError: there are none yet; the message names the command that makes them.
    """
    if collect:
        _collect(settings.profile(profile_name), env)
    for folder in places(profile_name):
        if env in entries(folder):
            return Results(**{name: read_csv(folder / file) for name, file in FILES.items()})
    raise ReflectRLError(
        f"no results of environment {env!r} in profile {profile_name!r} yet; make them with "
        f"`python -m reflect_rl reproduce --profile {profile_name} --env {env}`, or in Python with "
        f"results({profile_name!r}, {env!r}, collect=True)"
    )


def _collect(profile: Profile, env: str) -> None:
    """Everything that the tables and figures of an environment are made from; what has not been run yet is run.

    Writes `FILES`, `manifest.json`, `<env>_episode.json` and, where tasks are games on disk, `<env>_games.json` to
    `results/<profile>/`. What lies there of the profile's other environments stays.
    """
    configs = [
        settings.load(profile.name, env, v, seed) for v in profile.variants_of(env) for seed in profile.seeds_of(v)
    ]
    episodes, training, reflections, runs, prompts, checksums = [], [], [], [], [], {}
    for run in progress(configs, f"{profile.name} {env}: runs", unit="run"):
        episodes.append(evaluate(run))
        key = {"env": env, "variant": run.variant, "seed": run.seed}
        prompts.append(read_csv(stage_dir(run, "evaluation") / "prompts.csv").assign(**key))
        if run.arm.rl:
            training.append(read_csv(stage_dir(run, "rl") / "metrics.csv").assign(**key))
            runs.append(key | read_json(stage_dir(run, "rl") / "status.json"))
        if run.arm.reflection and run.arm.warmup == run.variant:
            reflections.append(reflector_probes(run))
        if run.arm.warmup or run.arm.rl:
            checksums[f"seed {run.seed}"] = data.make(run)["sha256"]["examples"]
    found = Results(
        pd.concat(episodes, ignore_index=True),
        pd.concat(training, ignore_index=True)[["env", "variant", "seed", *rl.METRICS]],
        pd.concat(reflections, ignore_index=True),
        pd.DataFrame(runs),
        ceilings(profile.name, env),
        pd.concat([p for p in prompts if len(p)], ignore_index=True)[["env", "variant", "seed", *PROMPT_COUNTS]],
    )
    main = settings.load(profile.name, env, MAIN_VARIANT, profile.seeds[0])
    entry = {
        "seeds": profile.seeds,
        "settings": {c.variant: c.sections(*DECIDING) for c in configs if c.seed == profile.seeds[0]},
        "code": {stage: stage_code(main, stage) for stage in STAGES},
        "data_sha256": checksums,
        "rl_seconds": round(sum(run["seconds"] for run in runs)),
        "provenance": provenance(),
        "machines": _machines(configs),
    }
    _write_games(main)
    keep_episode(main)
    _merge(paths.results(profile.name), profile, env, found, entry)


def ceilings(profile_name: str, env: str) -> pd.DataFrame:
    """Share of each panel's tasks that can be finished within each horizon: env, setting, split, horizon, ceiling.

    Empty cells in the last column where the environment does not know.
    """
    rows, spec = [], get(env)
    run = settings.load(profile_name, env)
    most = {"validation": run.data.tasks, run.evaluation.split: run.evaluation.tasks}
    for setting, split in itertools.product(spec.settings, most):
        if spec.panel(setting, split):
            for horizon in run.evaluation.horizons:
                rows.append([env, setting, split, horizon, spec.ceiling(setting, split, horizon, most[split])])
    table = pd.DataFrame(rows, columns=["env", "setting", "split", "horizon", "ceiling"])
    return table.astype({"ceiling": float})


def _write_games(run: Config) -> None:
    """What the tasks of an environment are on disk, with checksums, where they are more than their names."""
    spec = get(run.env)
    if spec.manifest is not None:
        most = {split: run.data.tasks for split in ("train", "validation")}
        most[run.evaluation.split] = run.evaluation.tasks
        panels = [spec.panel(setting, split, n) for setting in spec.settings for split, n in most.items()]
        path = paths.results(run.profile) / f"{run.env}_games.json"
        write_json(path, spec.manifest(itertools.chain(*panels)))


def keep_episode(run: Config) -> None:
    """Play the first test task of the headline setting greedily and keep it: `results/<profile>/<env>_episode.json`."""
    spec = get(run.env)
    task = spec.panel(spec.headline, "test")[0]
    agent, rngs = agents(run)["greedy"], [np.random.default_rng(run.seed)]
    (episode,) = play(spec, agent, [task], rngs, spec.claims_horizon)
    key = {"env": run.env, "variant": run.variant, "seed": run.seed, "task": task, "ended": episode.ended}
    write_json(paths.results(run.profile) / f"{run.env}_episode.json", key | {"frames": frames(episode)})


def example_episode(profile_name: str, env: str) -> dict | None:
    """What `keep_episode` kept, here or as committed: env, variant, seed, task, ended, frames; None without one."""
    found = [folder / f"{env}_episode.json" for folder in places(profile_name)]
    return next((read_json(path) for path in found if path.exists()), None)


def _machines(configs: Sequence[Config]) -> list[str]:
    """What the runs were made on, each machine once: training may have been on another one than collecting."""
    found = set()
    for run in configs:
        stages = ["rl", "evaluation", *(("reflector", "policy") if run.arm.warmup else ())]
        for path in (stage_dir(run, stage) / "provenance.json" for stage in stages):
            if path.exists():
                made = read_json(path)
                found.add(f"{made['machine']}, {made['cpu_cores']} CPU cores, {made['gpu'] or 'no GPU'}")
    return sorted(found)


def _merge(folder: Path, profile: Profile, env: str, found: Results, entry: dict) -> None:
    """Put the results of one environment in the place of its former ones."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        known = entries(folder)
        others = {name: read_csv(folder / file) for name, file in FILES.items()} if set(known) - {env} else None
        known = {name: entry if name == env else known.get(name) for name in profile.envs}
        known = {name: value for name, value in known.items() if value is not None}

        def whole(name: str) -> pd.DataFrame:
            own = getattr(found, name)
            kept = own.iloc[:0] if others is None else others[name]
            rows = pd.concat([own, kept[kept["env"] != env]])
            order = list(profile.envs)
            rows = rows[rows["env"].isin(order)]
            return rows.sort_values("env", key=lambda envs: envs.map(order.index), kind="stable", ignore_index=True)

        merged = {name: whole(name) for name in FILES}
        for name, file in FILES.items():
            write_csv(folder / file, merged[name])
        write_json(folder / "manifest.json", {"profile": profile.name, "environments": known})
