"""Who writes reflections: the interface, and a teacher of rules for each environment."""

from dataclasses import dataclass
from typing import Protocol

from reflect_rl.envs import alfworld, taxi
from reflect_rl.errors import unknown


@dataclass(frozen=True)
class Situation:
    """One step of play as a teacher sees it.

    Attributes:
        last_action: the action that led here, empty at the start of an episode.
        verdict: of the last action: `start` (there was none), `right` (it shortened the way), `wrong`.
        phase: what the episode is about now, in the environment's words.
        best_action: the oracle's next action: the teacher's spoiler.
    """

    task: str
    index: int
    observation: str
    last_action: str
    verdict: str
    phase: str
    actions: tuple[str, ...]
    best_action: str


class Teacher(Protocol):
    """Anything that can say what the last action did and what to do next; a language model may stand behind it."""

    def reflect(self, situation: Situation) -> str:
        """One or two sentences on one line; the last legal action that they name is the advice."""
        ...


class TaxiRules:
    """Writes taxi reflections from the facts of the grid and the oracle's next action."""

    _GERUND = {
        "move south": "Moving south",
        "move north": "Moving north",
        "move east": "Moving east",
        "move west": "Moving west",
        "pick up": "Picking up",
        "drop off": "Dropping off",
    }

    def reflect(self, situation: Situation) -> str:
        facts = taxi.describe(situation.observation)
        if facts["aboard"]:
            goal = f"the passenger is aboard for {facts['destination']}"
        else:
            goal = f"the passenger waits at {facts['passenger']}"
        advice = f"Next: {situation.best_action}."
        if situation.verdict == "start":
            return f"Starting: {goal}. {advice}"
        return f"{self._GERUND[situation.last_action]} was {situation.verdict}: {goal}. {advice}"


class HouseholdRules:
    """Writes household reflections from the task and what the explorer is about, which goes by what it has seen alone."""

    _GERUND = {
        "go": "Going",
        "open": "Opening",
        "close": "Closing",
        "take": "Taking",
        "move": "Moving",
        "put": "Putting",
        "clean": "Cleaning",
        "heat": "Heating",
        "cool": "Cooling",
        "use": "Using",
        "slice": "Slicing",
    }
    _ABOUT = {  # the object is named last, just before the advice
        "search": "looking for {}",
        "fetch": "fetching {}",
        "carry": "carrying {}",
        "treat": "treating {}",
        "place": "putting away {}",
        "seek light": "looking for a light for {}",
        "light": "here is the light for {}",
        "put down": "making room for {}",
    }

    def reflect(self, situation: Situation) -> str:
        _, _, recipe = alfworld.parse_task(situation.task)
        about, advice = self._ABOUT[situation.phase].format(recipe.object.lower()), f"Next: {situation.best_action}."
        if situation.verdict == "start":
            return f"Starting: {about}. {advice}"
        verb, _, rest = situation.last_action.partition(" ")
        return f"{self._GERUND[verb]} {rest} was {situation.verdict}: {about}. {advice}"


TEACHERS = {"taxi": TaxiRules, "alfworld": HouseholdRules}


def teacher(env: str) -> Teacher:
    if env not in TEACHERS:
        raise unknown("environment", env, TEACHERS)
    return TEACHERS[env]()
