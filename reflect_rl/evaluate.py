"""Stage 3: fixed task panels, raw episodes, and the results folder that tables and figures are made from."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock

from reflect_rl import config as configuration
from reflect_rl import data, paper, paths, prompted, rl, sft
from reflect_rl.baselines import Expert, Follow, Oracle, Random
from reflect_rl.config import VARIANTS, Config, Profile
from reflect_rl.envs import domain
from reflect_rl.errors import ReflectRLError
from reflect_rl.paths import writing
from reflect_rl.players import Reflector
from reflect_rl.prompts import advised_action, reflection_prompt
from reflect_rl.rollout import Agent, Episode, Players, play
from reflect_rl.runs import claim, progress, provenance, read_csv, read_json, write_csv, write_json
from reflect_rl.tables import EPISODE_COLUMNS

FILES = {
    "episodes": "episodes.csv.gz",
    "training": "training.csv.gz",
    "reflections": "reflections.csv.gz",
    "runs": "runs.csv",
    "ceilings": "ceilings.csv",
    "prompts": "prompts.csv",
}
SIDE_BY_SIDE = 128  # episodes of an evaluation
LEVEL = 0.01  # difference in validation success of two points of a tuning grid that is none
COUNTS = ["prompts", "longest", "limit", "shortened"]
REFLECTION_COLUMNS = [
    "env", "variant", "seed", "situation", "phase", "names_best", "judges_right", "names_fatal",
]  # fmt: skip


def agents(config: Config) -> dict[str, Agent]:
    """The agent of a variant by decoding, trained where that has not been done yet.

    The untrained variants know one decoding each: `random` samples; `oracle`, `expert` and `follow` are deterministic.
    """
    if config.variant == "random":
        return {"sampled": Random()}
    if config.variant == "oracle":
        return {"greedy": Oracle()}
    if config.variant == "expert":
        return {"greedy": Expert()}
    if config.variant == "follow":
        return {"greedy": Follow(sft.warm_up(config, policy=False).reflector)}
    if config.arm.prompted:
        return prompted.agents(config)
    players = rl.train(config) if config.arm.rl else sft.warm_up(config)
    return {
        "sampled": Players(players.policy, players.reflector),
        "greedy": Players(players.policy, players.reflector, greedy=True),
    }


def frames(episode: Episode) -> list[dict]:
    """An episode as `figures.film_strip` draws it: one frame a step, and the last observation."""
    steps = [
        {
            "observation": t.observation,
            "reflection": t.decision.reflection,
            "action": t.actions[t.decision.action] if t.decision.action < len(t.actions) else "(no legal action)",
            "reward": t.reward,
        }
        for t in episode.transitions
    ]
    return [*steps, {"observation": episode.last_observation, "reflection": "", "action": "", "reward": 0.0}]


def cut(episode: Episode, horizon: int) -> tuple[bool, float, int, str]:
    """(success, return, steps, ended) of an episode had its horizon been shorter: no player sees the clock."""
    if len(episode) <= horizon:
        return episode.success, episode.total_reward, len(episode), episode.ended
    return False, sum(t.reward for t in episode.transitions[:horizon]), horizon, "horizon"


def evaluate(config: Config) -> pd.DataFrame:
    """Raw episodes of one variant and seed on the panels of `config.evaluation`; made once, then read.

    Columns: `tables.EPISODE_COLUMNS`. Every (task, repeat) has its own generator, the same for all variants.
    """
    folder = config.run_dir / "evaluation"
    trained = ("data", "model", "reflector", "policy", "rl")
    sections = config.sections(*(["prompted"] if config.arm.prompted else trained), "evaluation")
    path = folder / "episodes.csv.gz"
    with claim(folder, sections | {"variant": config.variant}):
        if not (path.exists() and (folder / "prompts.csv").exists()):
            chosen = agents(config)
            encoders = {id(a.policy.encode): a.policy.encode for a in chosen.values() if isinstance(a, Players)}
            for encode in encoders.values():
                encode.forget()  # what training has read is not counted
            episodes = _evaluate(config, chosen)
            write_csv(
                folder / "prompts.csv", pd.DataFrame([encode.counts() for encode in encoders.values()], columns=COUNTS)
            )
            write_csv(path, episodes)
    return read_csv(path)


def _evaluate(config: Config, chosen: dict[str, Agent]) -> pd.DataFrame:
    env, panel = domain(config.env), config.evaluation
    tasks = {setting: env.tasks(setting, panel.split, panel.tasks) for setting in env.settings}
    played = []
    for decoding, agent in chosen.items():
        repeats = panel.repeats if decoding == "sampled" else 1
        keys = [(s, i, r) for s in env.settings for r in range(repeats) for i in range(len(tasks[s]))]
        for first in range(0, len(keys), SIDE_BY_SIDE):
            part = keys[first : first + SIDE_BY_SIDE]
            rngs = [np.random.default_rng([config.seed, 6, i, r]) for _, i, r in part]
            episodes = play(env, agent, [tasks[s][i] for s, i, _ in part], rngs, max(panel.horizons))
            played += [(s, decoding, r, episode) for (s, _, r), episode in zip(part, episodes, strict=True)]
    rows = []
    for wanted in itertools.product(env.settings, chosen, panel.horizons):
        for setting, decoding, repeat, episode in played:
            if (setting, decoding) == wanted[:2]:
                success, total, steps, ended = cut(episode, horizon := wanted[2])
                key = [config.env, setting, config.variant, config.model_name, config.seed, panel.split]
                outcome = [int(success), round(total, 4), steps, ended, env.provenance(episode.task)]
                rows.append([*key, episode.task, horizon, decoding, repeat, *outcome])
    return pd.DataFrame(rows, columns=EPISODE_COLUMNS)


def probe(config: Config) -> Iterator[tuple]:
    """Situations along the best way through every task of the panel, each with the environment in that state.

    `start`: the first; `right`: after each of the best actions; `wrong`: after one wrong action that survives, at each
    step that has one.
    """
    env = domain(config.env).make(horizon=10_000)
    rng = np.random.default_rng(7)  # the same probes for every seed and variant

    def walk(task, length):
        now = data.begin(env, task)
        for _ in range(length):
            now = data.act(env, now, env.best_action())
        return now

    for task in domain(config.env).tasks("full", config.evaluation.split, config.evaluation.tasks):
        env.reset(options={"task": task})
        for length in range(env.steps_to_go()):
            now = walk(task, length)
            yield env, now
            wrong = env.wrong_actions()
            if wrong:
                after = data.act(env, now, int(rng.choice(wrong)))
                if after.verdict == "wrong":
                    yield env, after


def probes(config: Config) -> list[tuple[data.Situation, tuple[int, ...], tuple[int, ...]]]:
    """The probed situations of the panel, each with the indices of its good and its safe actions.

    They are the same for all variants and seeds: made once, then read.
    """
    folder = paths.runs(config.stage_profile("evaluation"), config.env) / "probes"
    path = folder / "probes.json"
    settings = {"env": config.env, "split": config.evaluation.split, "tasks": config.evaluation.tasks}
    with claim(folder, settings):
        if not path.exists():
            write_json(path, [[asdict(now), env.good_actions(), env.safe_actions()] for env, now in probe(config)])
    return [
        (data.Situation(**now | {"actions": tuple(now["actions"])}), tuple(good), tuple(safe))
        for now, good, safe in read_json(path)
    ]


def judge_reflector(config: Config, reflector: Reflector) -> pd.DataFrame:
    """What the reflector of a seed says in the probed situations; one row a situation, 0/1 in the last columns.

    `names_best`: the advice is as good as any that a player can know; `judges_right`: the verdict on the last action
    is the teacher's; `names_fatal`: the advice would end the episode.
    """
    rows = probes(config)
    prompts = [reflection_prompt(now.observation, now.last_action) for now, _, _ in rows]
    table = []
    for (now, good, safe), text in zip(rows, reflector.reflect(prompts), strict=True):
        advised = advised_action(text, now.actions)
        verdict = "Starting" if now.verdict == "start" else f"was {now.verdict}"
        key = [config.env, config.arm.warmup, config.seed, now.verdict, now.phase]
        fatal = advised is not None and advised not in safe
        table.append([*key, int(advised in good), int(verdict in text), int(fatal)])
    return pd.DataFrame(table, columns=REFLECTION_COLUMNS)


def judged(config: Config) -> pd.DataFrame:
    """`judge_reflector` for the reflector of a variant and seed; made once, then read."""
    folder = config.run_dir / "reflections"
    sections = config.sections("data", "model", "reflector", "evaluation")
    path = folder / "reflections.csv.gz"
    with claim(folder, sections | {"variant": config.variant}):
        if not path.exists():
            players = sft.warm_up(config, policy=False)
            write_csv(path, judge_reflector(config, players.reflector))
            sft.keep_reflections(config, players)
    return read_csv(path)


def ceilings(profile_name: str, env: str) -> pd.DataFrame:
    """Share of each panel's tasks that can be finished within each horizon: env, setting, split, horizon, ceiling."""
    rows, world = [], domain(env)
    run = configuration.load(profile_name, env)
    most = {"validation": run.data.tasks, run.evaluation.split: run.evaluation.tasks}
    for setting, split in itertools.product(world.settings, most):
        if world.tasks(setting, split):
            for horizon in run.evaluation.horizons:
                rows.append([env, setting, split, horizon, world.ceiling(setting, split, horizon, most[split])])
    return pd.DataFrame(rows, columns=["env", "setting", "split", "horizon", "ceiling"])


