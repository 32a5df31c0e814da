"""`check` passes the environments that keep the contract, and finds each rule broken in one that breaks it."""

import inspect
import json
import random

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from small_corridor import ACTIONS, BARE, SPEC, TASKS, Corridor, changed, teach

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs import registry
from reflect_rl.envs.base import Drawing
from reflect_rl.envs.check import check
from reflect_rl.envs.labels import bracketed, in_order


def complaints(spec):
    with pytest.raises(ReflectRLError) as error:
        check(spec, episodes=3)
    headline, *lines = str(error.value).split("\n- ")
    assert headline == f"environment {spec.name!r} is not as it should be:"
    return lines


@pytest.mark.parametrize("spec", [SPEC, BARE], ids=["all", "bare"])
def test_a_good_environment_passes_in_silence(spec, recwarn):
    check(spec)
    assert not list(recwarn)


@pytest.mark.parametrize("name", registry.names())
def test_panels_of_the_librarys_own_environments_name_their_first_tasks_and_their_source(name):
    spec = registry.get(name)
    for split in ("train", "validation", "test"):
        panel = spec.panel(spec.headline, split)
        assert spec.panel(spec.headline, split, 3) == panel[:3]
        assert len(panel) > 10 and spec.source_of(panel[0])


def test_the_taxi_passes():
    check(registry.get("taxi"))


