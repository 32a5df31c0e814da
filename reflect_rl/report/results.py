"""The raw results of a profile: collected from the run folders once, then read."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from filelock import FileLock
from safetensors import safe_open

from reflect_rl.core import paths
from reflect_rl.core.config import DECIDING, Config, threads
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.files import read_csv, read_json, write_csv, write_json, writing
from reflect_rl.core.identity import STAGES, stage_code, stage_dir
from reflect_rl.core.profiles import Profile, extends
from reflect_rl.core.runtime import hardware, progress, provenance
from reflect_rl.envs import settings
from reflect_rl.envs.registry import get
from reflect_rl.evaluate.panels import PROMPT_COUNTS, evaluate
from reflect_rl.evaluate.probes import reflector_probes
from reflect_rl.report import watch
from reflect_rl.report.raw import CHECKSUMS, COLUMNS, FILES, Results, checksums, collected, entries
from reflect_rl.report.rule import shown_alone
from reflect_rl.train import data, rl, warmup

MAIN_VARIANT = "reflect_rl"  # which every profile has


def results(profile_name: str, env: str, collect: bool = False) -> Results:
    """The raw results of a profile, all environments that lie beside those of `env`; raises `ReflectRLError` without any.

    They are read as they were collected here, or else as they were committed. Only with `collect` is anything run or
    written: then `env` is collected from its run folders, where what is missing is run first, but for what results hold
    already where `$REFLECT_RL_EXTEND` is 1.
    """
    if collect:
        _collect(settings.profile(profile_name), env)
    known = collected(profile_name)
    if env not in known:
        raise ReflectRLError(
            f"no results of environment {env!r} in profile {profile_name!r} yet; make them with "
            f"`python -m reflect_rl reproduce --profile {profile_name} --env {env}`, or in Python with "
            f"results({profile_name!r}, {env!r}, collect=True)"
        )
    return Results.read(known[env][0])


class Held(NamedTuple):
    """What is collected of a run: from its folders, or from results that hold it already."""

    rows: dict[str, pd.DataFrame]  #: what it adds to the raw results
    data: str | None  #: checksum of the examples that it learned from
    machines: list[str]  #: on which it was made
    source: dict = {}  #: what the manifest says of the results that it is taken from; empty for run folders
    episodes: Sequence[dict] = ()  #: those of it that are kept there to be watched


def runs_of(profile: Profile, env: str) -> list[Config]:
    """Every run of a profile in an environment."""
    return [settings.load(profile.name, env, v, seed, regime=regime) for regime, v, seed in profile.runs_of(env)]


def deciding(run: Config) -> dict:
    """All settings that decide its numbers, as a manifest has them, but the seed."""
    return json.loads(json.dumps(run.sections(*DECIDING) | {"seed": None}))


def code_of(runs: Sequence[Config]) -> dict[str, str]:
    """Hash of the code behind each stage of the main variant; that of prompted models and LM teachers is not in it."""
    main = next(run for run in runs if run.variant == MAIN_VARIANT)
    return {stage: stage_code(main, stage) for stage in STAGES}


def held(profile: Profile, env: str) -> dict[tuple[str, str, int], Held]:
    """The runs of a profile (regime, variant, seed) that results of any profile hold, of today's code, packages and games,
    with the settings and the number of threads that they would be made with now.

    A language model that is prompted or teaches has no such runs, since results do not record its code.
    """
    runs, spec = runs_of(profile, env), get(env)
    now, known = [code_of(runs), threads(), provenance()["packages"]], {}
    for name in dict.fromkeys([profile.name, *(path.stem for path in sorted(paths.configs().glob("*.yaml")))]):
        folder, entry = collected(name).get(env, (None, {}))
        if [entry.get("code"), *map(entry.get("provenance", {}).get, ("threads", "packages"))] == now:
            known = _holding(env, spec.source_of, folder, entry) | known
    found = {}
    for run in runs:
        of = known.get(_key(run.variant, run.seed, deciding(run)))
        if of and not (run.arm.prompted or run.teacher.model):
            rows = {name: rows.assign(regime=run.regime) for name, rows in of.rows.items()}
            found[run.regime, run.variant, run.seed] = of._replace(rows=rows)
    return found


def _key(variant: str, seed: int, decided_by: dict) -> tuple[str, int, str]:
    return variant, seed, json.dumps(decided_by | {"seed": None}, sort_keys=True)


def _holding(env: str, source_of: Callable[[str], str], folder: Path, entry: dict) -> dict[tuple[str, int, str], Held]:
    """The runs in a folder of results by variant, seed and settings; none where a game comes from elsewhere now."""
    tables, found = vars(Results.read(folder).of(env)), {}
    games = tables["episodes"][["task", "provenance"]].drop_duplicates().astype(object).fillna("")
    if any(source_of(task) != source for task, source in games.itertuples(index=False)):
        return {}
    keys = ["regime", "variant", "seed"]
    of_runs = {name: dict(iter(rows.groupby(keys))) for name, rows in tables.items() if "seed" in rows}
    for regime, made in entry["regimes"].items():
        path = watch.file_of(folder, f"{env}_{regime}" if len(entry["regimes"]) > 1 else env)
        kept = read_json(path) if path.exists() else []
        for run in (run for run in of_runs["episodes"] if run[0] == regime):
            _, variant, seed = run
            rows = {name: rows[run] for name, rows in of_runs.items() if run in rows}
            episodes = [episode for episode in kept if (episode["variant"], episode["seed"]) == (variant, seed)]
            of = Held(rows, made["data_sha256"].get(f"seed {seed}"), entry["machines"], entry, episodes)
            found.setdefault(_key(variant, seed, made["settings"][variant]), of)
    return found


def _collect(profile: Profile, env: str) -> None:
    """Write everything that tables and figures of an environment are made from, and run first what has not been run yet;
    with `extends` what results hold is taken from there, where it has no folder."""
    runs, known = runs_of(profile, env), held(profile, env) if extends() else {}
    parts, made, firsts, machines, sources = {name: [] for name in FILES}, {}, {}, set(), {}
    for run in progress(runs, f"{profile.name} {env}: runs", unit="run"):
        of = None if stage_dir(run, "evaluation").exists() else known.get((run.regime, run.variant, run.seed))
        of = of or made_by(run)
        for name, rows in of.rows.items():
            parts[name].append(rows)
        machines.update(of.machines)
        sources |= {id(of.source): of.source} if of.source else {}
        about = made.setdefault(run.regime, {"settings": {}, "data_sha256": {}})
        about["settings"].setdefault(run.variant, run.sections(*DECIDING))
        if of.data:
            about["data_sha256"][f"seed {run.seed}"] = of.data
        firsts.setdefault(run.regime, {}).setdefault(run.variant, (run, of))
    mains = [of_regime[MAIN_VARIANT][0] for of_regime in firsts.values()]
    parts["ceilings"] = [ceilings(profile.name, env, main.regime) for main in mains]
    found = Results(**{name: _joined(of_runs) for name, of_runs in parts.items()})
    entry = {
        "regimes": made,
        "code": code_of(runs),
        "rl_seconds": round(float(found.runs["seconds"].sum())),
        "provenance": provenance(),
        "machines": sorted(machines),
    }
    if sources:  # where the runs that were held come from, with their replays
        entry["held"] = [{n: of[n] for n in ("provenance", "held", "replayed") if n in of} for of in sources.values()]
    _keep_games(mains)
    for regime in shown_alone(profile, env):
        seen = [firsts[regime][variant] for variant in watch.VARIANTS if variant in firsts[regime]]
        episodes = [episode for run, of in seen for episode in (of.episodes if of.source else watch.watched(run))]
        if episodes:
            write_json(watch.file_of(paths.results(profile.name), profile.stem(env, regime)), episodes)
    _merge(profile, env, found, entry)


def made_by(run: Config) -> Held:
    """What lies in the folders of a run; what is missing there is run first."""
    key = {"env": run.env, "regime": run.regime, "variant": run.variant, "seed": run.seed}
    rows = {"episodes": evaluate(run)}
    prompts = read_csv(stage_dir(run, "evaluation") / "prompts.csv", PROMPT_COUNTS)
    rows["prompts"] = prompts.assign(**key)[COLUMNS["prompts"]]
    if run.arm.rl:
        folder = stage_dir(run, "rl")
        if not folder.exists():  # deleted, as it was damaged; the evaluation is still there and trains nothing
            rl.train(run)
        rows["training"] = read_csv(folder / "metrics.csv", rl.METRICS).assign(**key)[COLUMNS["training"]]
        rows["runs"] = pd.DataFrame([key | read_json(folder / "status.json")])
    if run.arm.reflection and run.arm.warmup == run.variant:
        rows["reflections"] = reflector_probes(run).assign(**key)[COLUMNS["reflections"]]
    learns = run.arm.warmup or run.arm.rl
    if learns:
        rows["budgets"] = pd.DataFrame([budget(run)])[COLUMNS["budgets"]]
    examples = data.make(run)["sha256"]["examples"] if learns else None
    return Held(rows, examples, _machines(run))


def _joined(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All rows in one frame; an empty part has no say in the types of the columns."""
    return pd.concat([rows for rows in parts if len(rows)] or parts[:1], ignore_index=True)


