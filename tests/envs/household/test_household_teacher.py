"""What reflections say at each level, and what they state."""

from dataclasses import replace

import pytest
from small_games import example, task_of

from reflect_rl.envs import play
from reflect_rl.envs.household import teacher
from reflect_rl.envs.household.env import Household
from reflect_rl.envs.household.games import TASK_TYPES
from reflect_rl.envs.household.goal import kind
from reflect_rl.envs.household.spec import SPEC


def situations(task_type):
    """Those of the expert's way through a game, with one action that is not legal."""
    env = Household(horizon=60)
    now, found = play.begin(SPEC, env, task_of(example(task_type))), []
    while now is not None:
        found.append(now)
        now = play.act(SPEC, env, now, env.expert_action() if len(found) != 3 else len(now.actions))
    return found


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_reflections_at_every_level(task_type):
    way = situations(task_type)
    phases = [now.phase for now in way]
    last = "light" if task_type == "look_at_obj_in_light" else "place"
    assert phases[0] == "search" and "fetch" in phases and phases[-1] == last and set(phases) <= set(teacher.SUBGOALS)
    for now in way:
        action, hint, verdict = (write(now) for write in (SPEC.teacher, *SPEC.teachers.values()))
        assert now.actions[play.advised_action(action, now.actions)] == now.expert_action
        assert play.advised_action(hint, now.actions) is None is play.advised_action(verdict, now.actions)
        stated = SPEC.facts(hint)
        assert stated.keys() == {"verdict", "goal", "where", "hindrance"} and now.expert_action.endswith(
            stated["where"]
        )
        hindrances = {"go": "elsewhere", "open": "closed"}
        assert stated["hindrance"] == hindrances.get(now.expert_action.split(" ")[0], "within reach")
        assert SPEC.facts(action) == {k: stated[k] for k in ("verdict", "goal")} | {"where": kind(stated["where"])}
        assert SPEC.facts(verdict)["verdict"] == now.action_feedback == stated["verdict"]
        assert example(task_type).object.lower() in SPEC.facts(verdict)["goal"]


def test_the_words():
    task = "full:train/pick_clean_then_place_in_recep-Knife-None-Drawer-2/trial_G00007"
    actions = ("go to sinkbasin 1", "close drawer 2")
    now = play.Situation(task, 3, "", "take knife 1 from drawer 2", "right", "treat", actions, "go to sinkbasin 1")
    begun = "Taking knife 1 from drawer 2 was right: "
    assert teacher.reflect(now) == f"{begun}carrying, clean knife in sinkbasin. Next: go to sinkbasin 1."
    assert teacher.hint(now) == f"{begun}carrying, clean knife in sinkbasin 1, elsewhere."
    assert teacher.verdict(now) == f"{begun}wanted, a clean knife for drawer."
    wrong = replace(now, last_action=play.ILLEGAL, action_feedback="wrong")
    assert teacher.verdict(wrong).startswith("An action that is not legal was wrong: ")
    start = replace(now, last_action="", action_feedback="start")
    assert teacher.facts(teacher.hint(start))["verdict"] == "start"
    assert teacher.facts("no reflection") == {} == teacher.facts("Going to was: in. Next")
