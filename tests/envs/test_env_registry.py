"""The registry: what an `EnvSpec` must hold, who may have a name, and where environments come from."""

import dataclasses
import os
import subprocess
import sys
from functools import cache
from importlib.metadata import EntryPoint, EntryPoints

import gymnasium as gym
import numpy as np
import pytest
from small_corridor import BARE, SPEC, Corridor, changed, tasks, teach

from reflect_rl import envs
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs import registry
from reflect_rl.envs.base import Drawing, EnvSpec, Reported


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """A registry of the test's own."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    kept = dict(gym.registry)
    yield
    gym.registry.clear()
    gym.registry.update(kept)


def offered(monkeypatch, *points):
    """Let other packages offer these (name, value)."""
    found = EntryPoints(EntryPoint(name, value, registry.GROUP) for name, value in points)
    monkeypatch.setattr(registry, "entry_points", lambda **wanted: found.select(**wanted))
    monkeypatch.setattr(registry, "_of_packages", cache(registry._of_packages.__wrapped__))


# --- names ---


def test_the_librarys_own_environments_are_listed_and_found():
    assert registry.names() == ("taxi", "alfworld", "alfworld_text", "autoexplore", "autoexplore_real")
    assert registry.get("taxi").name == "taxi" and registry.get("taxi") is registry.get("taxi")


def test_unknown_name_lists_the_choices():
    with pytest.raises(ReflectRLError, match="unknown environment 'taxy'; choose one of: taxi, alfworld"):
        registry.get("taxy")


def test_listing_environments_imports_none_of_what_they_need():
    code = (
        "import sys, reflect_rl.envs as envs; envs.names(); envs.get('taxi'); print(*sys.modules); "
        "import gymnasium as gym; print(gym.make('reflect_rl/DangerousTaxi-v0').reset(seed=0)[1]['task'])"
    )
    environment = os.environ | {"PYTHONWARNINGS": "error"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    modules, task = result.stdout.splitlines()
    assert not {"torch", "textworld", "matplotlib", "transformers"} & set(modules.split())
    assert task.startswith("full-")


def test_users_find_what_they_need_in_one_place():
    assert (envs.EnvSpec, envs.register, envs.get) == (EnvSpec, registry.register, registry.get)
    assert callable(envs.check) and callable(envs.load)


# --- registering ---


def test_registered_environment_is_found_by_the_library_and_by_gymnasium():
    assert registry.register(SPEC) is SPEC is registry.get("corridor")
    assert "corridor" in registry.names()
    env = gym.make("reflect_rl/corridor-v0")
    assert isinstance(env.unwrapped, Corridor) and env.unwrapped.horizon == SPEC.horizon
    assert gym.make("reflect_rl/corridor-v0", horizon=3).unwrapped.horizon == 3


def test_a_taken_name_is_refused_unless_it_is_to_be_replaced():
    registry.register(SPEC)
    again = changed(make=type("Other", (Corridor,), {}))
    with pytest.raises(
        ReflectRLError, match=r"an environment 'corridor' .* already; .* register\(spec, replace=True\)"
    ):
        registry.register(again)
    assert registry.get("corridor") is SPEC
    registry.register(again, replace=True)
    assert registry.get("corridor") is again
    assert type(gym.make("reflect_rl/corridor-v0").unwrapped).__name__ == "Other"
    registry.register(again)  # itself, once more


def test_the_name_or_gymnasium_id_of_a_built_in_environment_is_taken():
    for taken in ({"name": "taxi"}, {"gym_id": "reflect_rl/DangerousTaxi-v0"}, {"gym_id": "CartPole-v1"}):
        with pytest.raises(ReflectRLError, match="already"):
            registry.register(changed(**taken))
    assert registry.get("taxi").tasks("full", "test")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"make": None}, "Input should be callable"),
        ({"teacher": "rules"}, "Input should be callable"),
        ({"phase": "far"}, "Input should be callable"),
        ({"name": "my env"}, "String should match pattern"),
        ({"settings": ()}, "Value should have at least 1 item"),
        ({"settings": "full"}, "Input should be a valid tuple"),
        ({"horizon": 0}, "Input should be greater than 0"),
        ({"defaults": {"horizon": 3}}, "String should match pattern"),
        ({"labels": ("[1]", "[2]")}, "Input should be a dictionary or an instance of Labels"),
        ({"draw": "small_corridor"}, "String should match pattern"),
        ({"reported": ("58%",)}, "Input should be a dictionary or an instance of Reported"),
    ],
)
def test_a_wrong_field_is_named(fields, said):
    (name,) = fields
    with pytest.raises(ReflectRLError, match=rf"EnvSpec with missing or wrong fields: {name}\b.*\({said}"):
        changed(**fields)


def test_all_wrong_fields_are_named():
    with pytest.raises(ReflectRLError, match=r"make \(.*expert_action \(.*teacher \(Field required\)"):
        EnvSpec("corridor", make=None, tasks=tasks, expert_action="right")


def test_a_misspelt_field_is_refused():
    with pytest.raises(ReflectRLError, match=r"oracel_steps \(Unexpected keyword argument\)"):
        changed(oracel_steps=len)


def test_other_wrong_values_are_refused():
    with pytest.raises(ReflectRLError, match=r"should be among \('full',\), {'fall'} are not"):
        changed(headline="fall")
    with pytest.raises(ReflectRLError, match=r"titles should be of the settings \('full',\), {'fall'} are none"):
        changed(titles={"fall": "whole task"})
    with pytest.raises(ReflectRLError, match="tokenizer_pattern .*unterminated subpattern"):
        changed(tokenizer_pattern="(")
    with pytest.raises(ReflectRLError, match=r"rate \(Input should be less than or equal to 1\)"):
        Reported("full", "reflect_rl", 58, "GPT-2 XL")


def test_names_are_kept_as_a_tuple_each_once():
    assert changed(stages=["near", "near", "full"]).stages == ("near", "full")


def test_something_else_than_a_spec_is_refused():
    with pytest.raises(ReflectRLError, match=r"Corridor'> is no EnvSpec; see reflect_rl.envs.EnvSpec"):
        registry.register(Corridor)


# --- other packages ---


def test_another_package_brings_an_environment_by_its_entry_point(monkeypatch):
    offered(monkeypatch, ("corridor", "small_corridor:SPEC"), ("later", "not_installed:SPEC"))
    assert registry.names() == (
        "taxi",
        "alfworld",
        "alfworld_text",
        "autoexplore",
        "autoexplore_real",
        "corridor",
        "later",
    )
    assert registry.get("corridor") is SPEC  # the other one is not imported
    assert isinstance(gym.make("reflect_rl/corridor-v0").unwrapped, Corridor)


def test_an_entry_point_may_be_a_function_that_gives_a_spec(monkeypatch):
    monkeypatch.setattr("small_corridor.make_spec", lambda: BARE, raising=False)
    offered(monkeypatch, (BARE.name, "small_corridor:make_spec"))
    assert registry.get(BARE.name) is BARE


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([("corridor", "not_installed:SPEC")], "environment 'corridor' cannot be imported from not_installed:SPEC"),
        ([("corridor", "small_corridor:TASKS")], "cannot be imported from small_corridor:TASKS: ReflectRLError("),
        ([("hall", "small_corridor:SPEC")], "is listed as 'hall' and calls itself 'corridor'"),
        ([("corridor", "small_corridor:SPEC"), ("corridor", "other:SPEC")], "offered more than once: by"),
        ([("taxi", "small_corridor:SPEC")], "environment 'taxi' is offered more than once: by"),
    ],
)
def test_a_bad_entry_point_is_named_when_it_is_asked_for(monkeypatch, points, said):
    registry._registered.clear()
    offered(monkeypatch, *points)
    with pytest.raises(ReflectRLError) as error:
        registry.get(points[0][0])
    assert said in str(error.value)


# --- what stands in for what is not given ---


def test_only_five_fields_are_required():
    required = [f.name for f in dataclasses.fields(EnvSpec) if f.default is f.default_factory is dataclasses.MISSING]
    assert required == ["name", "make", "tasks", "expert_action", "teacher"]
    assert (BARE.headline, BARE.selection_settings, BARE.claims_horizon) == ("full", ("full",), BARE.horizon)


def test_without_functions_all_other_actions_are_wrong_and_safe():
    env = BARE.make(horizon=6)
    _, info = env.reset(options={"task": BARE.panel("full", "train")[0]})
    actions = info["actions"]
    assert BARE.good(env) == (1,)
    assert BARE.safe(env, actions) == (0, 1, 2)
    assert BARE.slips_of(env, actions) == (0, 2)
    assert BARE.phase_of(env) == BARE.source_of("train-full-1") == ""
    assert BARE.ceiling("full", "test", 20) is None and BARE.load_draw() is None


def test_given_functions_are_used():
    spec = changed(good_actions=lambda env: [1, 2], slips=lambda env: [0], phase=lambda env: f"room {env.room}")
    env = spec.make(horizon=6)
    env.reset(options={"task": "train-full-2"})
    assert (spec.good(env), spec.slips_of(env, ("a", "b", "c")), spec.phase_of(env)) == ((1, 2), (0,), "room 2")


def test_wrong_actions_that_are_not_safe_are_no_slips():
    env = SPEC.make(horizon=6)
    env.reset(options={"task": "train-full-1"})
    env.step(0)
    assert SPEC.slips_of(env, ("go left", "go right", "wait")) == (2,)


def test_a_panel_is_cut_to_its_first_tasks_or_to_those_of_each_part():
    assert SPEC.panel("full", "train", 2) == tasks("full", "train")[:2]
    assert SPEC.panel("full", "train") == tasks("full", "train")
    parts = changed(first_tasks=lambda setting, split, most: ("a", "b")[:most] + ("c", "d")[:most])
    assert parts.panel("full", "train", 1) == ("a", "c")
    assert parts.panel("full", "train") == tasks("full", "train")


def test_ceiling_is_the_share_of_a_panel_that_can_be_finished():
    assert [SPEC.ceiling("full", "train", horizon) for horizon in (1, 2, 3, 4)] == [0, 1 / 3, 2 / 3, 1]
    assert SPEC.ceiling("full", "train", 3, most=1) == 0


def test_reported_rates_stand_beside_their_horizon():
    spec = changed(reported=(Reported("full", "reflect_rl", 0.5, "GPT-2 XL", 20), Reported("full", "sft_rl", 0.1, "M")))
    assert spec.reported_rate("full", "reflect_rl") == spec.reported_rate("full", "reflect_rl", 20) == 0.5
    assert spec.reported_rate("full", "reflect_rl", 15) is None
    assert spec.reported_rate("full", "sft_rl", 15) == 0.1
    assert spec.reported_rate("near", "reflect_rl") is spec.reported_rate("full", "rl_only") is None


def test_drawing_is_found_by_name_or_given():
    drawing = Drawing(lambda axis, observation: None)
    assert changed(draw=drawing).load_draw() is drawing
    assert changed(draw="small_corridor:teach").load_draw() is teach


def test_a_spec_is_a_value_of_its_own():
    assert SPEC != changed() and len({SPEC, changed()}) == 2  # caches tell them apart
    with pytest.raises(TypeError):
        SPEC.defaults["rl.horizon"] = np.int64(3)
