"""Stage 1: the supervised warm-up of the two players, done once and then loaded."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from reflect_rl.core.config import Config
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.files import read_csv, read_json, write_csv, write_json
from reflect_rl.core.identity import locked_run_dir, stage_dir
from reflect_rl.envs.base import EnvSpec, Situation, Teacher
from reflect_rl.envs.registry import get
from reflect_rl.lm import distributed, models
from reflect_rl.lm.players import Encoder, Policy, Reflector
from reflect_rl.lm.prompts import labels_for, reflection_prompt
from reflect_rl.lm.scoring import ScoringPolicy
from reflect_rl.lm.tokenizers import load_tokenizer
from reflect_rl.train import data
from reflect_rl.train.agents import Follow, PerturbedAgent
from reflect_rl.train.rollout import play
from reflect_rl.train.sft import Pairs, fit

LOG_COLUMNS = ["step", "epoch", "loss", "grad_norm", "learning_rate", "eval_score"]
SETS = {  # warm-up variant -> SFT set of the reflector and of the policy
    "reflect_rl": ("reflector", "policy"),
    "reflect_rl_no_negatives": ("reflector_no_negatives", "policy_no_negatives"),
    "sft_only": (None, "policy_no_reflection"),
}


@dataclass
class PlayerPair:
    """The two players of a run; `reflector` is None where the variant has none."""

    policy: Policy
    reflector: Reflector | None


def new_players(config: Config) -> PlayerPair:
    """Untrained players with the tokenizer of the data."""
    data.make(config)
    return players_with(config, stage_dir(config, "data") / "tokenizer.json")


def players_with(config: Config, tokenizer_file: Path) -> PlayerPair:
    """Untrained players with a tokenizer that was trained before (a pretrained base has its own)."""
    tokenizer = load_tokenizer(config.model, tokenizer_file)
    built = models.build(config.model, tokenizer, config.seed)
    model = config.model
    if config.arm.scores_texts:
        policy = ScoringPolicy(built["policy"], tokenizer, model.context, model.max_new_tokens, model.normalisation)
    else:
        policy = Policy(built["policy"], tokenizer, model.context, labels_for(tokenizer, get(config.env).labels))
    if not config.arm.reflection:
        return PlayerPair(policy, None)
    limits = model.context, model.max_new_tokens, model.reflection_rows
    return PlayerPair(policy, Reflector(built["reflector"], tokenizer, *limits))


def validation_tasks(config: Config) -> list[str]:
    """The tasks by which players are judged while they are trained: the validation panel of the training setting."""
    spec, settings = get(config.env), config.data
    return spec.panel(spec.training_setting, "validation", settings.validation_tasks or settings.tasks)


def follow_success(config: Config, reflector: Reflector) -> float:
    """Success rate when following the reflector's advice on the *validation* tasks of the training setting.

    Mean of two rates: from the start, and with a wrong action forced on one step in ten and time to recover. A
    reflector's checkpoint and the end of its training are chosen by it.
    """
    reflector.memory.clear()
    spec = get(config.env)
    tasks = validation_tasks(config)
    follow = Follow(reflector)
    rates = []
    for agent, horizon in ((follow, spec.horizon), (PerturbedAgent(spec, follow, 0.1), 2 * spec.horizon)):
        rngs = [np.random.default_rng([config.seed, 2, i]) for i in range(len(tasks))]
        episodes = play(spec, agent, tasks, rngs, horizon)
        rates.append(sum(e.success for e in episodes) / len(episodes))
    return sum(rates) / len(rates)


def facts_right(spec: EnvSpec, teacher: Teacher, situations: Sequence[Situation], texts: Sequence[str]) -> list[float]:
    """For each situation the share of the facts in the teacher's reflection (`EnvSpec.facts_of`) that a text states."""
    found = []
    for situation, text in zip(situations, texts, strict=True):
        told, said = spec.facts_of(teacher(situation)), spec.facts_of(text)
        found.append(sum(said.get(name) == fact for name, fact in told.items()) / len(told))
    return found