@dataclass(frozen=True)
class Results:
    """The raw results of a profile, as they lie in `results/<profile>/`.

    Attributes:
        episodes: `tables.EPISODE_COLUMNS`.
        training: the metrics of every RL run, with env, variant and seed.
        reflections: `REFLECTION_COLUMNS`.
        runs: status, environment steps, seconds and memory of every RL run.
        ceilings: see `ceilings`.
        prompts: env, variant, seed and `COUNTS`: the prompts that each policy read in its evaluation.
    """

    episodes: pd.DataFrame
    training: pd.DataFrame
    reflections: pd.DataFrame
    runs: pd.DataFrame
    ceilings: pd.DataFrame
    prompts: pd.DataFrame


def _entries(folder: Path) -> dict:
    """What a manifest says of each environment; nothing where there is none, or one of before this layout."""
    path = folder / "manifest.json"
    return read_json(path).get("environments", {}) if path.exists() else {}


def _read(folder: Path) -> Results:
    return Results(**{name: read_csv(folder / file) for name, file in FILES.items()})


def results(profile_name: str, env: str) -> Results:
    """The raw results of a profile, all environments that are there.

    Those of `env` are collected where it has been run here or nowhere yet; else they are as they were committed.
    """
    committed = paths.project() / "results" / profile_name
    if env not in _entries(committed) or paths.runs(profile_name, env).exists():
        return collect(profile_name, env)
    return _read(committed)


