"""The registration of AutoExplore on generated companies."""

from reflect_rl.envs.autoexplore import panels
from reflect_rl.envs.autoexplore.env import AutoExplore
from reflect_rl.envs.autoexplore.expert import (
    expert_action,
    good_actions,
    oracle_action,
    oracle_steps,
    phase,
    safe_actions,
)
from reflect_rl.envs.autoexplore.teacher import TEACHERS, facts, reflect
from reflect_rl.envs.base import EnvSpec, Reported
from reflect_rl.envs.labels import by_name


def make(horizon: int = 15) -> AutoExplore:
    return AutoExplore(panels.question, panels.draw, horizon)


SPEC = EnvSpec(
    name="autoexplore",
    gym_id="reflect_rl/AutoExplore-v0",
    make=make,
    tasks=panels.tasks,
    first_tasks=panels.first_tasks,
    expert_action=expert_action,
    teacher=reflect,
    teachers=TEACHERS,
    facts=facts,
    goal=(
        "A file of a repository answers the question. Walk through its folders (cd), read files (cat), and name the file that "
        "answers (id), which ends the game."
    ),
    legend=(
        "What the file that was read last shows, the folder in which the player stands, and the folders and files in it; "
        "marked are files that were read, folders that were entered (been), and those of which nothing is left (done)."
    ),
    settings=("companies", "trades"),
    training_setting="companies",
    headline="companies",
    horizon=15,
    defaults={
        "rl.horizon": 15,
        "rl.stage_shares": (0.2, 0.2),
        "evaluation.horizons": (15, 30),
        "model.max_new_tokens": 40,
    },
    stages=panels.DEPTHS,
    good_actions=good_actions,
    safe_actions=safe_actions,
    phase=phase,
    oracle_action=oracle_action,
    oracle_steps=oracle_steps,
    labels=by_name(lambda action: action, 1024),
    tokenizer_pattern=r"_\w+|\.\w+|[^\W_]+",
    task_source=panels.source,
    reported=(
        Reported("companies", "sft_only", 0.04, "GPT-2 XL", 15),
        Reported("companies", "rl_only", 0.12, "GPT-2 XL", 15),
        Reported("companies", "sft_rl", 0.20, "GPT-2 XL", 15),
        Reported("companies", "reflect_rl", 0.36, "GPT-2 XL", 15),
        Reported("companies", "reflect_rl_no_negatives", 0.33, "GPT-2 XL", 15),
        Reported("companies", "prompted", 0.34, "Mistral 7B", 15),
    ),
    reported_on="44 questions on 12 repositories, at depth 1",
)
