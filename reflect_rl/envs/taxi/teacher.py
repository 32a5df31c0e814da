"""The teachers of DangerousTaxi: reflections by rules, from the facts of the grid and the expert's next action."""

import re

from reflect_rl.envs.base import Situation
from reflect_rl.envs.taxi.env import describe

GERUNDS = {"move": "Moving", "pick": "Picking", "drop": "Dropping"}


def verdict(situation: Situation) -> str:
    """What the last action was: right or wrong."""
    if situation.action_feedback == "start":
        return "Starting"
    verb, _, rest = situation.last_action.partition(" ")
    done = f"{GERUNDS[verb]} {rest}" if verb in GERUNDS else f"Choosing {situation.last_action}"
    return f"{done} was {situation.action_feedback}"


def reflect(situation: Situation) -> str:
    """What the last action was, where the passenger is, and the expert's next action as the advice."""
    facts = describe(situation.observation)
    place = f"is aboard for {facts['destination']}" if facts["aboard"] else f"waits at {facts['passenger']}"
    return f"{verdict(situation)}: the passenger {place}. Next: {situation.expert_action}."


def hint(situation: Situation) -> str:
    """What the last action was, the goal, in which direction it lies, and on which sides there are walls; no action."""
    facts = describe(situation.observation)
    place = facts["destination"] if facts["aboard"] else facts["passenger"]
    goal = f"bring the passenger to {place}" if facts["aboard"] else f"fetch the passenger at {place}"
    where, walls = " and ".join(facts["towards"]), " ".join(facts["walls"]) or "none"
    return f"{verdict(situation)}. Goal: {goal}, {where}. Walls: {walls}."


FACTS = {
    "verdict": r"(Starting|was right|was wrong)",
    "goal": r"(aboard for|waits at|passenger to|passenger at) (\w)",
    "where": r"passenger \w+ \w, ([^.]+)\.",
    "walls": r"Walls: ([^.]+)\.",
    "action": r"Next: ([^.]+)\.",
}


def facts(reflection: str) -> dict[str, str]:
    """What a reflection states, of `FACTS`."""
    found = {name: re.search(pattern, reflection) for name, pattern in FACTS.items()}
    return {name: " ".join(match.groups()) for name, match in found.items() if match}


TEACHERS = {"hint": hint, "verdict": lambda situation: f"{verdict(situation)}."}
