"""The registrations of AutoExplore: on generated companies, and on real repositories."""

from dataclasses import replace

from reflect_rl.envs.autoexplore import covering, panels, reading, real, teacher
from reflect_rl.envs.autoexplore.env import AutoExplore
from reflect_rl.envs.autoexplore.expert import expert_action, good_actions, oracle_action, phase, safe_actions
from reflect_rl.envs.autoexplore.questions import leak
from reflect_rl.envs.autoexplore.references import REFERENCES
from reflect_rl.envs.base import EnvSpec, Reported, Situation
from reflect_rl.envs.labels import by_name


def make(horizon: int = 15) -> AutoExplore:
    """In a generated company."""
    return AutoExplore(panels.question, panels.draw, horizon)


def make_real(horizon: int = 15) -> AutoExplore:
    """In a real repository."""
    return AutoExplore(real.question, real.draw, horizon)


def strata(task: str) -> dict[str, str]:
    """By how deep the file lies, and by what the question's words give away of its path."""
    question = panels.question(task)
    return {"depth": str(question.target.count("/")), "leak": leak(question.text, question.target)}


def strata_real(task: str) -> dict[str, str]:
    asked = real.asked(task)
    return {"depth": str(asked.path.count("/")), "leak": asked.leak, "repository": str(task).split("-")[1]}


def oracle_steps(task: str) -> int:
    """The length of the shortest success: one step a folder, and the naming."""
    return panels.question(task).target.count("/") + 1


def oracle_steps_real(task: str) -> int:
    return real.asked(task).path.count("/") + 1


def reflect(situation: Situation) -> str:
    return teacher.reflect(situation, reading)


def hint(situation: Situation) -> str:
    return teacher.hint(situation, reading)


def verdict(situation: Situation) -> str:
    return teacher.judged(situation, reading)


def reflect_real(situation: Situation) -> str:
    return teacher.reflect(situation, covering)


def hint_real(situation: Situation) -> str:
    return teacher.hint(situation, covering)


def verdict_real(situation: Situation) -> str:
    return teacher.judged(situation, covering)


SPEC = EnvSpec(
    name="autoexplore",
    gym_id="reflect_rl/AutoExplore-v0",
    make=make,
    tasks=panels.tasks,
    expert_action=expert_action,
    teacher=reflect,
    teachers={"hint": hint, "verdict": verdict},
    facts=teacher.facts,
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
    references=REFERENCES,
    strata=strata,
    labels=by_name(lambda action: action, 1024),
    tokenizer_pattern=r" ?[A-Za-z]+|[_/.][A-Za-z]+",
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

REAL = replace(
    SPEC,
    name="autoexplore_real",
    gym_id="reflect_rl/AutoExploreReal-v0",
    make=make_real,
    tasks=real.tasks,
    teacher=reflect_real,
    teachers={"hint": hint_real, "verdict": verdict_real},
    settings=real.SETTINGS,
    training_setting="known",
    headline="known",
    selection_settings=(),
    stages=real.DEPTHS,
    oracle_steps=oracle_steps_real,
    strata=strata_real,
    tokenizer_pattern="",
    task_source=real.source,
    reported=tuple(replace(row, setting="known") for row in SPEC.reported),
)