def collect(profile_name: str, env: str) -> Results:
    """Everything that the tables and figures of an environment are made from; what has not been run yet is run.

    Writes `FILES`, `manifest.json` and, where tasks are games on disk, `<env>_games.json` to `results/<profile>/`. What
    lies there of the profile's other environments stays.
    """
    profile = configuration.profile(profile_name)
    variants = profile.variants_of(env)
    configs = [configuration.load(profile_name, env, v, seed) for v in variants for seed in profile.seeds_of(v)]
    episodes, training, reflections, runs, prompts, checksums = [], [], [], [], [], {}
    for run in progress(configs, f"{profile_name} {env}: runs", unit="run"):
        episodes.append(evaluate(run))
        key = {"env": env, "variant": run.variant, "seed": run.seed}
        prompts.append(read_csv(run.run_dir / "evaluation" / "prompts.csv").assign(**key))
        if run.arm.rl:
            training.append(read_csv(run.run_dir / "rl" / "metrics.csv").assign(**key))
            runs.append(key | read_json(run.run_dir / "rl" / "status.json"))
        if run.arm.reflection and run.arm.warmup == run.variant:
            reflections.append(judged(run))
        if run.arm.warmup or run.arm.rl:
            checksums[f"seed {run.seed}"] = data.make(run)["sha256"]["examples"]
    found = Results(
        pd.concat(episodes, ignore_index=True),
        pd.concat(training, ignore_index=True)[["env", "variant", "seed", *rl.METRICS]],
        pd.concat(reflections, ignore_index=True),
        pd.DataFrame(runs),
        ceilings(profile_name, env),
        pd.concat([p for p in prompts if len(p)], ignore_index=True)[["env", "variant", "seed", *COUNTS]],
    )
    entry = {
        "seeds": profile.seeds,
        "settings": {c.variant: c.sections(*configuration.DECIDING) for c in configs if c.seed == profile.seeds[0]},
        "data_sha256": checksums,
        "rl_seconds": round(sum(run["seconds"] for run in runs)),
        "provenance": provenance(),
        "machines": _machines(configs),
    }
    folder, world = paths.results(profile_name), domain(env)
    if world.manifest is not None:
        asked = {split: configs[0].data.tasks for split in ("train", "validation")}
        asked[configs[0].evaluation.split] = configs[0].evaluation.tasks
        panels = [world.tasks(setting, split, most) for setting in world.settings for split, most in asked.items()]
        write_json(folder / f"{env}_games.json", world.manifest(itertools.chain(*panels)))
    return _merge(folder, profile, env, found, entry)


