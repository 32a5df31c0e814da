"""What a reflector says in fixed situations: after right actions, after wrong ones, and at the start."""

from collections.abc import Iterator
from dataclasses import asdict

import gymnasium as gym
import numpy as np
import pandas as pd

from reflect_rl.core import files
from reflect_rl.core.config import Config
from reflect_rl.core.identity import locked_run_dir
from reflect_rl.envs.base import Situation
from reflect_rl.envs.play import act, advised_action, begin, expert_steps
from reflect_rl.envs.registry import get
from reflect_rl.lm.players import Reflector
from reflect_rl.lm.prompts import reflection_prompt
from reflect_rl.train import warmup

REFLECTION_COLUMNS = [
    *("env", "variant", "seed", "situation", "phase"),
    *("names_best", "judges_right", "names_fatal", "facts_right"),
]


def probe(config: Config) -> Iterator[tuple[gym.Env, Situation]]:
    """Situations along the expert's way through every task of the panel, each with the environment in that state.

    `start`: the first; `right`: after each of the expert's actions; `wrong`: after one wrong action that can be
    recovered from, at each step that has one.
    """
    spec = get(config.env)
    env = spec.make(horizon=10_000)
    rng = np.random.default_rng(7)  # the same probes for every seed and variant
    for task in spec.panel(spec.training_setting, config.evaluation.split, config.evaluation.tasks):
        for length in range(expert_steps(spec, task)):
            now = begin(spec, env, task)
            for _ in range(length):
                now = act(spec, env, now, spec.expert_action(env))
            yield env, now
            if slips := spec.slips_of(env, now.actions):
                after = act(spec, env, now, int(rng.choice(slips)))
                if after is not None and after.action_feedback == "wrong":
                    yield env, after


def probes(config: Config) -> list[tuple[Situation, tuple[int, ...], tuple[int, ...]]]:
    """The probed situations, each with the indices of its good and its safe actions: the same for all variants."""
    with locked_run_dir(config, "probes") as folder:
        path = folder / "probes.json"
        if not path.exists():
            spec = get(config.env)
            found = [(asdict(now), spec.good(env), spec.safe(env, now.actions)) for env, now in probe(config)]
            files.write_json(path, found)
    return [
        (Situation(**now | {"actions": tuple(now["actions"])}), tuple(good), tuple(safe))
        for now, good, safe in files.read_json(path)
    ]


def judge_reflector(config: Config, reflector: Reflector) -> pd.DataFrame:
    """What a reflector says in the probed situations; one row a situation, 0/1 in the columns that judge.

    `names_best`: the advice is a good action; `names_fatal`: it is unsafe; both empty where the teacher gives none.
    `judges_right`: it says truly whether the last action was right ("Starting", "was right", "was wrong"), empty where the
    environment's teacher does not say so. `facts_right`: share of the teacher's facts (`EnvSpec.facts`) that it states.
    """
    rows, spec = probes(config), get(config.env)
    teacher = spec.teacher_of(config.teacher.tells)
    prompts = [reflection_prompt(now.observation, now.last_action) for now, _, _ in rows]
    table = []
    texts = reflector.reflect(prompts)
    facts = warmup.facts_right(spec, teacher, [now for now, _, _ in rows], texts)
    for (now, good, safe), text, right in zip(rows, texts, facts, strict=True):
        advised = advised_action(text, now.actions)
        verdict = "Starting" if now.action_feedback == "start" else f"was {now.action_feedback}"
        key = [config.env, config.arm.warmup, config.seed, now.action_feedback, now.phase]
        told = teacher(now)
        judged = int(verdict in text) if verdict in told else None
        best, fatal = int(advised in good), int(advised is not None and advised not in safe)
        if advised_action(told, now.actions) is None:
            best = fatal = None
        table.append([*key, best, judged, fatal, round(right, 4)])
    return pd.DataFrame(table, columns=REFLECTION_COLUMNS)


def reflector_probes(config: Config) -> pd.DataFrame:
    """`judge_reflector` for the reflector of a variant and seed."""
    with locked_run_dir(config, "reflections") as folder:
        path = folder / "reflections.csv.gz"
        if not path.exists():
            players = warmup.warm_up(config, policy=False)
            files.write_csv(path, judge_reflector(config, players.reflector))
            warmup.keep_reflections(config, players)
    return files.read_csv(path)
