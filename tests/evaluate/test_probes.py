import dataclasses

import pytest

from reflect_rl.envs import settings
from reflect_rl.envs.registry import get
from reflect_rl.evaluate import probes

TAXI = get("taxi")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))


@pytest.fixture
def run():
    return settings.load("smoke", "taxi", "follow", 0, "evaluation.split=validation evaluation.tasks=6")


class Words:
    """A reflector that says the same of everything."""

    def __init__(self, text):
        self.text = text

    def reflect(self, prompts):
        return [self.text] * len(prompts)


def test_probes_leave_the_environment_in_the_situation_they_describe(run):
    seen, tasks = set(), set()
    for env, now in probes.probe(run):
        assert now.actions[TAXI.expert_action(env)] == now.expert_action
        assert TAXI.phase_of(env) == now.phase
        observation, *_ = env.step(len(now.actions))  # an invalid action changes nothing else
        assert observation == now.observation
        seen.add(now.action_feedback)
        tasks.add(now.task)
    assert seen == {"start", "right", "wrong"}
    assert tasks == set(TAXI.panel("full", "validation", 6))


def test_judgement_of_a_reflector_that_always_says_the_same(run):
    panel = list(probes.probe(run))
    found = probes.judge_reflector(run, Words("Moving east was right: go on. Next: pick up."))
    assert list(found) == probes.REFLECTION_COLUMNS
    assert len(found) == len(panel)
    assert (found.judges_right == (found.situation == "right")).all()
    assert (found.names_best == (found.phase == "at passenger")).all()
    assert (found.names_fatal == (found.phase != "at passenger")).all()
    silent = probes.judge_reflector(run, Words("Starting: well."))
    assert silent.names_best.sum() == silent.names_fatal.sum() == 0
    assert (silent.judges_right == (silent.situation == "start")).all()


def test_a_verdict_is_not_asked_for_where_the_teacher_gives_none(run, monkeypatch):
    taciturn = dataclasses.replace(TAXI, teacher=lambda now: f"Next: {now.expert_action}.")
    monkeypatch.setattr(probes, "get", lambda name: taciturn)
    found = probes.judge_reflector(run, Words("Moving east was right. Next: pick up."))
    assert found.judges_right.isna().all() and found.names_best.sum() > 0


def test_probes_are_made_once_and_then_read(run, monkeypatch):
    first = probes.probes(run)
    assert [now for now, *_ in first] == [now for _, now in probes.probe(run)]
    monkeypatch.setattr(probes, "probe", None)
    assert (
        probes.probes(settings.load("smoke", "taxi", "sft_rl", 1, "evaluation.split=validation evaluation.tasks=6"))
        == first
    )