def _machines(configs: Sequence[Config]) -> list[str]:
    """What the runs were made on, each machine once: training may have been on another one than collecting."""
    found = set()
    for run in configs:
        folders = [run.run_dir / stage for stage in ("rl", "evaluation")]
        if run.arm.warmup:
            folders += [run.player_dir(player) for player in ("reflector", "policy")]
        for path in (folder / "provenance.json" for folder in folders):
            if path.exists():
                made = read_json(path)
                found.add(f"{made['machine']}, {made['cpu_cores']} CPU cores, {made['gpu'] or 'no GPU'}")
    return sorted(found)


def _merge(folder: Path, profile: Profile, env: str, found: Results, entry: dict) -> Results:
    """Put the results of one environment in the place of its former ones; returns those of all."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        entries = _entries(folder)
        others = _read(folder) if set(entries) - {env} else None
        entries = {name: entry if name == env else entries.get(name) for name in profile.envs}
        entries = {name: value for name, value in entries.items() if value is not None}

        def whole(name: str) -> pd.DataFrame:
            own = getattr(found, name)
            kept = own.iloc[:0] if others is None else getattr(others, name)
            rows = pd.concat([own, kept[kept.env != env]])
            places = list(profile.envs)
            rows = rows[rows.env.isin(places)]
            return rows.sort_values("env", key=lambda envs: envs.map(places.index), kind="stable", ignore_index=True)

        merged = Results(**{name: whole(name) for name in FILES})
        for name, file in FILES.items():
            write_csv(folder / file, getattr(merged, name))
        write_json(folder / "manifest.json", {"profile": profile.name, "environments": entries})
    return merged


def tuning_results(profile_name: str) -> pd.DataFrame | None:
    """What `collect_tuning` wrote, here or as committed; None where the profile was never tuned."""
    for folder in (paths.results(profile_name), paths.project() / "results" / profile_name):
        if (folder / "tuning.csv").exists():
            return read_csv(folder / "tuning.csv")
    return None


def collect_tuning(profile_name: str, env: str = "") -> pd.DataFrame:
    """Success of every point of the tuning grids on *validation* tasks; `results/<profile>/tuning.csv`.

    With `env`, of that environment's grid; what the file has of others stays.

    Columns: env, variant, seed, overrides, success (sampled, longest horizon, mean over the settings that the domain is
    judged by), and chosen: 1 for the point that `choose` names.
    """
    rows = []
    for job_env, variant, seed, overrides, _ in configuration.tuning(profile_name, env):
        run = configuration.load(profile_name, job_env, variant, seed, overrides)
        if run.evaluation.split != "validation":
            raise ReflectRLError(
                "tuning needs evaluation.split=validation in its grid; test tasks are never for a choice"
            )
        found = evaluate(run)
        asked = found[(found.horizon == found.horizon.max()) & (found.decoding == "sampled")]
        success = asked.groupby("setting").success.mean()[list(domain(job_env).judged)].mean()
        rows.append([job_env, variant, seed, overrides, success])
    table = pd.DataFrame(rows, columns=["env", "variant", "seed", "overrides", "success"])
    table["chosen"] = choose(table)
    path = paths.results(profile_name) / "tuning.csv"
    if path.exists():
        former = read_csv(path)
        table = pd.concat([former[~former.env.isin(table.env)], table], ignore_index=True)
    write_csv(path, table)
    return table


def choose(table: pd.DataFrame) -> list[int]:
    """For each row of a tuning table 1 where its point is chosen: the highest mean over the tuning seeds.

    A lead of less than `LEVEL` decides nothing, since points differ by as much between seeds: of such points the
    smallest learning rate of RL, which is the safest, and of several with that the highest mean, then the first.
    """
    best = set()
    points = table.groupby(["env", "variant", "overrides"], sort=False).success.mean()
    for _, means in points.groupby(level=["env", "variant"]):
        level = means[means > means.max() - LEVEL]
        rates = [float(dict(configuration.parse(point)).get("rl.learning_rate", 0)) for *_, point in level.index]
        safest = min(zip(rates, -level, level.index, strict=True), key=lambda entry: entry[:2])  # the first of equals
        best.add(safest[2])
    return [int(key in best) for key in zip(table.env, table.variant, table.overrides, strict=True)]


def protocol(profile_name: str, env: str) -> str:
    """One paragraph on how a profile's numbers come about, to be printed beside them."""
    profile, run = configuration.profile(profile_name), configuration.load(profile_name, env)
    if env not in profile.envs:
        raise ReflectRLError(f"profile {profile_name!r} does not run {env!r}; add it to `envs` in its file in configs/")
    panel, world = run.evaluation, domain(env)
    sizes = {setting: len(world.tasks(setting, panel.split, panel.tasks)) for setting in world.settings}
    if len(set(sizes.values())) == 1:
        tasks = f"{sizes[world.headline]} fixed {panel.split} tasks a setting"
    else:
        tasks = f"fixed {panel.split} tasks ({', '.join(f'{n} {setting}' for setting, n in sizes.items())})"
    return (
        f"Protocol: profile `{profile_name}`, {len(profile.seeds)} seeds, each with its own data, reflector and policy; "
        f"{tasks}; sampled decoding at temperature 1 with {panel.repeats} episodes a "
        f"task, greedy decoding with one; the policy is the one after {run.rl.env_steps} environment steps (no early "
        "stopping); the reflector's checkpoint and, where there is a tuning grid, its choice were decided on validation tasks "
        f"only. {_prompted(profile, env)}Claims are judged on sampled decoding within {paper.HORIZON[env]} steps. "
        "Intervals: 95%, bootstrap over whole seeds; in the main table over seeds within each task. "
        "The ceiling is the share of tasks that can be finished within the horizon at all. The paper's numbers come from a "
        f"secondary source and were measured with {paper.MODEL} on {paper.SAMPLE[env]}."
    )


