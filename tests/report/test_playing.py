import numpy as np
import pytest

from reflect_rl import envs
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.play import advised_action
from reflect_rl.evaluate.panels import frames
from reflect_rl.report import playing
from reflect_rl.report.results import results
from reflect_rl.train.agents import Scripted
from reflect_rl.train.release import released
from reflect_rl.train.rollout import play


@pytest.fixture(scope="module")
def spec():
    return envs.get("taxi")


@pytest.fixture(scope="module")
def players():
    return released(envs.load("laptop", "taxi", seed=0))


@pytest.fixture(scope="module")
def some(spec):
    return playing.situations(spec, spec.panel(spec.headline, "validation")[0])


def test_a_policy_that_reads_another_reflection_decides_otherwise(spec, players, some):
    reflections = playing.counterfactuals(spec, some[1], players.reflector)
    assert [*reflections] == ["the reflector's", "the teacher's", "wrong advice", playing.NONE]
    right, wrong = (advised_action(reflections[name], some[1].actions) for name in ("the teacher's", "wrong advice"))
    assert right == some[1].actions.index(some[1].expert_action) != wrong
    shares = playing.probabilities(players, some[1], reflections)
    assert list(shares.index) == list(some[1].actions)
    np.testing.assert_allclose(shares.sum(), 1, atol=1e-5)
    assert shares["the teacher's"].argmax() == right and shares["wrong advice"].argmax() == wrong
    assert len(playing.bars(shares).axes) == 4


def test_obedience_is_a_share_of_situations(spec, players):
    table = playing.obedience(spec, players, spec.panel(spec.headline, "validation", 2))
    assert table.loc["the teacher's"].min() > 0.9 > 0.2 > table.loc["wrong advice", "does what the expert does"]
    assert np.isnan(table.loc[playing.NONE, "does what it says"])


def test_a_text_of_ones_own_changes_the_picture(spec, players, some):
    widget = playing.editor(players, some[1], playing.counterfactuals(spec, some[1]))
    choice, (text, image, _) = widget.children[0], widget.children[1].children
    first = bytes(image.value)
    assert first.startswith(b"\x89PNG") and text.value == spec.teacher(some[1])
    choice.value = playing.NONE
    assert text.value == "" and bytes(image.value) != first
    text.value = spec.teacher(some[1])
    assert bytes(image.value) == first
    with pytest.raises(ReflectRLError, match="no reflections to begin with"):
        playing.editor(players, some[1], {})


def test_an_episode_is_stepped_through(spec):
    task = spec.panel(spec.headline, "validation")[0]
    (episode,) = play(spec, Scripted(spec, "oracle"), [task], [np.random.default_rng(0)], spec.horizon)
    slider, image, _ = playing.stepper(frames(episode), "Oracle", spec).children
    assert slider.max == len(episode)
    seen = set()
    for slider.value in range(len(episode) + 1):
        seen.add(bytes(image.value))
    assert len(seen) == len(episode) + 1


def test_reflectors_are_compared_with_the_teacher(spec, players, some):
    table = playing.compared({"laptop": players.reflector}, spec, some[1])
    assert list(table.index) == ["laptop", "teacher"] and table.loc["teacher", "expert's"]
    assert table.loc["teacher", "reflection"] == spec.teacher(some[1])
    slider, _, shown = playing.two_reflectors({"laptop": players.reflector}, spec, some).children
    first = shown.value
    slider.value = 2
    assert shown.value != first


def test_failures_can_be_looked_through():
    episodes = results("laptop", "taxi").of("taxi", "paper").episodes
    table = playing.endings(episodes)
    np.testing.assert_allclose(table.sum(axis=1), 1)
    assert table.loc["oracle", "success"] > 0.8 > table.loc["random", "success"]
    variant, ended, _, shown = playing.browser(episodes).children
    variant.value, ended.value = "reflect_rl", "success"
    assert shown.value.count("<tr") == 21 and ">success<" in shown.value
