"""`check`: plays an environment and says in words where it departs from what the library relies on."""

import itertools
import random
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Text
from gymnasium.utils.env_checker import check_env

from reflect_rl.core import config, ranges
from reflect_rl.core.errors import ReflectRLError, unknown
from reflect_rl.envs import play
from reflect_rl.envs.base import SPLITS, EnvSpec
from reflect_rl.envs.registry import require_spec

Require = Callable[[Any, str], bool]  # (fine, complaint) -> whether it is fine; where not, the complaint is kept
Player = Callable[[gym.Env], int] | np.random.Generator  # gives the index of an action; a generator draws a legal one
#: Files of the check, of Python and of Gymnasium, in which a mistake of an environment may come to light.
NOT_THEIRS = re.compile(r"/reflect_rl/envs/\w+\.py$|^<frozen|/lib/python3\.\d+/(?!\w+-packages/)|-packages/gymnasium/")


def check(spec: EnvSpec, episodes: int = 4) -> None:
    """Play an environment on some of its training tasks, registered or not, and complain of what is wrong with it.

    Args:
        episodes: how many tasks are tried: by random play, by the expert, and by the oracle where there is one.

    Raises:
        ReflectRLError: something is missing or wrong; the message lists all that was found at one level (tasks and
            defaults, the expert's way through a task, all else, failures), and what to do. Its cause is the first error.
    """
    require_spec(spec)
    before, raised = _global_generators(), []
    complaints = _complaints([panels, defaults], spec, (), raised)
    if not complaints:
        panel = spec.tasks(spec.training_setting, "train")
        tasks = panel[:: max(1, len(panel) // episodes)][:episodes]
        complaints = next(filter(None, (_complaints(rules, spec, tasks, raised) for rules in PLAYED)), [])
    if _global_generators() != before:
        complaints.append("it uses the global `random` or `numpy.random`; draw from self.np_random")
    if complaints:
        text = f"environment {spec.name!r} is not as it should be:\n- " + "\n- ".join(complaints)
        raise ReflectRLError(text) from next(iter(raised), None)


def _global_generators() -> tuple:
    return random.getstate(), np.random.get_state()[1].tobytes(), np.random.get_state()[2]


def _complaints(rules: Sequence[Callable], spec: EnvSpec, tasks: Sequence[str], raised: list[Exception]) -> list[str]:
    """What the rules complain of; of complaints that differ in nothing but texts and numbers the first."""
    found: dict[str, str] = {}

    def require(fine: Any, complaint: str) -> bool:
        if not fine:
            found.setdefault(re.sub(r"'[^']*'|\"[^\"]*\"|-?\d[\d.]*", "", complaint), complaint)
        return bool(fine)

    for rule in rules:
        try:
            rule(spec, tasks, require)
        except Exception as error:  # an environment may raise anything; what several rules run into is told once
            what = f"{type(error).__name__}: {error}{_place(error)}"
            found.setdefault(what, f"its {rule.__name__.replace('_', ' ')}: {what}")
            raised.append(error)
    return list(found.values())


def _place(error: Exception) -> str:
    """Where the environment's own code raised, or called what did; else empty."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not NOT_THEIRS.search(frame.filename)]
    frames = [frame for frame in frames if "-packages/" not in frame.filename] or frames
    return f" ({frames[-1].filename}:{frames[-1].lineno}, in {frames[-1].name})" if frames else ""


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
    try:
        outcome = _values("two", "reset", "observation, info", env.reset(options={"task": task}))
        step = Step(env, None, outcome[0], 0.0, False, False, outcome[1])
        yield step
        while not step.over and horizon > 0:
            action = _action(player, env, step.info["actions"]) if first is None else first
            outcome = _values("five", "step", "observation, reward, terminated, truncated, info", env.step(action))
            step, first, horizon = Step(env, action, *outcome), None, horizon - 1
            yield step
    finally:
        env.close()


def _values(count: str, method: str, names: str, found: Any) -> tuple:
    if isinstance(found, tuple) and len(found) == names.count(",") + 1 and isinstance(found[-1], dict):
        return found
    raise TypeError(f"{method} should return {count} values ({names}), info a dict; it returned {found!r:.200}")


def _action(player: Player, env: gym.Env, actions: Sequence[str]) -> int:
    action = int(player.integers(len(actions))) if isinstance(player, np.random.Generator) else player(env)
    if action in range(len(actions)):
        return action
    raise IndexError(f"expert_action or oracle_action gives {action!r}, where 0 to {len(actions) - 1} are legal")


def _steps_to_success(spec: EnvSpec, task: str, player: Player, require: Require) -> int:
    """0 where there is no success within ten times the horizon."""
    for count, step in enumerate(_episode(spec, task, player, 10 * spec.horizon)):
        _look_at(spec, step, require)
        if step.info.get("success"):
            return count
    return 0


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


def defaults(spec: EnvSpec, tasks: Sequence[str], require: Require) -> None:
    for key, value in spec.defaults.items():
        section, name = key.split(".")
        try:
            if section not in config.SECTIONS:
                raise unknown("section of settings", section, config.SECTIONS)
            ranges.check(config.SECTIONS[section], section, name, value)
        except ReflectRLError as error:
            require(False, f"its default of {key}: {error}")


def beginning(spec: EnvSpec, tasks: Sequence[str], require: Require) -> None:
    for milestone in (True, False) if spec.milestones else ():
        spec.make(horizon=spec.horizon, milestone=milestone).close()
    said: list[str] = []
    for step in _episode(spec, tasks[0], spec.expert_action):
        _look_at(spec, step, lambda fine, complaint: require(fine, complaint) or said.append(complaint))
        if said:  # whatever comes after it may follow from it
            return


def _look_at(spec: EnvSpec, step: Step, require: Require) -> None:
    """What every step must hold, the first one too."""
    actions, success, space = step.info.get("actions"), step.info.get("success"), step.env.observation_space
    named = isinstance(actions, tuple) and actions and all(isinstance(action, str) for action in actions)
    if require(named, f'info["actions"]={actions!r} should be a tuple of texts, at least one'):
        require(len(set(actions)) == len(actions), f'info["actions"]={actions} names an action twice')
        labels, most = spec.labels.of(actions), len(spec.labels.names)
        fine = len(set(labels)) == len(actions) and max(labels) < most
        require(fine, f"the labels of {len(actions)} actions are {labels}; they should differ and be below {most}")
    text, seen = isinstance(space, Text) and isinstance(step.observation, str), f"observation {step.observation!r:.200}"
    if require(text, f"{seen} should be text, and observation_space a spaces.Text"):
        inside = space.contains(step.observation)
        require(inside, f"{seen} is outside observation_space; widen its charset or its max_length")
    is_bool = isinstance(success, bool) or not step.over
    require(is_bool, f'info["success"]={success!r} should be True or False at the end of an episode')
    require(step.terminated or not success, 'success must terminate: return terminated=True with info["success"]=True')


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
        for step, twin in zip(*(_episode(spec, task, rng) for rng in rngs), strict=False):
            _look_at(spec, step, require)
            way_out = "let chance follow from the task's id, and keep no state outside the environment"
            same = (step.seen, step.reward) == (twin.seen, twin.reward)
            if not require(same, f"task {task!r} gives different episodes under the same actions; {way_out}"):
                break
            if not step.over:
                _functions_of(spec, step.env, step.info["actions"], require)
        else:
            require(step.over, "an episode goes on beyond `horizon` steps; return truncated=True in time")


def _functions_of(spec: EnvSpec, env: gym.Env, actions: Sequence[str], require: Require) -> None:
    """What the spec's functions say of one state agrees."""
    expert, good, safe = spec.expert_action(env), spec.good(env), spec.safe(env, actions)
    slips, phase = spec.slips_of(env, actions), spec.phase_of(env)
    require(isinstance(phase, str), f"phase gives {phase!r}; it should be a word or two")
    for name, found in {"expert_action": (expert,), "good_actions": good, "safe_actions": safe, "slips": slips}.items():
        legal = set(found) <= set(range(len(actions)))
        if not require(legal, f"{name} gives {found}, where 0 to {len(actions) - 1} are legal"):
            return
    require(expert in good, "good_actions leaves out the expert's action; put it in")
    require(expert in safe, "safe_actions leaves out the expert's action; put it in")
    require(expert not in slips, "slips holds the expert's action; leave it out")
    require(set(slips) <= set(safe), "slips holds an action that is not safe; leave it out")


def invalid_action(spec: EnvSpec, tasks: Sequence[str], require: Require) -> None:
    """The expert's way after an index beyond the legal actions, beside the expert's way alone."""
    task, expert, horizon, what = tasks[0], spec.expert_action, 10 * spec.horizon, "an index beyond the legal actions"
    usual = [*_episode(spec, task, expert, horizon)]
    index = len(usual[0].info["actions"])
    after = [*_episode(spec, task, expert, horizon, first=index)][1:]
    seen, seen_after = ([step.seen for step in steps if not step.truncated] for steps in (usual, after))
    unchanged = seen_after == seen[: None if usual[-1].terminated else len(seen_after)]  # the expert may never finish
    require(unchanged, f"{what} should change nothing but the number of steps; pass over it")
    require(after[0].info.get("invalid_action") == index, f'{what} should be named: info["invalid_action"] = {index}')
    *_, last = _episode(spec, task, expert, horizon=1, first=index)
    require(last.over, f"{what} should cost a step: with horizon=1 it truncates the episode")
    require(not last.terminated or after[0].terminated, "at the horizon return truncated=True, terminated=False")


def expert_and_oracle(spec: EnvSpec, tasks: Sequence[str], require: Require) -> None:
    steps = {task: _steps_to_success(spec, task, spec.expert_action, require) for task in tasks}
    failed = [task for task, taken in steps.items() if not taken]
    require(not failed, f"the expert does not finish {len(failed)} of {len(tasks)} training tasks: {failed}")
    slow = [taken for taken in steps.values() if taken > spec.horizon]
    where = f"in {len(slow)} of {len(tasks)} training tasks; raise horizon={spec.horizon}"
    require(len(slow) <= len(tasks) / 2, f"the expert takes up to {max(steps.values())} steps {where}")
    for task, taken in steps.items() if spec.oracle_steps else ():
        least, says = spec.oracle_steps(task), f"oracle_steps({task!r}) gives"
        if require(isinstance(least, int) and least >= 1, f"{says} {least!r}; it should be a whole number from 1 on"):
            require(not taken or taken >= least, f"{says} {least}, but the expert finishes in {taken} steps")
            best = _steps_to_success(spec, task, spec.oracle_action, require) if spec.oracle_action else least
            require(best == least, f"{says} {least}, but oracle_action finishes in {best} (0: not at all)")


def teacher(spec: EnvSpec, tasks: Sequence[str], require: Require) -> None:
    """Reflections along the expert's way and along random play."""
    advises, verdicts = False, {}  # (what an action was, what the teacher called it) -> how it said so
    for task, player in itertools.product(tasks, (spec.expert_action, np.random.default_rng(0))):
        env = spec.make(horizon=spec.horizon)
        now = play.begin(spec, env, task)
        while now is not None:
            text = spec.teacher(now)
            line, says = isinstance(text, str) and text.strip() and "\n" not in text, f"the teacher says {text!r}"
            if not require(line, f"{says}; it should be one line of text"):
                return
            advised = play.advised_action(text, now.actions)
            advises = advises or advised is not None
            fine = advised is None or advised in spec.good(env)
            require(fine, f"{says}; the last action that it names should be a good one, such as {now.expert_action!r}")
            said = re.search(r"(?i)(?<!not )\b(right|wrong)\b", text.replace(now.last_action, ""))
            if said and now.last_action:
                verdicts[now.action_feedback, said[0].lower()] = text
            now = play.act(spec, env, now, _action(player, env, now.actions))
        env.close()
    require(advises, "the teacher never names a legal action, so nobody can follow it; write it as in `actions`")
    says = "; ".join(f"after a {was} one {text!r}" for (was, _), text in verdicts.items())
    says = f"the teacher calls right actions wrong and wrong ones right ({says}); go by situation.action_feedback"
    require(verdicts.keys() != {("right", "wrong"), ("wrong", "right")}, says)


def drawing(spec: EnvSpec, tasks: Sequence[str], require: Require) -> None:
    from matplotlib.figure import Figure

    if found := spec.load_draw():
        for step in _episode(spec, tasks[0], spec.expert_action):
            found.draw(Figure().add_subplot(), step.observation)
        if found.draw_legend is not None:
            found.draw_legend(Figure().add_subplot())


def failures(spec: EnvSpec, tasks: Sequence[str], require: Require) -> None:
    """No safe action makes an episode fail, and no failure pays as much as the expert's success."""
    rng, default = np.random.default_rng(0), "" if spec.safe_actions else " (without that field all count as safe)"
    for task in (*tasks,) * 3:
        steps, safe = [], ()
        for step in _episode(spec, task, rng):
            steps, safe = [*steps, step], safe if step.over else spec.safe(step.env, step.info["actions"])
        before, last = steps[-2:]
        if not last.info["success"]:
            action, seen = before.info["actions"][last.action], f"{before.observation!r:.200}"
            said = f"a safe action ended an episode in failure: {action!r} at {seen}; leave it out of safe_actions"
            require(not last.terminated or last.action not in safe, f"{said}{default} and of slips")
            expert = [*_episode(spec, task, spec.expert_action)]
            failed, best = (sum(step.reward for step in way) for way in (steps, expert))
            said = f"failing in task {task!r} returned {failed:.4g}, the expert's success {best:.4g}"
            require(failed < best or not expert[-1].info["success"], f"{said}; let success pay more than failure")


ALL_ELSE = (gymnasiums_contract, random_play, invalid_action, expert_and_oracle, teacher, drawing)
PLAYED = ((beginning,), ALL_ELSE, (failures,))