def _prompted(profile: Profile, env: str) -> str:
    """How the prompted variants were evaluated, in a sentence; empty where there are none."""
    asked = [configuration.load(profile.name, env, v) for v in profile.variants_of(env) if VARIANTS[v].prompted]
    if not asked:
        return ""
    played = [
        f"{paper.VARIANTS[run.variant].label}: {run.evaluation.tasks or 'all'} tasks of each setting, "
        f"{run.evaluation.repeats} sampled episode{'s' * (run.evaluation.repeats > 1)} each"
        for run in asked
    ]
    return f"Prompted models ({asked[0].model_name}) are not trained and have one seed ({'; '.join(played)}). "


def protocols(profile_name: str) -> str:
    """Protocol and hardware of every environment of a profile, for tables that hold them all."""
    envs = configuration.profile(profile_name).envs
    texts = [f"{protocol(profile_name, env)} {hardware(profile_name, env)}".rstrip() for env in envs]
    if len(envs) == 1:
        return texts[0]
    return "\n\n".join(f"{env}. {text}" for env, text in zip(envs, texts, strict=True))


def hardware(profile_name: str, env: str) -> str:
    """What the runs of an environment's collected results were made on, in a sentence; empty where there are none yet."""
    made = _entries(paths.project() / "results" / profile_name) | _entries(paths.results(profile_name))
    return f"Made on {'; '.join(made[env]['machines'])}." if env in made else ""