@pytest.mark.slow
def test_the_household_passes(tmp_path, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    check(registry.get("alfworld"), episodes=1)


# --- tasks ---


def with_tasks(**panels):
    """The corridor whose `tasks` gives another panel for some `setting_split`."""
    return changed(tasks=lambda setting, split: panels.get(f"{setting}_{split}", TASKS[setting, split]))


@pytest.mark.parametrize(
    ("panels", "said"),
    [
        ({"full_test": ()}, "tasks('full', 'test') is empty; list at least one task"),
        ({"full_validation": ()}, "tasks('full', 'validation') is empty; list at least one task"),
        ({"near_train": ()}, "tasks('near', 'train') is empty; list at least one task"),
        ({"full_train": ("a-b-1", "a-b-1")}, "tasks('full', 'train') lists a task twice; list each once"),
        ({"full_train": (1, 2)}, "tasks('full', 'train') should be a tuple of strings, which can be written to files"),
        (
            {"full_train": ["a-b-1"]},
            "tasks('full', 'train') should be a tuple of strings, which can be written to files",
        ),
        (
            {"full_test": ("train-full-1",)},
            "task 'train-full-1' is in train and in test; leave it in one of them",
        ),
        (
            {"near_train": ("test-full-1",)},
            "task 'test-full-1' is in train and in test; leave it in one of them",
        ),
    ],
)
def test_tasks(panels, said):
    assert complaints(with_tasks(**panels)) == [said]


def test_a_setting_without_a_training_split_is_fine_where_another_one_is_trained():
    listed = TASKS | {("hard", "test"): ("test-hard-1",)}
    check(changed(settings=("full", "hard"), tasks=lambda s, split: listed.get((s, split), ())))


# --- the environment, broken in one place at a time ---


def broken(**methods):
    """The corridor with other methods."""
    return changed(make=type("Broken", (Corridor,), methods))


def info(**fields):
    return {"info": lambda self: Corridor.info(self) | fields}


def no_space(self, horizon=6, milestone=True):
    Corridor.__init__(self, horizon, milestone)
    self.observation_space = spaces.Text(12)


def as_array(self, horizon=6, milestone=True):
    Corridor.__init__(self, horizon, milestone)
    self.observation_space = spaces.Box(0, 9, (1,), np.float32)


def without_a_seed(self, *, seed=None, options=None):
    self.room, self.steps = int((options or {}).get("task", "-2").split("-")[-1]), 0
    return self.observation(), self.info()


def step(change):
    """A `step` whose result `change(env, action, result)` rewrites."""
    return {"step": lambda self, action: change(self, action, Corridor.step(self, action))}


def with_info(result, **fields):
    return (*result[:4], result[4] | fields)


def unnamed(env, action, result):
    return (*result[:4], {k: v for k, v in result[4].items() if k != "invalid_action"})


def moved_by_an_illegal_action(env, action, result):
    if action >= len(ACTIONS):
        env.room = 0
    return env.observation(), *result[1:4], env.info() | {"invalid_action": action}


def free_of_charge(env, action, result):
    if action >= len(ACTIONS):
        env.steps -= 1
        return (*result[:3], False, result[4])
    return result


def endless(env, action, result):
    return (*result[:3], False, result[4])


def from_the_globals(env, action, result):
    random.random()
    return result


class Shared(Corridor):
    """Its room is that of the class."""

    def observation(self):
        type(self).visits = getattr(type(self), "visits", 0) + 1
        return f"visit {self.visits}"


BREACHES = {
    "no actions": (info(actions=()), 'info["actions"]=() should be a tuple of texts, at least one'),
    "no key": ({"info": lambda self: {"success": False}}, 'info["actions"]=None should be a tuple of texts'),
    "a list": (info(actions=["go left"]), "info[\"actions\"]=['go left'] should be a tuple of texts, at least one"),
    "twice": (info(actions=("a", "b", "a")), "info[\"actions\"]=('a', 'b', 'a') names an action twice"),
    "labels": (info(actions=tuple(map(str, range(65)))), "the labels of 65 actions are"),
    "outside": ({"__init__": no_space}, "is outside observation_space; widen its charset or its max_length"),
    "not text": ({"__init__": as_array}, "should be text, and observation_space a spaces.Text"),
    "success": (step(lambda e, a, r: with_info(r, success=int(r[4]["success"]))), "should be True or False at the end"),
    "gymnasium": ({"reset": without_a_seed}, "its gymnasiums contract: AssertionError: Expects the random number gen"),
    "gymnasium warns": (step(lambda e, a, r: (r[0], "1", *r[2:])), "Gymnasium's check_env says"),
    "unnamed": (step(unnamed), 'an index beyond the legal actions should be named: info["invalid_action"] = 3'),
    "changes": (step(moved_by_an_illegal_action), "should change nothing but the number of steps; pass over it"),
    "costs nothing": (step(free_of_charge), "should cost a step: with horizon=1 it truncates the episode"),
    "goes on": (step(endless), "an episode goes on beyond `horizon` steps; return truncated=True in time"),
    "global generators": (
        step(from_the_globals),
        "it uses the global `random` or `numpy.random`; draw from self.np_random",
    ),
    "no milestone": (
        {"__init__": lambda self, horizon=6: Corridor.__init__(self, horizon)},
        "its beginning: TypeError: ",
    ),
    "raises": ({"expert_action": lambda self: 1 / 0}, "its beginning: ZeroDivisionError: division by zero ("),
    "out of time": (step(lambda e, a, r: (*r[:2], r[2] or r[3], False, r[4])), "at the horizon return truncated=True"),
}


@pytest.mark.parametrize(("methods", "said"), BREACHES.values(), ids=BREACHES)
def test_environment(methods, said):
    spec = broken(**methods)
    if "expert_action" in methods:
        spec = changed(make=spec.make, expert_action=spec.make.expert_action)
    assert any(said in line for line in complaints(spec)), complaints(spec)


def test_success_must_terminate():
    won = {"step": lambda self, action: (*Corridor.step(self, action)[:2], False, self.steps >= 6, self.info())}
    said = 'success must terminate: return terminated=True with info["success"]=True'
    assert complaints(broken(**won)) == [said]


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        (
            step(lambda env, action, result: (*result[:2], result[2] or result[3], result[4])),
            "step should return five values (observation, reward, terminated, truncated, info), info a dict; it returned "
            "('You are in room 2. A pit is left of room 0.', -0.1, False, {",
        ),
        (step(lambda env, action, result: None), "step should return five values"),
        (step(lambda env, action, result: (*result[:4], None)), "step should return five values"),
        (
            {"reset": lambda self, seed=None, options=None: Corridor.reset(self, seed=seed, options=options)[0]},
            "reset should return two values (observation, info), info a dict; it returned 'You are in room 1.",
        ),
    ],
    ids=["four", "nothing", "no info", "observation alone"],
)
def test_numbers_of_values_that_are_returned(methods, said):
    (line,) = complaints(broken(**methods))
    assert line.startswith(f"its beginning: TypeError: {said}")


