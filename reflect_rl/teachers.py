"""Who writes reflections: the interface, and a teacher of rules for each environment."""

import re
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

from reflect_rl.config import AskingConfig, TeacherConfig
from reflect_rl.endpoint import Endpoint
from reflect_rl.envs import alfworld, domain, taxi
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
    """Anything that can say what the last action did and what to do next."""

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


class LanguageModel:
    """A language model behind an endpoint as a teacher (paper: GPT-4).

    It is shown the best next action as a spoiler, which its text must not give away: neither that there is one, nor the
    action in the game's own words. A text that does is asked for again; at last its sentences that do are left out.

    Attributes:
        endpoint: counts what it costs. spoilt: texts that gave the spoiler away.
    """

    TRIES = 3
    TELLING = re.compile(
        r"\b(?:spoiler|hint|secret|confiden\w+|(?:was|were|been) (?:told|given)|best (?:next )?action)\b", re.I
    )

    def __init__(self, module: ModuleType, settings: TeacherConfig, asking: AskingConfig | None = None):
        self.settings, self.spoilt = settings, 0
        self.endpoint = Endpoint(settings.endpoint, settings.model, asking)
        self._rules = (
            f"You teach a player of a text game. {module.GOAL}\n{module.LEGEND}\nSay in one or two short sentences what "
            "the last action did, whether it was good, and in your own words what to do next and why. You are shown a "
            "spoiler: go by it, but never mention it, and do not quote it."
        )

    def reflect(self, situation: Situation) -> str:
        messages = [{"role": "system", "content": self._rules}, {"role": "user", "content": self._shown(situation)}]
        for attempt in range(self.TRIES):
            temperature = 0.0 if attempt == 0 else 1.0
            text = self.endpoint.reply(messages, self.settings.max_new_tokens, temperature, attempt)
            text = " ".join(text.split())
            if not self.tells(text, situation):
                break
            self.spoilt += 1
        sentences = re.split(r"(?<=[.!?]) ", text)
        text = " ".join(sentence for sentence in sentences if not self.tells(sentence, situation))
        if self.settings.advice:
            text = f"{text} Next: {situation.best_action}.".lstrip()
        return text

    @classmethod
    def tells(cls, text: str, situation: Situation) -> bool:
        """Whether a text gives the spoiler away."""
        return situation.best_action.lower() in text.lower() or cls.TELLING.search(text) is not None

    def _shown(self, situation: Situation) -> str:
        before = (
            f"Last action: {situation.last_action}, which was {situation.verdict}." if situation.last_action else ""
        )
        return (
            f"{situation.observation}\n{before or 'The game begins.'}\nLegal actions: {', '.join(situation.actions)}\n"
            f"Spoiler: {situation.best_action}"
        )


RULES = {"taxi": TaxiRules, "alfworld": HouseholdRules}


def teacher(env: str, settings: TeacherConfig | None = None, asking: AskingConfig | None = None) -> Teacher:
    """The teacher of an environment: its rules, or the language model that is named."""
    if env not in RULES:
        raise unknown("environment", env, RULES)
    return LanguageModel(domain(env).module, settings, asking) if settings and settings.model else RULES[env]()
