"""Episodes of a variant on fixed panels of tasks: the raw results that all tables and figures are made from."""

import itertools

import numpy as np
import pandas as pd

from reflect_rl.core import files
from reflect_rl.core.config import Config
from reflect_rl.core.identity import locked_run_dir
from reflect_rl.envs.registry import get
from reflect_rl.evaluate import prompted
from reflect_rl.train import rl, warmup
from reflect_rl.train.agents import Follow, Random, Scripted
from reflect_rl.train.rollout import Agent, Episode, PlayersAgent, play

EPISODE_COLUMNS = [
    *("env", "regime", "setting", "variant", "model", "reflections", "target", "tells", "seed", "split", "task"),
    *("horizon", "decoding", "repeat", "success", "return", "steps", "ended", "provenance"),
]
PROMPT_COUNTS = ["prompts", "longest", "limit", "shortened"]  # see `players.Encoder`
AT_A_TIME = 128  # episodes that are played in lockstep


def agents(config: Config) -> dict[str, Agent]:
    """The agents of a variant by decoding (`sampled`, `greedy`), trained where that has not been done yet.

    `random` only samples; `oracle`, `expert`, `follow` and references are deterministic. Raises `ReflectRLError` for what
    an environment has not, such as an oracle.
    """
    spec = get(config.env)
    if config.variant == "random":
        return {"sampled": Random()}
    if config.arm.scripted:
        return {"greedy": Scripted(spec, config.variant)}
    if config.variant == "follow":
        return {"greedy": Follow(warmup.warm_up(config, policy=False).reflector)}
    if config.arm.prompted:
        return prompted.agents(config)
    players = rl.train(config) if config.arm.rl else warmup.warm_up(config)
    return {name: PlayersAgent(players.policy, players.reflector, name == "greedy") for name in ("sampled", "greedy")}


def frames(episode: Episode) -> list[dict]:
    """An episode as `film_strip` draws it: one frame a step, and the last observation."""
    steps = []
    for t in episode.transitions:
        action = t.actions[t.decision.action] if t.decision.action < len(t.actions) else "(no legal action)"
        steps.append((t.observation, t.decision.reflection, action, t.reward))
    names = ("observation", "reflection", "action", "reward")
    return [dict(zip(names, step, strict=True)) for step in [*steps, (episode.last_observation, "", "", 0.0)]]


def cut(episode: Episode, horizon: int) -> tuple[bool, float, int, str]:
    """(success, return, steps, ended) of an episode had its horizon been shorter: no player sees the clock."""
    if len(episode) <= horizon:
        return episode.success, episode.total_reward, len(episode), episode.ended
    return False, sum(t.reward for t in episode.transitions[:horizon]), horizon, "horizon"


def evaluate(config: Config) -> pd.DataFrame:
    """Raw episodes of one variant and seed on the panels of `config.evaluation`, columns `EPISODE_COLUMNS`.

    Every (task, repeat) has its own generator, the same for all variants. The regime and what it says of the data are not
    in the run folder, which regimes may share.
    """
    with locked_run_dir(config, "evaluation") as folder:
        path, counted = folder / "episodes.csv.gz", folder / "prompts.csv"
        if not (path.exists() and counted.exists()):
            chosen = agents(config)
            encoders = [agent.policy.encode for agent in chosen.values() if isinstance(agent, PlayersAgent)]
            for encode in encoders:
                encode.forget()  # what training has read is not counted
            episodes = _evaluate(config, chosen)
            one = encoders[:1]  # of the policy that both decodings share
            files.write_csv(counted, pd.DataFrame([encode.counts() for encode in one], columns=PROMPT_COUNTS))
            files.write_csv(path, episodes)
    return files.read_csv(path).assign(**_regime(config))[EPISODE_COLUMNS]


def _regime(config: Config) -> dict[str, str | int | None]:
    """The columns of a regime: its name, and of variants that learn what their data are like, None where unknown."""
    arm, learns = config.arm, bool(config.arm.warmup or config.arm.rl)
    about = {"reflections": config.data.reflections or None, "target": config.data.target}
    about["tells"] = config.teacher.tells if arm.reflection else None
    return {"regime": config.regime} | (about if learns else dict.fromkeys(about))


def _evaluate(config: Config, chosen: dict[str, Agent]) -> pd.DataFrame:
    spec, panel = get(config.env), config.evaluation
    tasks = {setting: spec.panel(setting, panel.split, panel.tasks) for setting in spec.settings}
    played = {wanted: [] for wanted in itertools.product(spec.settings, chosen)}
    for decoding, agent in chosen.items():
        repeats = panel.repeats if decoding == "sampled" else 1
        keys = [(s, i, r) for s in spec.settings for r in range(repeats) for i in range(len(tasks[s]))]
        for first in range(0, len(keys), AT_A_TIME):
            part = keys[first : first + AT_A_TIME]
            rngs = [np.random.default_rng([config.seed, 6, i, r]) for _, i, r in part]
            episodes = play(spec, agent, [tasks[s][i] for s, i, _ in part], rngs, max(panel.horizons))
            for (setting, _, repeat), episode in zip(part, episodes, strict=True):
                played[setting, decoding].append((repeat, episode))
    rows = []
    for (setting, decoding), horizon in itertools.product(played, panel.horizons):
        key = [config.env, setting, config.variant, config.model_name, config.seed, panel.split]
        for repeat, episode in played[setting, decoding]:
            success, total, steps, ended = cut(episode, horizon)
            outcome = [int(success), round(total, 4), steps, ended, spec.source_of(episode.task)]
            rows.append([*key, episode.task, horizon, decoding, repeat, *outcome])
    return pd.DataFrame(rows, columns=[name for name in EPISODE_COLUMNS if name not in _regime(config)])
