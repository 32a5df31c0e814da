"""Games are played as the raw engine plays them."""

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from small_games import example, made

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.household import store
from reflect_rl.envs.household.engine import patches
from reflect_rl.envs.household.engine.engine import Engine, translated
from reflect_rl.envs.household.games import TASK_TYPES, package

RAW_WALK = """
import functools, json, sys
import numpy as np
from reflect_rl.envs.household import games
textworld = games.package("textworld")
games.package("fast_downward").pddl2sas = functools.cache(games.package("fast_downward").pddl2sas)  # 2 s a call
env = games.package("textworld.envs.pddl.pddl").PddlEnv(textworld.EnvInfos(facts=True))
raw = games.package("alfworld.agents.environment.alfred_tw_env").AlfredDemangler(env)
walks, out = json.loads(sys.argv[1]), open(sys.argv[2], "w")
for path, steps in walks:
    raw.load(path)
    state, walk, rng = raw.reset(), [], np.random.default_rng(1)
    for index in range(steps + 1):
        facts = sorted([f.name, *(v.name for v in f.arguments)] for f in state["facts"])
        command = str(rng.choice(state["admissible_commands"])) if index % 10 != 9 else "fly to the moon"
        walk.append([state.feedback, state["admissible_commands"], bool(state["won"]), facts, command])
        state, _, _ = raw.step(command)
    out.write(json.dumps(walk) + chr(10))
"""


@pytest.fixture(scope="module")
def raw_walks(tmp_path_factory):
    """Random walks by TextWorld's own environment behind ALFWorld's own wrapper, in a process where nothing is ours."""
    walks = [  # a raw step takes 0.1 to 0.5 s
        (str(store.path_of(made(example(t)))), 10 if "heat" in t or "cool" in t else 30) for t in TASK_TYPES
    ]
    out = tmp_path_factory.mktemp("raw") / "walks.jsonl"
    subprocess.run([sys.executable, "-c", RAW_WALK, json.dumps(walks), out], check=True, stdout=subprocess.DEVNULL)
    return dict(zip(TASK_TYPES, map(json.loads, out.read_text().splitlines()), strict=True))


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_outputs_equal_the_raw_engines(task_type, raw_walks):
    ours, text = Engine(), None
    for index, (feedback, commands, won, facts, command) in enumerate(raw_walks[task_type]):
        text = ours.reset(store.path_of(made(example(task_type)))) if index == 0 else text
        assert text == feedback
        assert list(ours.commands) == commands and ours.won == won
        assert sorted([p, *(ours.game.names[a] for a in arguments)] for p, *arguments in ours.facts) == facts
        text = ours.step(command)


def test_a_planner_library_in_the_data_folder_is_never_loaded(home, monkeypatch):
    source = sha256(Path(package("fast_downward.interface").DOWNWARD_LIB_PATH).read_bytes()).hexdigest()[:16]
    swapped = home / "data" / "household" / f"planner-{source}.so"
    swapped.parent.mkdir(parents=True, exist_ok=True)
    swapped.write_bytes(b"not a library")
    path = store.path_of(made(example("pick_and_place_simple")))
    code = f"from reflect_rl.envs.household.engine.engine import *; e = Engine(); e.reset(Path({str(path)!r})); print(e.won)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("False\n", 0), done.stderr
    assert swapped.read_bytes() == b"not a library"
    swapped.unlink()


def test_a_planner_library_without_strip_stays_whole(monkeypatch):
    interface = package("fast_downward.interface")
    monkeypatch.setattr(
        interface, "DOWNWARD_LIB_PATH", str(Path(package("fast_downward").__file__).with_name("libdownward.so"))
    )
    monkeypatch.setenv("PATH", "")
    assert patches.planner.__wrapped__().DOWNWARD_LIB_PATH.endswith("libdownward.so")


def test_a_damaged_translation_is_made_anew(home):
    path = store.path_of(made(example("pick_and_place_simple")))
    engine = Engine()
    intro = engine.reset(path)
    kept = sorted((home / "data" / "household" / "translations").iterdir())
    for file in kept:
        file.write_bytes(file.read_bytes()[:100])
    translated.cache_clear()
    assert Engine().reset(path) == intro


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged"),
        ('{"pddl_domain": "", "grammar": ""}', "is damaged"),
        ('{"pddl_domain": "", "grammar": "", "pddl_problem": ""}', "sets no task"),
        ('{"pddl_domain": "(", "grammar": "Your task is to: rest.", "pddl_problem": "("}', "cannot be played"),
    ],
)
def test_a_broken_game_file(tmp_path, content, message):
    path = tmp_path / "game.tw-pddl"
    path.write_text(content)
    with pytest.raises(ReflectRLError, match=message):
        Engine().reset(path)


def test_a_missing_game_file(tmp_path):
    with pytest.raises(ReflectRLError, match="no game at .*check ALFWORLD_DATA"):
        Engine().reset(tmp_path / "game.tw-pddl")
