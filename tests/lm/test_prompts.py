"""What the players read, and which action a reflection advises."""

from dataclasses import replace

import pytest

from reflect_rl.envs.labels import IN_ORDER, by_name
from reflect_rl.envs.play import advised_action
from reflect_rl.lm.prompts import format_of, policy_prompt, reflection_prompt

ACTIONS = ("move south", "pick up", "look", "look up")


@pytest.mark.parametrize(
    ("reflection", "advised"),
    [
        ("Next: pick up.", 1),
        ("Moving was wrong. Not pick up but move south.", 0),  # the last one named
        ("move south, move south, then pick up", 1),
        ("pick up, then move south", 0),
        ("Wait and see.", None),
        ("", None),
        ("Next: fly.", None),  # not a legal action here
        ("Next: look up.", 3),  # the longer of two names that begin alike
        ("Next: look.", 2),
    ],
)
def test_advice_is_the_legal_action_that_is_named_last(reflection, advised):
    assert advised_action(reflection, ACTIONS) == advised


@pytest.mark.parametrize(
    ("reflection", "advised"),
    [
        ("Next: go to cabinet 10.", None),  # not "go to cabinet 1" with a nought behind it
        ("Not go to cabinet 1: go to cabinet 12.", 0),
        ("Next: go to cabinet 2, not go to cabinet 1", 0),
        ("Next: ago to cabinet 2.", None),
        ("go to cabinet 2", 1),
        ("go to cabinet 11, go to cabinet 1, go to cabinet 111", 0),
    ],
)
def test_advice_is_in_whole_words_and_numbers(reflection, advised):
    assert advised_action(reflection, ("go to cabinet 1", "go to cabinet 2")) == advised


def test_a_prompt_may_end_in_the_advised_action():
    """What stands behind it in the list is its label."""
    shown = format_of(replace(IN_ORDER, advice_last=True)).policy
    told = shown("GRID", "a", ("a", "cd .."), "Go on. Next: cd ...", ("[1]", "[2]"))
    assert told == "GRID\nLast: a\nActions: a [1] cd .. [2]\nReflection: Go on. Next: cd .."
    silent = shown("GRID", "a", ("a", "cd .."), None, ("[1]", "[2]"))
    assert silent == "GRID\nLast: a\nActions: a [1] cd .. [2]\nAnswer:"
    assert format_of(IN_ORDER).policy is policy_prompt


def test_policy_prompt_by_hand():
    assert policy_prompt("GRID", "", ("a", "b c"), "Go.") == (
        "GRID\nLast: none\nReflection: Go.\nActions: [1] a [2] b c\nAnswer:"
    )
    assert policy_prompt("GRID", "a", ("a", "b c"), None) == "GRID\nLast: a\nActions: [1] a [2] b c\nAnswer:"


def test_reflection_prompt_by_hand():
    assert reflection_prompt("GRID", "") == "GRID\nLast: none\nReflection:"
    assert reflection_prompt("GRID", "move east") == "GRID\nLast: move east\nReflection:"


def test_empty_reflection_differs_from_none():
    assert "Reflection" in policy_prompt("GRID", "", ("a",), "", ("[1]",))
    assert "Reflection" not in policy_prompt("GRID", "", ("a",), None, ("[1]",))


@pytest.mark.parametrize("count", [1, 6, 64])
def test_prompt_holds_every_legal_action_behind_its_label(count):
    actions = tuple(f"go to room {i}" for i in range(count))
    listed = (
        policy_prompt("GRID", "", actions, None, IN_ORDER.names[:count]).split("Actions: ")[1].split("\nAnswer:")[0]
    )
    assert listed == " ".join(f"[{i + 1}] {action}" for i, action in enumerate(actions))


def test_labels_by_name_are_kept_from_state_to_state_and_differ_within_one():
    labels = by_name(lambda action: action.split(" ")[0], 5)
    alone = labels.of(("go east",))
    assert labels.of(("go east", "eat", "sleep"))[:1] == labels.of(("go west",)) == alone
    crowded = labels.of(("go a", "go b", "go c", "go d", "go e"))
    assert sorted(crowded) == [0, 1, 2, 3, 4] and crowded[:1] == alone
    assert IN_ORDER.of(("go east", "eat")) == (0, 1)
