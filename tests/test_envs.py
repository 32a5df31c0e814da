"""What the project asks of an environment beside Gymnasium's contract holds for every one of them."""

import numpy as np
import pytest

from reflect_rl.baselines import Expert, Oracle, Random, Stumble
from reflect_rl.config import ENVS
from reflect_rl.data import act, begin
from reflect_rl.envs import DOMAINS, domain
from reflect_rl.paper import HORIZON
from reflect_rl.rollout import play
from reflect_rl.teachers import RULES, teacher


@pytest.fixture(params=ENVS)
def world(request, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path_factory.getbasetemp() / "games"))
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    return domain(request.param)


def test_environments_are_listed_alike():
    assert set(ENVS) == set(DOMAINS) == set(RULES) == set(HORIZON)


def test_panels_have_first_tasks(world):
    for split in ("train", "validation", "test"):
        panel = world.tasks(world.headline, split)
        assert world.tasks(world.headline, split, 3) == panel[:3]
        assert len(set(panel)) == len(panel) > 10
        assert world.provenance(panel[0])
    assert world.judged and set(world.judged) <= set(world.settings)
    assert all(world.tasks(setting, "validation") for setting in world.judged)


def test_actions_are_best_good_wrong_or_fatal(world):
    env = world.make(horizon=1000)
    now = begin(env, world.tasks(world.headline, "train")[0])
    assert now.verdict == "start" and env.steps_to_go() > 2
    rng = np.random.default_rng(0)
    verdicts = set()
    for step in range(12):
        good, wrong, safe = map(set, (env.good_actions(), env.wrong_actions(), env.safe_actions()))
        assert env.best_action() in good <= safe and wrong <= safe and env.best_action() not in wrong
        action = env.best_action() if step % 2 or not wrong else int(rng.choice(sorted(wrong)))
        now = act(env, now, action)
        if now is None:
            break
        assert now.verdict == ("right" if action in good else "wrong")
        assert now.last_action and now.best_action == now.actions[env.best_action()]
        verdicts.add(now.verdict)
    assert verdicts == {"right", "wrong"}


def test_the_teachers_advice_is_the_last_action_that_it_names(world):
    from reflect_rl.prompts import advised_action

    env = world.make(horizon=1000)
    now = begin(env, world.tasks(world.headline, "train")[1])
    while now is not None:
        text = teacher(world.name).reflect(now)
        assert now.actions[advised_action(text, now.actions)] == now.best_action and "\n" not in text
        now = act(env, now, env.best_action())


def test_agents_rank_as_they_should(world):
    tasks = world.tasks(world.headline, "validation", 4)

    def success(agent):
        rngs = [np.random.default_rng(i) for i in range(len(tasks))]
        return np.mean([episode.success for episode in play(world, agent, tasks, rngs, 2 * world.horizon)])

    assert success(Oracle()) == success(Expert()) == 1
    assert success(Random()) < success(Stumble(Expert(), 0.2)) == 1
