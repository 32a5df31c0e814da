"""The teacher by rules: reflections from the task and from the explorer's subgoal, which goes by what it has seen."""

from reflect_rl.envs.base import Situation
from reflect_rl.envs.household.store import parse_task

SUBGOALS = {  # phase -> subgoal; the object is named last, just before the advice
    "search": "looking for {}",
    "fetch": "fetching {}",
    "carry": "carrying {}",
    "treat": "treating {}",
    "place": "putting away {}",
    "seek light": "looking for a light for {}",
    "light": "here is the light for {}",
    "put down": "making room for {}",
}


def reflect(situation: Situation) -> str:
    """What the last action was worth, the subgoal, and the explorer's next action, on one line."""
    _, _, recipe = parse_task(situation.task)
    subgoal = SUBGOALS[situation.phase].format(recipe.object.lower())
    advice = f"Next: {situation.expert_action}."
    if situation.action_feedback == "start":
        return f"Starting: {subgoal}. {advice}"
    verb, _, rest = situation.last_action.partition(" ")
    gerund = "Putting" if verb == "put" else f"{verb.removesuffix('e').capitalize()}ing"
    return f"{gerund} {rest} was {situation.action_feedback}: {subgoal}. {advice}"
