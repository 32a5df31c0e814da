"""The registrations of AutoExplore: on generated companies, and on real repositories."""

from dataclasses import replace
from functools import partial
from types import ModuleType

from reflect_rl.envs.autoexplore import covering, panels, reading, real, teacher
from reflect_rl.envs.autoexplore.env import AutoExplore, Reader
from reflect_rl.envs.autoexplore.expert import expert_action, good_actions, oracle_action, phase, safe_actions, slips
from reflect_rl.envs.autoexplore.references import REFERENCES
from reflect_rl.envs.base import EnvSpec
from reflect_rl.envs.labels import IN_ORDER

HORIZON = 15  # steps, and what the answer is worth: the paper's


def spec(name: str, gym_id: str, of: ModuleType, reader: Reader, **more) -> EnvSpec:
    """The registration of AutoExplore on the questions and panels of a module, such as `panels`, and one who reads them."""

    def make(horizon: int = HORIZON) -> AutoExplore:
        return AutoExplore(of.question, of.draw, horizon)

    def oracle_steps(task: str) -> int:  # of the shortest success: one step a folder, and the naming
        return of.path(task).count("/") + 1

    training = of.SETTINGS[0]
    return EnvSpec(
        name=name,
        gym_id=gym_id,
        make=make,
        tasks=of.tasks,
        expert_action=expert_action,
        teacher=partial(teacher.reflect, reader=reader),
        teachers={"hint": partial(teacher.hint, reader=reader), "verdict": partial(teacher.judged, reader=reader)},
        facts=teacher.facts,
        goal=(
            "A file of a repository answers the question. Walk through its folders (cd), read files (cat), and name the file that "
            "answers (id), which ends the game. Names may say nothing, or mislead: read a file before you name it. There are "
            f"{HORIZON} steps; a step costs 1, a wrong answer {HORIZON}, and so does none."
        ),
        legend=(
            "What the file that was read last shows, the question, the folder in which the player stands (again: it was here "
            "before), and the folders and files in it; before its name stand a file's type and whether it was read, and of a "
            "folder whether it was entered (been, twice), or nothing is left in it (done)."
        ),
        settings=of.SETTINGS,
        training_setting=training,
        headline=training,
        horizon=HORIZON,
        defaults={
            "rl.stage_shares": (0.2, 0.2),
            "evaluation.horizons": (HORIZON,),  # no other: what running out of steps costs depends on it
            "model.context": 512,
            "model.max_new_tokens": 72,
            "model.vocab_size": 4096,  # each word a token
            "model.init_std": 0.1,
            "model.n_conv": 2,
            "model.n_layer": 2,
            "model.n_head": 1,
            "model.start": "lookup",
        },
        stages=of.DEPTHS,
        good_actions=good_actions,
        safe_actions=safe_actions,
        slips=slips,
        phase=phase,
        oracle_action=oracle_action,
        oracle_steps=oracle_steps,
        references=REFERENCES,
        strata=of.strata,
        labels=replace(IN_ORDER, advice_last=True),
        task_source=of.source,
        draw="reflect_rl.envs.autoexplore.draw:DRAWING",
        **more,
    )


#: the words of questions, of files and of their names, which have blanks, are the same tokens wherever they stand
WORDS = r" ?[A-Za-z]+| ?[^A-Za-z\s]"
SPEC = spec(
    "autoexplore",
    "reflect_rl/AutoExplore-v0",
    panels,
    reading,
    label="AutoExplore",
    titles={"companies": "unseen companies", "trades": "unseen trades"},
    tokenizer_pattern=WORDS,
)
REAL = spec(
    "autoexplore_real",
    "reflect_rl/AutoExploreReal-v0",
    real,
    covering,
    label="AutoExplore, real repositories",
    titles={"known": "known repositories", "new": "new repositories"},
)
