"""Engine processes that die or hang are replaced, and what they run in is left as it was."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_games import example, reset, task_of

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.household.engine import workers
from reflect_rl.envs.household.spec import SPEC
from reflect_rl.train.agents import Random
from reflect_rl.train.rollout import play


def test_a_killed_engine_is_replaced_and_nothing_is_lost():
    task = task_of(example("pick_and_place_simple"))
    first, second = reset(task), reset(task)
    reference = reset(task)
    for env in (first, second, reference):
        for _ in range(2):
            env.step(env.expert_action())
    engine = workers.worker()
    before = engine.restarts
    engine.process.send_signal(signal.SIGKILL)
    for env in (first, second):
        assert env.step(env.expert_action())[0]
    reference.step(reference.expert_action())
    assert first.notes == second.notes == reference.notes
    assert engine.restarts == before + 1


def test_two_engines_play_the_same_episodes_as_one_even_if_one_is_killed(monkeypatch):
    tasks = [task_of(example("pick_and_place_simple"))] * 6

    def played(engines):
        monkeypatch.setenv("REFLECT_RL_ENGINES", engines)
        rngs = [np.random.default_rng(i) for i in range(len(tasks))]
        episodes = play(SPEC, Random(), tasks, rngs, 6)
        return [[(t.observation, t.actions, t.decision.action) for t in e.transitions] for e in episodes]

    alone = played("1")
    assert played("2") == alone and len({str(episode) for episode in alone}) == 6
    first, second = workers.worker(0), workers.worker(1)
    assert first is not second and first.games and second.games
    second.process.send_signal(signal.SIGKILL)
    assert played("2") == alone and second.restarts == 1


def test_two_engines_start_in_a_fresh_process(home):
    task = task_of(example("pick_and_place_simple"))
    code = f"""
import os
import numpy as np
from reflect_rl.envs.household.spec import SPEC
from reflect_rl.train.agents import Scripted
from reflect_rl.train.rollout import play
before = dict(os.environ)
episodes = play(SPEC, Scripted(SPEC, "expert"), [{task!r}] * 8, [np.random.default_rng(i) for i in range(8)], 30)
assert os.environ == before
print(all(e.success for e in episodes))
"""
    variables = os.environ | {"REFLECT_RL_ENGINES": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


@pytest.mark.parametrize("number", ["0", "two", "-1"])
def test_a_bad_number_of_engines(monkeypatch, number):
    monkeypatch.setenv("REFLECT_RL_ENGINES", number)
    with pytest.raises(ReflectRLError, match=f"REFLECT_RL_ENGINES={number} is not a whole number"):
        workers.engines()


def test_a_hanging_engine_is_replaced(monkeypatch):
    env = reset(task_of(example("pick_and_place_simple")))
    engine = workers.worker()
    before = engine.restarts
    engine.process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(workers, "DEADLINE", 5.0)
    env.step(env.expert_action())
    assert engine.restarts == before + 1


def test_a_request_that_ends_every_process_is_an_error(monkeypatch):
    engine = workers.Worker(Path(os.environ["REFLECT_RL_HOME"]))
    monkeypatch.setattr(engine, "_start", lambda: None)
    engine.process.kill()
    engine.process.wait()
    with pytest.raises(ReflectRLError, match="engine process ended 3 times"):
        engine.request("make", "train/x/y")
    engine._connection.close()


def test_an_error_in_the_engine_is_told_and_the_process_lives(home):
    engine = workers.worker()
    process = engine.process.pid
    with pytest.raises(ReflectRLError, match="no game at"):
        engine.request("reset", 999, str(home / "nowhere" / "game.tw-pddl"), "")
    assert engine.process.pid == process and engine.process.poll() is None


def test_home_arguments_output_and_environment_are_left_alone(tmp_path):
    script = (
        "import os, sys\n"
        "argv, out, env = list(sys.argv), sys.stdout, dict(os.environ)\n"
        "from reflect_rl.envs.household.env import Household\n"
        "task = sys.argv[1]\n"
        "game = Household(); game.reset(options={'task': task}); game.step(game.expert_action())\n"
        "assert (argv, out) == (list(sys.argv), sys.stdout), sys.argv\n"
        "assert env == dict(os.environ), set(os.environ) ^ set(env)\n"
        "assert 'textworld' not in sys.modules\n"
        "print('fine')\n"
    )
    env = os.environ | {"HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script, task_of(example("pick_and_place_simple"))],
        env=env,
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr
    assert list(tmp_path.iterdir()) == []
