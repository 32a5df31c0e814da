"""A language model behind an endpoint as the teacher that writes the reflections of the data."""

import re

from reflect_rl.core.config import ClientConfig, TeacherConfig
from reflect_rl.envs.base import EnvSpec, Situation
from reflect_rl.envs.play import advised_action
from reflect_rl.lm.endpoint import Endpoint

BEGIN = "Say in one or two short sentences what the last action did, whether it was good, and"
ASKED = {  # by what a reflection tells
    "action": f"{BEGIN} in your own words what to do next and why.",
    "hint": f"{BEGIN} what the goal is now, where it lies and what is in the way. Do not say what to do.",
    "verdict": "Say in one short sentence what the last action did and whether it was good. Say nothing of what comes next.",
}


class LanguageModelTeacher:
    """A language model as a teacher (paper: GPT-4).

    It is told the environment's goal and legend, and shown the expert's next action as a spoiler, which its text must
    not give away: neither that there is one, nor the action in the game's own words. A text that does is asked for
    again; at last its sentences that do are left out.

    Attributes:
        endpoint: counts what it costs.
        leaked: number of texts that gave the spoiler away.
    """

    TRIES = 3
    LEAKS = re.compile(
        r"\b(?:spoiler|hint|secret|confiden\w+|(?:was|were|been) (?:told|given)|best (?:next )?action)\b", re.I
    )

    def __init__(self, spec: EnvSpec, settings: TeacherConfig, client: ClientConfig | None = None):
        self.settings, self.leaked = settings, 0
        self.endpoint = Endpoint(settings.endpoint, settings.model, client)
        rules = (
            f"You teach a player of a text game. {spec.goal}".rstrip(),
            spec.legend,
            f"{ASKED[settings.tells]} You are shown a spoiler: go by it, but never mention it, and do not quote it.",
        )
        self._rules = "\n".join(filter(None, rules))

    def reflect(self, situation: Situation) -> str:
        """One or two sentences on one line; where actions are told, the last legal one that they name is the advice."""
        messages = [{"role": "system", "content": self._rules}, {"role": "user", "content": self._shown(situation)}]
        for attempt in range(self.TRIES):
            temperature = 0.0 if attempt == 0 else 1.0
            text = self.endpoint.reply(messages, self.settings.max_new_tokens, temperature, attempt)
            text = " ".join(text.split())
            if not self.leaks_spoiler(text, situation):
                break
            self.leaked += 1
        sentences = re.split(r"(?<=[.!?]) ", text)
        text = " ".join(sentence for sentence in sentences if not self.leaks_spoiler(sentence, situation))
        if self.settings.tells == "action":
            text = f"{text} Next: {situation.expert_action}.".lstrip()
        return text

    @classmethod
    def leaks_spoiler(cls, text: str, situation: Situation) -> bool:
        """Whether a text gives the spoiler away."""
        named = advised_action(text.lower(), [situation.expert_action.lower()])
        return named is not None or cls.LEAKS.search(text) is not None

    @staticmethod
    def _shown(situation: Situation) -> str:
        before = "The game begins."
        if situation.last_action:
            before = f"Last action: {situation.last_action}, which was {situation.action_feedback}."
        return (
            f"{situation.observation}\n{before}\nLegal actions: {', '.join(situation.actions)}\n"
            f"Spoiler: {situation.expert_action}"
        )
