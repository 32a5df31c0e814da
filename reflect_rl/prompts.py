"""The text that the two players read: single-prompt action enumeration, one label token an action."""

from collections.abc import Sequence


def label(number: int) -> str:
    """The label of this number, counted from 0; one token of the project's tokenizer."""
    return f"[{number + 1}]"


def reflection_prompt(observation: str, last_action: str) -> str:
    """What the reflector continues with its reflection."""
    return f"{observation}\nLast: {last_action or 'none'}\nReflection:"


def policy_prompt(
    observation: str,
    last_action: str,
    actions: Sequence[str],
    reflection: str | None,
    labels: Sequence[int] | None = None,
) -> str:
    """What the policy answers with the label of one legal action; without a reflection where that is None.

    `labels` are the numbers of the actions' labels, by default 0, 1, 2, ...
    """
    numbers = range(len(actions)) if labels is None else labels
    listed = " ".join(f"{label(number)} {action}" for number, action in zip(numbers, actions, strict=True))
    thought = "" if reflection is None else f"\nReflection: {reflection}"
    return f"{observation}\nLast: {last_action or 'none'}{thought}\nActions: {listed}\nAnswer:"


def advised_action(reflection: str, actions: Sequence[str]) -> int | None:
    """Index of the legal action that a reflection names last, or None where it names none."""
    places = [(reflection.rfind(action), len(action)) for action in actions]  # of "look" and "look up", the longer
    best = max(range(len(actions)), key=places.__getitem__)
    return best if places[best][0] >= 0 else None
