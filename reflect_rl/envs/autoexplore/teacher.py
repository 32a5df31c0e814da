"""The teachers of AutoExplore: the evidence in what was read, the verdict, and what to do next, by rules."""

import re

from reflect_rl.envs.autoexplore.env import Reader
from reflect_rl.envs.base import Situation

DONE = {"cd": "Going there", "cat": "Reading that"}  # naming a file ends the episode
QUESTION = re.compile(r"^Question: (.*)$", re.MULTILINE)
SHOWS = re.compile(r"^Shows: (.*)$", re.MULTILINE)


def verdict(situation: Situation) -> str:
    """What the last action was: right or wrong."""
    if situation.action_feedback == "start":
        return "Starting"
    verb = situation.last_action.partition(" ")[0]
    return f"{DONE[verb]} was {situation.action_feedback}"


def seen(situation: Situation, reader: Reader) -> str:
    """After a file was read: the evidence in what it shows, and whether it is the file."""
    if not situation.last_action.startswith("cat "):
        return ""
    question = QUESTION.search(situation.observation).group(1)
    shown = SHOWS.search(situation.observation).group(1)
    verdict = "the file" if reader.answers(question, shown) else "not the file"
    return f"{reader.evidence(question, shown)}: {verdict}. "


def reflect(situation: Situation, reader: Reader) -> str:
    """What is sought where, the evidence, the verdict, and the expert's next action as the advice."""
    return f"{hint(situation, reader)} Next: {situation.expert_action}."


def hint(situation: Situation, reader: Reader) -> str:
    """What is sought where, the evidence, and the verdict; no action.

    In this order a model that writes each part goes by those before: what is sought is what the evidence compares.
    """
    question = QUESTION.search(situation.observation).group(1)
    return f"Goal: {reader.sought(question)}. {judged(situation, reader)}"


def judged(situation: Situation, reader: Reader) -> str:
    """Evidence and verdict: a model that writes the evidence first need not know it beforehand."""
    return f"{seen(situation, reader)}{verdict(situation)}."


FACTS = {
    "verdict": r"(Starting|was right|was wrong)",
    "evidence": r"(?:^|\. )([^:.]+): (?:the|not the) file\.",
    "match": r": (the file|not the file)\.",
    "goal": r"Goal: ([^.]+)\.",
    "action": r"Next: (.+)\.$",
}


def facts(reflection: str) -> dict[str, str]:
    """What a reflection states, of `FACTS`."""
    found = {name: re.search(pattern, reflection) for name, pattern in FACTS.items()}
    return {name: match.group(1) for name, match in found.items() if match}
