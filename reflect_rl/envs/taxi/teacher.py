"""The teacher of DangerousTaxi: reflections by rules, from the facts of the grid and the expert's next action."""

from reflect_rl.envs.base import Situation
from reflect_rl.envs.taxi.env import describe

GERUNDS = {"move": "Moving", "pick": "Picking", "drop": "Dropping"}


def reflect(situation: Situation) -> str:
    """What the last action was (right or wrong), where the passenger is, and the expert's next action as the advice."""
    facts, begun = describe(situation.observation), "Starting"
    place = f"is aboard for {facts['destination']}" if facts["aboard"] else f"waits at {facts['passenger']}"
    if situation.action_feedback != "start":
        verb, _, rest = situation.last_action.partition(" ")
        begun = f"{GERUNDS[verb]} {rest} was {situation.action_feedback}"
    return f"{begun}: the passenger {place}. Next: {situation.expert_action}."