def in_the_library_of_python(env, action, result):
    return json.loads("no JSON") if env.steps == 2 else result


def in_a_package(env, action, result):
    return np.linalg.inv(np.zeros((2, 2))) if env.steps == 2 else result


@pytest.mark.parametrize(
    ("crash", "error", "said"),
    [
        (in_the_library_of_python, json.JSONDecodeError, "JSONDecodeError: Expecting value: line 1 column 1 (char 0)"),
        (in_a_package, np.linalg.LinAlgError, "LinAlgError: Singular matrix"),
    ],
)
def test_an_error_of_the_environment_is_told_once_with_its_place_and_as_the_cause(crash, error, said):
    with pytest.raises(ReflectRLError) as raised:
        check(broken(**step(crash)))
    place = f"({__file__}:{inspect.getsourcelines(crash)[1] + 1}, in {crash.__name__})"
    assert str(raised.value).splitlines()[1:] == [f"- its beginning: {said} {place}"]
    assert isinstance(raised.value.__cause__, error)


def test_an_error_of_several_rules_is_told_once():
    def phase(env):
        raise KeyError("phase")

    found = complaints(changed(phase=phase, expert_action=lambda env: 2, oracle_steps=None))
    assert [line for line in found if "KeyError" in line] == [found[0]]


def test_nothing_is_said_of_what_follows_from_a_bad_first_step():
    said = 'info["actions"]=None should be a tuple of texts, at least one'
    assert complaints(broken(**{"info": lambda self: {"success": False}})) == [said]


def test_the_experts_way_is_looked_at_in_every_task():
    class Decorated(Corridor):
        def reset(self, *, seed=None, options=None):
            self.decorated = (options or {}).get("task") == "train-full-3"
            return super().reset(seed=seed, options=options)

        def observation(self):
            return "WON!" if self.decorated and (self.room, self.steps) == (5, 2) else super().observation()

    (found,) = complaints(changed(make=Decorated))
    assert found.startswith("observation 'WON!' is outside observation_space")


def test_environments_are_closed():
    opened, closed = [], []

    class Counted(Corridor):
        def __init__(self, horizon=6, milestone=True):
            super().__init__(horizon, milestone)
            opened.append(id(self))

        def close(self):
            closed.append(id(self))

    check(changed(make=Counted))
    assert len(opened) - len(closed) <= 1  # Gymnasium's check_env has one to itself


def test_without_an_error_there_is_no_cause():
    with pytest.raises(ReflectRLError) as error:
        check(changed(phase=lambda env: 3))
    assert error.value.__cause__ is None


def test_chance_that_does_not_follow_from_the_task():
    found = complaints(broken(**step(lambda env, action, result: (result[0], env.np_random.random(), *result[2:]))))
    assert any("gives different episodes under the same actions" in line for line in found)


def test_state_outside_the_environment():
    assert any("gives different episodes under the same actions" in line for line in complaints(changed(make=Shared)))


# --- the functions of the spec ---

