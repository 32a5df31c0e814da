"""The registration of DangerousTaxi."""

from reflect_rl.envs.base import EnvSpec, Reported
from reflect_rl.envs.taxi.env import DangerousTaxi, shortest, tasks
from reflect_rl.envs.taxi.teacher import TEACHERS, facts, reflect

SPEC = EnvSpec(
    name="taxi",
    gym_id="reflect_rl/DangerousTaxi-v0",
    make=DangerousTaxi,
    tasks=tasks,
    expert_action=DangerousTaxi.expert_action,
    teacher=reflect,
    goal=(
        "A taxi fetches the passenger (pick up), drives to the destination and sets the passenger down there (drop "
        "off). An action that changes nothing, such as driving into a wall or picking up where nobody waits, ends the "
        "game."
    ),
    legend=(
        "Each cell shows three characters: the taxi (t empty, T with the passenger aboard), the landmark (R, G, Y, B), "
        "and what is there (w the passenger waits, s the passenger was set down again, d the destination, * the "
        "passenger was delivered). Between two cells ':' is open and '|' is a wall."
    ),
    label="Taxi",
    settings=("pickup", "full", "pairs"),
    titles={"pickup": "pickup alone", "full": "whole task", "pairs": "unseen pairs"},
    training_setting="full",
    headline="full",
    horizon=20,
    defaults={"rl.horizon": 20, "rl.stage_shares": (0.2, 0.1), "evaluation.horizons": (15, 20)},
    stages=("pickup", "dropoff"),
    milestones=True,
    teachers=TEACHERS,
    facts=facts,
    good_actions=DangerousTaxi.good_actions,
    safe_actions=DangerousTaxi.safe_actions,
    slips=DangerousTaxi.slips,
    phase=DangerousTaxi.phase,
    oracle_action=DangerousTaxi.expert_action,
    oracle_steps=shortest,
    tokenizer_pattern=r"\|[^\n]*\n?",  # a row of the grid is one word
    task_source=lambda task: "Gymnasium's Taxi map",
    draw="reflect_rl.envs.taxi.draw:DRAWING",
    # the paper does not say its horizon: its numbers stand beside the one at which every start can be solved
    reported=(Reported("full", "sft_rl", 0.0, "GPT-2 XL", 20), Reported("full", "reflect_rl", 0.58, "GPT-2 XL", 20)),
    reported_on="100 random maps, by that source",
)