def _merge(profile: Profile, env: str, found: Results, entry: dict) -> None:
    """Write results of one environment, in the place of its former ones, beside those of the profile's others."""
    folder = paths.results(profile.name)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        known = entries(folder)
        former = Results.read(folder) if known.keys() - {env} else None
        known = {name: (known | {env: entry})[name] for name in profile.envs if name in known or name == env}
        parts = [found if name == env else former.of(name) for name in known]
        for name, file in FILES.items():
            write_csv(folder / file, _joined([getattr(part, name) for part in parts]))
        write_csv(folder / CHECKSUMS, checksums(folder))
        write_json(folder / "manifest.json", {"profile": profile.name, "environments": known})


def budget(run: Config) -> dict[str, str | int | None]:
    """What a trained run was given, and how large its players are; None where it has no such thing.

    `situations`: distinct ones that its examples are drawn from, and so the reflections of an arm that reads them;
    `reflector_samples`, `policy_samples`: examples of the warm-up, with repetitions; `reflector_parameters`,
    `policy_parameters`: trained ones, without a critic; `updates`, `env_steps`: of RL.
    """
    arm, row, acts = run.arm, dict.fromkeys(COLUMNS["budgets"]), run.variant != "follow"  # which has no policy
    row |= {"env": run.env, "regime": run.regime, "variant": run.variant, "seed": run.seed}
    if arm.warmup:
        row["situations"] = data.reflections(run, warmup.SETS[arm.warmup][1])
        if arm.reflection:
            measured = warmup.training_log(run, "reflector").dropna(
                subset="eval_score"
            )  # where training may have ended
            row["reflector_samples"] = int(measured["step"].max()) * run.reflector.batch_size
            row["reflector_parameters"] = _parameters(stage_dir(run, "reflector") / "weights.safetensors")
        if acts:
            row["policy_samples"] = run.policy.steps * run.policy.batch_size
            row["policy_parameters"] = _parameters(stage_dir(run, "policy") / "weights.safetensors")
    if arm.rl:
        metrics = read_csv(stage_dir(run, "rl") / "metrics.csv", rl.METRICS)
        row |= {name: int(metrics[of].max()) for name, of in (("updates", "update"), ("env_steps", "env_steps"))}
        row["policy_parameters"] = _parameters(stage_dir(run, "rl") / "policy.safetensors")
    return row