FUNCTIONS = {
    "expert": (
        {"expert_action": lambda env: 7},
        "its beginning: IndexError: expert_action or oracle_action gives 7, where 0 to 2 are legal",
    ),
    "expert on its own way": ({"expert_action": lambda env: None}, "oracle_action gives None, where 0 to 2 are legal"),
    "expert elsewhere": (
        {"expert_action": lambda env: 7 if env.room == 0 else 1},
        "expert_action gives (7,), where 0 to 2 are legal",
    ),
    "lazy expert": (
        {"expert_action": lambda env: 2, "oracle_steps": None},
        "the expert does not finish 3 of 3 training tasks: ['train-full-1', 'train-full-2', 'train-full-3']",
    ),
    "horizon": (
        {"horizon": 1, "oracle_steps": None},
        "the expert takes up to 4 steps in 3 of 3 training tasks; raise horizon=1",
    ),
    "good": ({"good_actions": lambda env: (0,)}, "good_actions leaves out the expert's action; put it in"),
    "safe": ({"safe_actions": lambda env: (2,)}, "safe_actions leaves out the expert's action; put it in"),
    "slips": ({"slips": lambda env: (1,)}, "slips holds the expert's action; leave it out"),
    "unsafe": (
        {"slips": lambda env: (0,), "safe_actions": lambda env: (1, 2)},
        "slips holds an action that is not safe",
    ),
    "legal good": ({"good_actions": lambda env: (1, 3)}, "good_actions gives (1, 3), where 0 to 2 are legal"),
    "legal safe": ({"safe_actions": lambda env: (1, -1)}, "safe_actions gives (1, -1), where 0 to 2 are legal"),
    "legal": ({"slips": lambda env: (9,)}, "slips gives (9,), where 0 to 2 are legal"),
    "phase": ({"phase": lambda env: env.room}, "it should be a word or two"),
    "oracle": (
        {"oracle_action": lambda env: 1 if env.steps else 2},
        "oracle_steps('train-full-1') gives 4, but oracle_action finishes in 5 (0: not at all)",
    ),
    "oracle's steps": ({"oracle_steps": lambda task: 0}, "gives 0; it should be a whole number from 1 on"),
    "too many": (
        {"oracle_steps": lambda task: 6},
        "oracle_steps('train-full-1') gives 6, but the expert finishes in 4 steps",
    ),
    "lines": ({"teacher": lambda now: "One.\nTwo."}, "the teacher says 'One.\\nTwo.'; it should be one line of text"),
    "nothing": ({"teacher": lambda now: ""}, "the teacher says ''; it should be one line of text"),
    "silent": ({"teacher": lambda now: "Well done."}, "the teacher never names a legal action"),
    "bad advice": (
        {"teacher": lambda now: teach(now) + " Do not wait."},
        "the last action that it names should be a good one, such as 'go right'",
    ),
    "labels": ({"labels": in_order(bracketed(2))}, "the labels of 3 actions are (0, 1, 2)"),
    "draw": ({"draw": "small_corridor:TASKS"}, "its drawing: AttributeError: 'dict' object has no attribute 'draw'"),
    "draws": (
        {"draw": Drawing(lambda axis, observation: 1 / 0)},
        "its drawing: ZeroDivisionError",
    ),
}


@pytest.mark.parametrize(("fields", "said"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_functions(fields, said):
    found = complaints(changed(**fields))
    assert any(said in line for line in found), found


def test_an_illegal_index_of_a_function_is_all_that_is_said():
    said = "safe_actions gives (-1,), where 0 to 2 are legal"
    assert complaints(changed(safe_actions=lambda env: (-1,), slips=lambda env: ())) == [said]


def test_an_expert_that_never_finishes_is_all_that_is_said():
    lazy = {"expert_action": lambda env: 2, "oracle_steps": None, "teacher": lambda now: f"Next: {now.expert_action}."}
    said = "the expert does not finish 3 of 3 training tasks: ['train-full-1', 'train-full-2', 'train-full-3']"
    assert complaints(changed(**lazy)) == [said]


# --- how episodes fail ---

FATAL = "a safe action ended an episode in failure: 'go left' at 'You are in room 0. A pit is left of room 0.'; leave it out"


@pytest.mark.parametrize(
    ("safe_actions", "said"),
    [
        (None, f"{FATAL} of safe_actions (without that field all count as safe) and of slips"),
        (lambda env: (0, 1, 2), f"{FATAL} of safe_actions and of slips"),
    ],
)
def test_a_fatal_action_that_counts_as_safe(safe_actions, said):
    assert complaints(changed(safe_actions=safe_actions)) == [said]


@pytest.mark.parametrize(
    "fields",
    [
        {"make": broken(**step(lambda e, a, r: with_info(r, success=False))).make},
        {"make": broken(**step(lambda e, a, r: (*r[:2], r[2] or r[3], False, r[4]))).make},
        {"make": broken(**step(unnamed)).make},
        {"teacher": lambda now: ""},
    ],
    ids=["no success", "out of time", "unnamed", "teacher"],
)
def test_a_fatal_action_is_not_told_beside_other_mistakes(fields):
    found = complaints(changed(safe_actions=None, oracle_steps=None, **fields))
    assert len(found) == 1 and "safe action" not in found[0]


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        (lambda env: 0.0, "returned 0, the expert's success 0"),
        (lambda env: -1.0 + (env.room == 5), "the expert's success -3"),
        (lambda env: 0.5, "the expert's success 2"),
    ],
    ids=["nothing", "dear steps", "paid for staying"],
)
def test_failure_that_pays_as_much_as_success(reward, said):
    (found,) = complaints(broken(**step(lambda env, action, result: (result[0], reward(env), *result[2:]))))
    assert found.startswith("failing in task 'train-full-1' returned ") and said in found
    assert found.endswith("; let success pay more than failure")