def fact_accuracy(config: Config, reflector: Reflector) -> float:
    """Share of right facts in reflections on *validation* tasks: along the expert's way with one action in ten random.

    It chooses a reflector's checkpoint where reflections name no action that could be followed.
    """
    reflector.memory.clear()
    spec, rng = get(config.env), np.random.default_rng([config.seed, 2])
    env, tasks = spec.make(horizon=spec.horizon), validation_tasks(config)
    situations = [now for task in tasks for now, _ in data.trajectory(spec, env, task, 0.1, rng)]
    texts = reflector.reflect([reflection_prompt(now.observation, now.last_action) for now in situations])
    right = facts_right(spec, spec.teacher_of(config.teacher.tells), situations, texts)
    return sum(right) / len(right)


def warm_up(config: Config, policy: bool = True) -> PlayerPair:
    """The players of a variant after their warm-up: trained, or loaded where that was done before.

    With `policy=False` only the reflector is warmed up, for those who need no more. A variant without warm-up gets
    untrained players.

    Files in the run folder of the stage `reflector` or `policy`: `weights.safetensors` and `log.csv`.
    """
    players = new_players(config)
    if config.arm.warmup is None:
        return players
    reflector_set, policy_set = SETS[config.arm.warmup]
    if players.reflector is not None:
        measure = follow_success if config.teacher.tells == "action" else fact_accuracy
        measure = partial(measure, config, players.reflector)
        _ensure(config, "reflector", players.reflector, reflector_set, measure)
        players.reflector.memory = known_reflections(config)
    if policy:
        _ensure(config, "policy", players.policy, policy_set)
    return players


def known_reflections(config: Config) -> dict[str, str]:
    """What this frozen reflector has written so far: prompt -> reflection."""
    path = stage_dir(config, "reflector") / "reflections.json"
    return read_json(path) if path.exists() else {}


def keep_reflections(config: Config, players: PlayerPair) -> None:
    """Remember the reflections of a run for the next ones.

    They depend on their prompts alone where `Reflector` promises that; elsewhere this makes the runs of a seed agree.
    """
    if players.reflector is not None and config.arm.warmup is not None:
        with locked_run_dir(config, "reflector") as folder:
            write_json(folder / "reflections.json", known_reflections(config) | players.reflector.memory)


def training_log(config: Config, player: str) -> pd.DataFrame:
    """The log of a player's warm-up: step, loss, ..., and the score by which its weights were chosen.

    That of a reflector is its success when followed, or where it names no action its share of right facts.
    """
    return read_csv(stage_dir(config, player) / "log.csv")


def _ensure(config: Config, name: str, player: Policy | Reflector, set_name: str, measure=None) -> None:
    """Load a player's weights, or train and save them."""
    with locked_run_dir(config, name) as folder:
        target = folder / "weights.safetensors"
        if not target.exists() and distributed.is_distributed():
            raise ReflectRLError(f"no warmed-up {name} in {folder}; warm up in one process first (notebook 02)")
        if not target.exists():
            models.activate(player.model, name)
            tokenizer = player.encode.tokenizer
            writes = name == "reflector" or config.arm.scores_texts  # text that ends, and no label
            end, limit = [tokenizer.eos_token_id] * writes, player.encode.limit
            room = config.model.context - limit
            lines, settings = data.read(config, set_name), getattr(config, name)
            pairs = Pairs(lines, Encoder(tokenizer, limit), room, end)
            description = f"{config.arm.warmup} seed {config.seed}: {name} warm-up"
            work = folder / "checkpoints"
            rows = config.model.micro_batch
            log = fit(player.model, pairs, settings, work, config.seed, description, measure, rows)
            write_csv(folder / "log.csv", pd.DataFrame(log).reindex(columns=LOG_COLUMNS))
            models.save_weights(player.model, name, target)
            shutil.rmtree(work, ignore_errors=True)
    models.load_weights(player.model, name, target)
    player.model.eval()