def _parameters(path: Path) -> int:
    with safe_open(path, "numpy") as stored:
        return sum(math.prod(stored.get_slice(name).get_shape()) for name in stored.keys())


def ceilings(profile_name: str, env: str, regime: str = "") -> pd.DataFrame:
    """Share of each panel's tasks that can be finished within each horizon: env, regime, setting, split, horizon, ceiling
    (NaN where the environment does not know)."""
    run, spec = settings.load(profile_name, env, regime=regime), get(env)
    rows = [
        [env, run.regime, setting, split, horizon, spec.ceiling(setting, split, horizon, most)]
        for setting in spec.settings
        for split, most in {
            "validation": run.data.validation_tasks or run.data.tasks,
            run.evaluation.split: run.evaluation.tasks,
        }.items()
        if spec.panel(setting, split)
        for horizon in run.evaluation.horizons
    ]
    table = pd.DataFrame(rows, columns=COLUMNS["ceilings"])
    return table.astype({"ceiling": float})


def _keep_games(runs: Sequence[Config]) -> None:
    """What the tasks of an environment's regimes are on disk, with checksums, where they are more than their names."""
    main, spec = runs[0], get(runs[0].env)
    if spec.manifest is not None:
        panels = {(split, run.data.tasks) for run in runs for split in ("train", "validation")}
        panels |= {(run.evaluation.split, run.evaluation.tasks) for run in runs}
        tasks = [t for setting in spec.settings for panel in sorted(panels) for t in spec.panel(setting, *panel)]
        write_json(paths.results(main.profile) / f"{main.env}_games.json", spec.manifest(tasks))


def _machines(run: Config) -> list[str]:
    """What a run was made on: training may have been on another machine than evaluation."""
    stages = ["rl", "evaluation", *(("reflector", "policy") if run.arm.warmup else ())]
    files = [stage_dir(run, stage) / "provenance.json" for stage in stages]
    made = [read_json(path) for path in files if path.exists()]
    return sorted({hardware(on) for on in made})