def test_dying_may_cost_less_than_wandering_on():
    """As in the taxi: where success pays most, this is for the user to know (docs/environments.md)."""
    check(broken(**step(lambda e, a, r: (r[0], r[1] - 0.2 * (e.room != 5), *r[2:]))))


# --- the settings ---


def test_defaults_name_each_setting_that_is_none_or_out_of_its_range():
    first, second, third = complaints(
        changed(defaults={"rl.env_step": 9, "modell.context": 9, "rl.env_steps": 0, "model.context": 128})
    )
    assert first.startswith("its default of rl.env_step: unknown setting of rl 'env_step'; choose one of: env_steps, ")
    assert second.startswith(
        "its default of modell.context: unknown section of settings 'modell'; choose one of: data, "
    )
    assert third == "its default of rl.env_steps: setting rl.env_steps=0 should be a whole number from 1 on"


# --- what the teacher calls right and wrong ---


def swapped(now):
    return teach(now).replace(
        f"was {now.action_feedback}", f"was {'wrong' if now.action_feedback == 'right' else 'right'}"
    )


def test_the_name_of_an_action_is_no_verdict():
    (found,) = complaints(changed(teacher=lambda now: f"To {now.last_action} {swapped(now)[5:]}"))
    assert found.startswith("the teacher calls right actions wrong and wrong ones right")


def test_a_teacher_that_calls_right_actions_wrong_and_wrong_ones_right():
    (found,) = complaints(changed(teacher=swapped))
    assert found.startswith("the teacher calls right actions wrong and wrong ones right (after a ")
    assert "after a right one 'That was wrong, the exit is" in found and "after a wrong one 'That was right, " in found
    assert found.endswith("); go by situation.action_feedback")


@pytest.mark.parametrize(
    "says",
    [
        lambda now: f"Next: {now.expert_action}.",
        lambda now: f"Good or bad. Turn right. Next: {now.expert_action}.",
        lambda now: f"{now.last_action} was {now.action_feedback}. Next: {now.expert_action}.",
        lambda now: f"Not {'wrong' if now.action_feedback == 'right' else 'right'}. Next: {now.expert_action}.",
        lambda now: f"All was wrong. Next: {now.expert_action}.",
    ],
    ids=["neither", "a direction", "an action", "not", "always wrong"],
)
def test_a_teacher_may_use_these_words_otherwise(says):
    check(changed(teacher=says))


@pytest.mark.parametrize("other", ["right", "ght", "go", "o right"])
def test_advice_is_read_in_whole_words_and_as_the_longest_action(other):
    """Of `go right`, none of these actions is advised."""

    class Overlapping(Corridor):
        def info(self):
            return Corridor.info(self) | {"actions": ("go left", "go right", other)}

    check(changed(make=Overlapping))


def test_all_complaints_are_told_at_once():
    found = complaints(changed(teacher=lambda now: "", oracle_steps=lambda task: 0, phase=lambda env: 3))
    assert len(found) == 3


def test_something_else_than_a_spec_is_refused():
    with pytest.raises(ReflectRLError, match=r"Corridor'> is no EnvSpec; see reflect_rl.envs.EnvSpec"):
        check(Corridor)


def test_checking_leaves_the_global_generators_alone():
    before = random.getstate(), np.random.get_state()[1].tolist()
    check(SPEC)
    assert before == (random.getstate(), np.random.get_state()[1].tolist())


def test_an_unregistered_environment_stays_so():
    check(SPEC)
    assert "corridor" not in registry.names() and SPEC.gym_id not in gym.registry
