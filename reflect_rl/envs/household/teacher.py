"""The teachers by rules: reflections from the task and from the explorer's subgoal, which goes by what it has seen.

They differ in what they give away: the next action, where the subgoal lies and what hinders it, or the verdict alone.
"""

import re

from reflect_rl.envs.base import Situation
from reflect_rl.envs.household.games import LAMP
from reflect_rl.envs.household.goal import ADJECTIVES, Goal, kind
from reflect_rl.envs.household.store import parse_task
from reflect_rl.envs.play import ILLEGAL

SUBGOALS = {  # phase -> subgoal, of an object and how it is treated
    "search": "searching, find {object}",
    "fetch": "fetching, get {object}",
    "treat": "carrying, {treatment} {object}",
    "place": "carrying, put {object}",
    "seek light": "searching, find {lamp}",
    "light": "carrying, light {object}",
    "put down": "carrying, leave other",
}
HINDRANCES = {"go": "elsewhere", "open": "closed"}  # verb of the next action -> what keeps one from the subgoal
STATED = re.compile(
    r"(?:Starting|.+? was (?P<verdict>right|wrong)): (?P<goal>.+?)"
    r"(?: in (?P<where>[a-z]+(?: \d+)?)(?:, (?P<hindrance>elsewhere|closed|within reach))?)?\."
)


def reflect(situation: Situation) -> str:
    """What the last action was worth, the subgoal with the kind of its place, and the explorer's next action."""
    subgoal, place = _subgoal(situation), kind(_place(situation))
    return f"{_verdict(situation)}: {subgoal} in {place}. Next: {situation.expert_action}."


def hint(situation: Situation) -> str:
    """What the last action was worth, the subgoal, its place, and what hinders it; the action is left to find."""
    verb = situation.expert_action.split(" ")[0]
    hindrance = HINDRANCES.get(verb, "within reach")
    return f"{_verdict(situation)}: {_subgoal(situation)} in {_place(situation)}, {hindrance}."


def verdict(situation: Situation) -> str:
    """What the last action was worth, and what the task asks for."""
    goal = _goal(situation)
    thing = " ".join(filter(None, ("two" if goal.count > 1 else "a", ADJECTIVES.get(goal.treatment), goal.object)))
    return f"{_verdict(situation)}: wanted, {thing} for {goal.target or LAMP.lower()}."


def facts(text: str) -> dict[str, str]:
    """What a reflection of any of these teachers states: `verdict` (as in `action_feedback`), `goal`, `where`, `hindrance`."""
    found = STATED.match(text)
    if found is None:
        return {}
    stated = {name: value for name, value in found.groupdict().items() if value is not None}
    return {"verdict": "start"} | stated


def _goal(situation: Situation) -> Goal:
    return Goal.of(parse_task(situation.task).recipe)


def _subgoal(situation: Situation) -> str:
    goal = _goal(situation)
    words = {"object": goal.object, "treatment": goal.treatment, "lamp": LAMP.lower()}
    return SUBGOALS[situation.phase].format(**words)


def _place(situation: Situation) -> str:
    """Where the subgoal lies: the receptacle, or the lamp, that the next action is about."""
    return " ".join(situation.expert_action.split(" ")[-2:])


def _verdict(situation: Situation) -> str:
    if situation.action_feedback == "start":
        return "Starting"
    if situation.last_action == ILLEGAL:
        return f"{ILLEGAL.capitalize()} was wrong"
    verb, _, rest = situation.last_action.partition(" ")
    gerund = "Putting" if verb == "put" else f"{verb.removesuffix('e').capitalize()}ing"
    return f"{gerund} {rest} was {situation.action_feedback}"
