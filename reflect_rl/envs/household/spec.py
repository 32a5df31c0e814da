"""What the library knows of the household: the registered name, `alfworld`, is that of the benchmark."""

from reflect_rl.envs.base import EnvSpec, Reported
from reflect_rl.envs.household import store
from reflect_rl.envs.household.engine import workers
from reflect_rl.envs.household.env import Household, label_key, oracle_steps
from reflect_rl.envs.household.teacher import reflect
from reflect_rl.envs.labels import by_name

SPEC = EnvSpec(
    name="alfworld",
    gym_id="reflect_rl/Household-v0",
    make=Household,
    tasks=store.tasks,
    first_tasks=store.tasks,
    expert_action=Household.expert_action,
    teacher=reflect,
    goal="A household task, done by going to places, opening them, and taking, treating and moving things.",
    legend=(
        "Where the player stands and what is there, what is in hand, things of the kinds that the task names and where "
        "they were seen, and the receptacles that are still to be searched: all that the player knows, and nothing that "
        "it does not."
    ),
    settings=store.SETTINGS,
    training_setting="full",
    headline="paper",
    selection_settings=store.SETTINGS[:3],
    horizon=30,
    claims_horizon=15,
    defaults={
        "rl.horizon": 15,
        "rl.stage_shares": (0.2, 0.1),
        "evaluation.horizons": (15, 30),
        "model.context": 512,
        "model.max_new_tokens": 32,
        "model.vocab_size": 2048,
        "model.init_std": 0.1,
        "model.n_conv": 1,
        "model.n_layer": 1,
    },
    stages=("pickup", "dropoff"),
    milestones=True,
    good_actions=Household.good_actions,
    phase=Household.phase,
    oracle_action=Household.oracle_action,
    oracle_steps=oracle_steps,
    labels=by_name(label_key, 1024),
    tokenizer_pattern=r" ?[a-z]+ to(?= )| ?[a-z]+ \d+",
    parallel=workers.engines,
    task_source=store.task_source,
    manifest=store.manifest,
    reported=(
        Reported("paper", "sft_rl", 0.66, "GPT-2 XL"),
        Reported("paper", "reflect_rl", 0.74, "GPT-2 XL"),
        Reported("paper", "prompted", 0.84, "GPT-4"),
    ),
    reported_on="100 runs (4 tasks of 25)",
)
