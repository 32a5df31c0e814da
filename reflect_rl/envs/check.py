"""`check`: plays an environment and says in words where it departs from what the library relies on."""

import itertools
import random
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Text
from gymnasium.utils.env_checker import check_env

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs import play
from reflect_rl.envs.base import SPLITS, EnvSpec
from reflect_rl.envs.registry import require_spec

Require = Callable[[Any, str], bool]  # (fine, complaint) -> whether it is fine; where not, the complaint is kept
Player = Callable[[gym.Env], int] | np.random.Generator  # gives the index of an action; a generator draws a legal one


def check(spec: EnvSpec, episodes: int = 4) -> None:
    """Play an environment on some of its training tasks, registered or not, and complain of what is wrong with it.

    Args:
        episodes: how many tasks are tried: by random play, by the expert, and by the oracle where there is one.

    Raises:
        ReflectRLError: something is missing or wrong; the message lists all that was found, and what to do. Where tasks
            are missing, or an episode begins badly, nothing more is tried.
    """
    require_spec(spec)
    before = _global_generators()
    complaints = _complaints([panels], spec, ())
    if not complaints:
        panel = spec.tasks(spec.training_setting, "train")
        tasks = panel[:: max(1, len(panel) // episodes)][:episodes]
        complaints = _complaints([beginning], spec, tasks) or _complaints(PLAYED, spec, tasks)
    if _global_generators() != before:
        complaints.append("it uses the global `random` or `numpy.random`; draw from self.np_random")
    if complaints:
        raise ReflectRLError(f"environment {spec.name!r} is not as it should be:\n- " + "\n- ".join(complaints))


def _global_generators() -> tuple:
    _, keys, position, *_ = np.random.get_state()
    return random.getstate(), keys.tobytes(), position


def _complaints(rules: Sequence[Callable], spec: EnvSpec, tasks: Sequence[str]) -> list[str]:
    """What the rules complain of; of complaints that differ in nothing but texts and numbers the first."""
    found: dict[str, str] = {}

    def require(fine: Any, complaint: str) -> bool:
        if not fine:
            found.setdefault(re.sub(r"'[^']*'|\"[^\"]*\"|\d+", "", complaint), complaint)
        return bool(fine)

    for rule in rules:
        try:
            rule(spec, tasks, require)
        except Exception as error:  # an environment may raise anything
            require(False, f"its {rule.__name__.replace('_', ' ')}: {type(error).__name__}: {error}")
    return list(found.values())


class Step(NamedTuple):
    """What `reset` (action None) or `step` returned."""

    env: gym.Env
    action: int | None
    observation: Any
    reward: float
    terminated: bool
    truncated: bool
    info: dict

    @property
    def over(self) -> bool:
        return bool(self.terminated or self.truncated)

    @property
    def seen(self) -> tuple:
        """What must be the same whenever a task is played with the same actions."""
        return self.observation, self.over, self.info.get("actions"), self.info.get("success")


def _episode(spec: EnvSpec, task: str, player: Player, horizon=0, first=None) -> Iterator[Step]:
    """A task from its beginning to its end, or to the horizon; `first` is an action before those of the player."""
    horizon = horizon or spec.horizon
    env = spec.make(horizon=horizon)
    observation, info = env.reset(options={"task": task})
    step = Step(env, None, observation, 0.0, False, False, info)
    yield step
    while not step.over and horizon > 0:
        action = _action(player, env, step.info["actions"]) if first is None else first
        step, first, horizon = Step(env, action, *env.step(action)), None, horizon - 1
        yield step
    env.close()


def _action(player: Player, env: gym.Env, actions: Sequence[str]) -> int:
    return int(player.integers(len(actions))) if isinstance(player, np.random.Generator) else player(env)


def _steps_to_success(spec: EnvSpec, task: str, player: Player) -> int:
    """0 where there is no success within ten times the horizon."""
    *before, last = _episode(spec, task, player, 10 * spec.horizon)
    return len(before) if last.info.get("success") else 0


# --- the rules ---


def panels(spec: EnvSpec, tasks: Sequence[str], require: Require) -> None:
    """Every family that is needed has tasks, and no task is in two splits."""
    split_of: dict[str, str] = {}
    evaluated = {*spec.settings, spec.training_setting}
    needed = {"test": evaluated, "validation": {*spec.selection_settings, spec.training_setting}}
    needed["train"] = {*spec.stages, spec.headline, spec.training_setting}
    for setting, split in ((setting, name) for name in SPLITS for setting in sorted(evaluated | needed[name])):
        name, panel = f"tasks({setting!r}, {split!r})", spec.tasks(setting, split)
        strings = isinstance(panel, tuple) and all(isinstance(task, str) for task in panel)
        if require(strings, f"{name} should be a tuple of strings, which can be written to files"):
            require(panel or setting not in needed[split], f"{name} is empty; list at least one task")
            require(len(set(panel)) == len(panel), f"{name} lists a task twice; list each once")
            for task in panel:
                other = split_of.setdefault(task, split)
                require(other == split, f"task {task!r} is in {other} and in {split}; leave it in one of them")


def beginning(spec: EnvSpec, tasks: Sequence[str], require: Require) -> None:
    for milestone in (True, False) if spec.milestones else ():
        spec.make(horizon=spec.horizon, milestone=milestone).close()
    _look_at(spec, next(_episode(spec, tasks[0], spec.expert_action)), require)


def _look_at(spec: EnvSpec, step: Step, require: Require) -> None:
    """What every step must hold, the first one too."""
    actions, success, space = step.info.get("actions"), step.info.get("success"), step.env.observation_space
    named = isinstance(actions, tuple) and actions and all(isinstance(action, str) for action in actions)
    if require(named, f'info["actions"]={actions!r} should be a tuple of texts, at least one'):
        require(len(set(actions)) == len(actions), f'info["actions"]={actions} names an action twice')
        labels, most = spec.labels.of(actions), len(spec.labels.names)
        fine = len(set(labels)) == len(actions) and max(labels) < most
        require(fine, f"the labels of {len(actions)} actions are {labels}; they should differ and be below {most}")
    text, seen = isinstance(step.observation, str), f"observation {step.observation!r:.200}"
    if require(isinstance(space, Text) and text, f"{seen} should be text, and observation_space a spaces.Text"):
        inside = space.contains(step.observation)
        require(inside, f"{seen} is outside observation_space; widen its charset or its max_length")
    is_bool = isinstance(success, bool) or not step.over
    require(is_bool, f'info["success"]={success!r} should be True or False at the end of an episode')
    require(step.terminated or not success, 'info["success"] is True in a step without terminated=True; return both')


def gymnasiums_contract(spec: EnvSpec, tasks: Sequence[str], require: Require) -> None:
    """Gymnasium's own checker, whose warnings count too."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        check_env(spec.make(horizon=spec.horizon), skip_render_check=True)
    for said in heard:
        require(False, re.sub(r"\x1b\[\d*m", "", f"Gymnasium's check_env says: {said.message}"))


def random_play(spec: EnvSpec, tasks: Sequence[str], require: Require) -> None:
    """Each task in two environments that are stepped in turn."""
    rngs = np.random.default_rng(0), np.random.default_rng(0)
    for task in tasks:
        safe: Sequence[int] = ()
        for step, twin in zip(*(_episode(spec, task, rng) for rng in rngs), strict=False):
            _look_at(spec, step, require)
            way_out = "let chance follow from the task's id, and keep no state outside the environment"
            same = (step.seen, step.reward) == (twin.seen, twin.reward)
            if not require(same, f"task {task!r} gives different episodes under the same actions; {way_out}"):
                break
            failed = step.terminated and not step.info.get("success") and step.action in safe
            require(not failed, "a safe action ended an episode in failure; leave it out of safe_actions and slips")
            safe = () if step.over else _functions_of(spec, step.env, step.info["actions"], require)
        else:
            require(step.over, "an episode goes on beyond `horizon` steps; return truncated=True in time")


def _functions_of(spec: EnvSpec, env: gym.Env, actions: Sequence[str], require: Require) -> Sequence[int]:
    """What the spec's functions say of one state agrees; returns the safe actions."""
    expert, good, safe = spec.expert_action(env), spec.good(env), spec.safe(env, actions)
    slips, phase = spec.slips_of(env, actions), spec.phase_of(env)
    for name, found in {"expert_action": (expert,), "good_actions": good, "safe_actions": safe, "slips": slips}.items():
        legal = set(found) <= set(range(len(actions)))
        require(legal, f"{name} gives {found}, where 0 to {len(actions) - 1} are legal")
    require(expert in good, "good_actions leaves out the expert's action; put it in")
    require(expert in safe, "safe_actions leaves out the expert's action; put it in")
    require(expert not in slips, "slips holds the expert's action; leave it out")
    require(set(slips) <= set(safe), "slips holds an action that is not safe; leave it out")
    require(isinstance(phase, str), f"phase gives {phase!r}; it should be a word or two")
    return safe


def invalid_action(spec: EnvSpec, tasks: Sequence[str], require: Require) -> None:
    """The expert's way after an index beyond the legal actions, beside the expert's way alone."""
    task, expert, horizon, what = tasks[0], spec.expert_action, 10 * spec.horizon, "an index beyond the legal actions"
    usual = [*_episode(spec, task, expert, horizon)]
    invalid = len(usual[0].info["actions"])
    after = [*_episode(spec, task, expert, horizon, first=invalid)][1:]
    unchanged = [step.seen for step in after] == [step.seen for step in usual]
    require(unchanged, f"{what} should change nothing but the number of steps; pass over it")
    named = after[0].info.get("invalid_action") == invalid
    require(named, f'{what} should be named: info["invalid_action"] = {invalid}')
    *_, last = _episode(spec, task, expert, horizon=1, first=invalid)
    costs = last.truncated and not last.terminated
    require(costs, f"{what} should cost a step: with horizon=1 it truncates the episode")


def expert_and_oracle(spec: EnvSpec, tasks: Sequence[str], require: Require) -> None:
    steps = {task: _steps_to_success(spec, task, spec.expert_action) for task in tasks}
    failed = [task for task, taken in steps.items() if not taken]
    require(not failed, f"the expert does not finish {len(failed)} of {len(tasks)} training tasks: {failed}")
    slow = [taken for taken in steps.values() if taken > spec.horizon]
    where = f"in {len(slow)} of {len(tasks)} training tasks; raise horizon={spec.horizon}"
    require(len(slow) <= len(tasks) / 2, f"the expert takes up to {max(steps.values())} steps {where}")
    for task, taken in steps.items() if spec.oracle_steps else ():
        least, says = spec.oracle_steps(task), f"oracle_steps({task!r}) gives"
        if require(isinstance(least, int) and least >= 1, f"{says} {least!r}; it should be a whole number from 1 on"):
            require(not taken or taken >= least, f"{says} {least}, but the expert finishes in {taken} steps")
            best = _steps_to_success(spec, task, spec.oracle_action) if spec.oracle_action else least
            require(best == least, f"{says} {least}, but oracle_action finishes in {best} (0: not at all)")


def teacher(spec: EnvSpec, tasks: Sequence[str], require: Require) -> None:
    """Reflections along the expert's way and along random play."""
    advises = False
    for task, player in itertools.product(tasks, (spec.expert_action, np.random.default_rng(0))):
        env = spec.make(horizon=spec.horizon)
        now = play.begin(spec, env, task)
        while now is not None:
            text = spec.teacher(now)
            line, says = isinstance(text, str) and text.strip() and "\n" not in text, f"the teacher says {text!r}"
            if not require(line, f"{says}; it should be one line of text"):
                return
            advised = _advised(text, now.actions)
            advises = advises or advised is not None
            fine = advised is None or advised in spec.good(env)
            require(fine, f"{says}; the last action that it names should be a good one, such as {now.expert_action!r}")
            now = play.act(spec, env, now, _action(player, env, now.actions))
        env.close()
    require(advises, "the teacher never names a legal action, so nobody can follow it; write it as in `actions`")


def _advised(text: str, actions: Sequence[str]) -> int | None:
    """Index of the legal action that a text names last, in whole words; of several that end there, the longest."""
    places = []
    for index, action in enumerate(actions):
        found = re.finditer(rf"(?<!\w){re.escape(action)}(?!\w)", text)
        places += [(match.end(), len(action), index) for match in found]
    return max(places)[2] if places else None


def drawing(spec: EnvSpec, tasks: Sequence[str], require: Require) -> None:
    from matplotlib.figure import Figure

    if found := spec.load_draw():
        for step in _episode(spec, tasks[0], spec.expert_action):
            found.draw(Figure().add_subplot(), step.observation)
        if found.draw_legend is not None:
            found.draw_legend(Figure().add_subplot())


PLAYED = (gymnasiums_contract, random_play, invalid_action, expert_and_oracle, teacher, drawing)
