"""What the library knows of the household: the registered name, `alfworld`, is that of the benchmark.

`alfworld_text` plays the same tasks and shows the game's own text, all of the episode, instead of notes.
"""

from dataclasses import replace
from functools import partial

from reflect_rl.envs.base import EnvSpec, Reported
from reflect_rl.envs.household import store
from reflect_rl.envs.household.engine import workers
from reflect_rl.envs.household.env import Household, label_key, oracle_steps
from reflect_rl.envs.household.teacher import facts, hint, reflect, verdict
from reflect_rl.envs.labels import by_name

RECEPTACLES = (  # ALFWorld's kinds
    "armchair bathtubbasin bed cabinet cart coffeemachine coffeetable countertop desk diningtable drawer dresser fridge "
    "garbagecan handtowelholder laundryhamper microwave ottoman paintinghanger safe shelf sidetable sinkbasin sofa "
    "stoveburner toaster toilet toiletpaperhanger towelholder tvstand"
)
#: one token each: a receptacle with its number, which `go` needs as a whole; other words and numbers apart, so that a
#: thing is the same word in the task and wherever it lies
WORDS = rf" ?[a-z]+ to(?= )| ?(?:{RECEPTACLES.replace(' ', '|')}) \d+| ?[a-z]+|[ -]?\d+"

SPEC = EnvSpec(
    name="alfworld",
    gym_id="reflect_rl/Household-v0",
    make=Household,
    tasks=store.tasks,
    first_tasks=store.tasks,
    expert_action=Household.expert_action,
    teacher=reflect,
    teachers={"hint": hint, "verdict": verdict},
    facts=facts,
    goal="A household task, done by going to places, opening them, and taking, treating and moving things.",
    legend=(
        "The receptacles that were searched and those that are still to be, things of the kinds that the task names and "
        "where they were seen (in place: at a place that the task names), what is here, what is in hand, and where the "
        "player stands; an exclamation mark follows what the task names. It is all that the player knows."
    ),
    label="Household",
    settings=store.SETTINGS,
    titles={
        "paper": "tomato into microwave",
        "kitchens": "its kind, unseen kitchen",
        "all_seen": "six types, rooms of training",
        "all_unseen": "six types, unseen rooms",
    },
    training_setting="full",
    headline="paper",
    selection_settings=store.SETTINGS[:3],
    horizon=30,
    claims_horizon=15,
    defaults={
        "data.random_action_probability": (0.0, 0.15, 0.3, 0.5),
        "data.illegal_action_probability": 0.05,
        "data.wrong_steps": True,
        "rl.horizon": 15,
        "rl.stage_shares": (0.2, 0.1),
        "evaluation.horizons": (15, 30),
        "model.context": 512,
        "model.max_new_tokens": 32,
        "model.vocab_size": 2048,
        "model.init_std": 0.1,
        "model.n_conv": 2,
        "model.n_layer": 1,
    },
    stages=("pickup", "dropoff"),
    milestones=True,
    good_actions=Household.good_actions,
    phase=Household.phase,
    oracle_action=Household.oracle_action,
    oracle_steps=oracle_steps,
    labels=by_name(label_key, 1024),
    tokenizer_pattern=WORDS,
    parallel=workers.engines,
    task_source=store.task_source,
    manifest=store.manifest,
    reported=(
        Reported("paper", "sft_rl", 0.66, "GPT-2 XL", 15),
        Reported("paper", "reflect_rl", 0.74, "GPT-2 XL", 15),
        Reported("paper", "prompted", 0.84, "GPT-4", 15),
    ),
    reported_on="100 runs (4 tasks of 25)",
)

TEXT = replace(
    SPEC,
    name="alfworld_text",
    label="Household as text",
    gym_id="reflect_rl/HouseholdText-v0",
    make=partial(Household, observation="text"),
    legend="What the game has said from the beginning of the episode; each command stands behind a >.",
    defaults=SPEC.defaults | {"model.context": 2048},
)
