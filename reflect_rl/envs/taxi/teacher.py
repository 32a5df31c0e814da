"""The teacher of DangerousTaxi: reflections by rules, from the facts of the grid and the expert's next action."""

from reflect_rl.envs.base import Situation
from reflect_rl.envs.taxi.env import describe

GERUND = {
    "move south": "Moving south",
    "move north": "Moving north",
    "move east": "Moving east",
    "move west": "Moving west",
    "pick up": "Picking up",
    "drop off": "Dropping off",
}


def reflect(situation: Situation) -> str:
    """What the last action was (right or wrong), where the passenger is, and the expert's next action as the advice."""
    facts = describe(situation.observation)
    if facts["aboard"]:
        goal = f"the passenger is aboard for {facts['destination']}"
    else:
        goal = f"the passenger waits at {facts['passenger']}"
    advice = f"Next: {situation.expert_action}."
    if situation.action_feedback == "start":
        return f"Starting: {goal}. {advice}"
    return f"{GERUND[situation.last_action]} was {situation.action_feedback}: {goal}. {advice}"
