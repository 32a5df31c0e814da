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

Player = Callable[[gym.Env], int] | np.random.Generator  # gives the index of an action; a generator draws a legal one


def check(spec: EnvSpec, episodes: int = 4) -> None:
    """Play an environment on some of its training tasks, registered or not, and complain of what is wrong with it.

    Args:
        episodes: how many tasks are tried: by random play, by the expert, and by the oracle where there is one.

    Raises:
        ReflectRLError: something is missing or wrong; the message lists all that was found, and what to do. Where tasks
            are missing, or an episode begins badly, nothing more is tried.
    """
    if not isinstance(spec, EnvSpec):
        raise ReflectRLError(f"{spec!r} is no EnvSpec; see reflect_rl.envs.EnvSpec")
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
    for rule in rules:
        try:
            for complaint in rule(spec, tasks):
                found.setdefault(re.sub(r"'[^']*'|\"[^\"]*\"|\d+", "", complaint), complaint)
        except Exception as error:  # an environment may raise anything
            name = rule.__name__.replace("_", " ")
            found[name] = f"its {name}: {type(error).__name__}: {error}"
    return list(found.values())


class Step(NamedTuple):
    """What `reset` (action None) or `step` returned."""

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


def _episode(
    spec: EnvSpec, task: str, player: Player, horizon: int = 0, first: int | None = None
) -> Iterator[tuple[gym.Env, Step]]:
    """A task from its beginning to its end, or to the horizon; `first` is an action before those of the player."""
    horizon = horizon or spec.horizon
    env = spec.make(horizon=horizon)
    observation, info = env.reset(options={"task": task})
    step = Step(None, observation, 0.0, False, False, info)
    yield env, step
    while not step.over and horizon > 0:
        action = _action(player, env, step.info["actions"]) if first is None else first
        step, first, horizon = Step(action, *env.step(action)), None, horizon - 1
        yield env, step
    env.close()


def _action(player: Player, env: gym.Env, actions: Sequence[str]) -> int:
    return int(player.integers(len(actions))) if isinstance(player, np.random.Generator) else player(env)


def _steps_to_success(spec: EnvSpec, task: str, player: Player) -> int:
    """0 where there is no success within ten times the horizon."""
    *before, (_, last) = _episode(spec, task, player, 10 * spec.horizon)
    return len(before) if last.info.get("success") else 0


# --- the rules: each yields its complaints ---


def panels(spec: EnvSpec, tasks: Sequence[str]) -> Iterator[str]:
    """Every family that is needed has tasks, and no task is in two splits."""
    split_of: dict[str, str] = {}
    evaluated = {*spec.settings, spec.training_setting}
    needed = {"test": evaluated, "validation": {*spec.selection_settings, spec.training_setting}}
    needed["train"] = {*spec.stages, spec.headline, spec.training_setting}
    for split, setting in ((split, setting) for split in SPLITS for setting in sorted(evaluated | needed[split])):
        name, panel = f"tasks({setting!r}, {split!r})", spec.tasks(setting, split)
        if not isinstance(panel, tuple) or not all(isinstance(task, str) for task in panel):
            yield f"{name} should be a tuple of strings, which can be written to files"
            continue
        if not panel and setting in needed[split]:
            yield f"{name} is empty; list at least one task"
        if len(set(panel)) < len(panel):
            yield f"{name} lists a task twice; list each once"
        for task in panel:
            if split_of.setdefault(task, split) != split:
                yield f"task {task!r} is in {split_of[task]} and in {split}; leave it in one of them"


def beginning(spec: EnvSpec, tasks: Sequence[str]) -> Iterator[str]:
    for milestone in (True, False) if spec.milestones else ():
        spec.make(horizon=spec.horizon, milestone=milestone).close()
    yield from _of_step(spec, *next(_episode(spec, tasks[0], spec.expert_action)))


def _of_step(spec: EnvSpec, env: gym.Env, step: Step) -> Iterator[str]:
    """What every step must hold, the first one too."""
    actions, success, text, space = (*map(step.info.get, ("actions", "success")), step.observation, env.observation_space)
    if not (isinstance(actions, tuple) and actions and all(isinstance(action, str) for action in actions)):
        yield f'info["actions"]={actions!r} should be a tuple of texts, at least one'
    else:
        if len(set(actions)) < len(actions):
            yield f'info["actions"]={actions} names an action twice'
        labels, most = spec.labels.of(actions), len(spec.labels.names)
        if len(set(labels)) < len(actions) or max(labels) >= most:
            yield f"the labels of {len(actions)} actions are {labels}; give `labels` that differ and are below {most}"
    if not (isinstance(space, Text) and isinstance(text, str)):
        yield f"observation {text!r:.200} should be text, and observation_space a gymnasium.spaces.Text"
    elif not space.contains(text):
        yield f"observation {text!r:.200} is outside observation_space; widen its charset or its max_length"
    if step.over and not isinstance(success, bool):
        yield f'info["success"]={success!r} should be True or False at the end of an episode'
    if success and not step.terminated:
        yield 'info["success"] is True in a step that is not terminated; return terminated=True with it'


def gymnasiums_contract(spec: EnvSpec, tasks: Sequence[str]) -> Iterator[str]:
    """Gymnasium's own checker, whose warnings count too."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        check_env(spec.make(horizon=spec.horizon), skip_render_check=True)
    yield from (re.sub(r"\x1b\[\d*m", "", f"Gymnasium's check_env says: {said.message}") for said in heard)


def random_play(spec: EnvSpec, tasks: Sequence[str]) -> Iterator[str]:
    rng = np.random.default_rng(0)
    for task in tasks:
        safe: Sequence[int] = ()
        for env, step in _episode(spec, task, rng):
            yield from _of_step(spec, env, step)
            if not step.over:
                yield from _of_functions(spec, env, step.info["actions"])
                safe = spec.safe(env, step.info["actions"])
            elif step.terminated and not step.info.get("success") and step.action in safe:
                yield f"a safe action ended task {task!r} in failure; leave it out of safe_actions and slips"
        if not step.over:
            yield "an episode goes on beyond `horizon` steps; return truncated=True in time"


def _of_functions(spec: EnvSpec, env: gym.Env, actions: Sequence[str]) -> Iterator[str]:
    """What the spec's functions say of one state agrees."""
    expert, good, safe = spec.expert_action(env), spec.good(env), spec.safe(env, actions)
    slips, phase = spec.slips_of(env, actions), spec.phase_of(env)
    for name, found in {"expert_action": (expert,), "good_actions": good, "safe_actions": safe, "slips": slips}.items():
        if not set(found) <= set(range(len(actions))):
            yield f"{name} gives {found}, where 0 to {len(actions) - 1} are legal"
    breaches = {
        "good_actions leaves out the expert's action; put it in": expert not in good,
        "safe_actions leaves out the expert's action; put it in": expert not in safe,
        "slips holds the expert's action; leave it out": expert in slips,
        "slips holds an action that is not safe; leave it out": not set(slips) <= set(safe),
        f"phase gives {phase!r}; it should be a word or two": not isinstance(phase, str),
    }
    yield from (complaint for complaint, breached in breaches.items() if breached)


def invalid_action(spec: EnvSpec, tasks: Sequence[str]) -> Iterator[str]:
    """The expert's way after an index beyond the legal actions, beside the expert's way alone."""
    task, horizon, what = tasks[0], 10 * spec.horizon, "an index beyond the legal actions should"
    usual = [step for _, step in _episode(spec, task, spec.expert_action, horizon)]
    invalid = len(usual[0].info["actions"])
    _, *after = (step for _, step in _episode(spec, task, spec.expert_action, horizon, first=invalid))
    if [step.seen for step in after] != [step.seen for step in usual]:
        yield f"{what} change nothing but the number of steps; pass over it"
    if after[0].info.get("invalid_action") != invalid:
        yield f'{what} be named: info["invalid_action"] = {invalid}'
    _, (_, last) = _episode(spec, task, spec.expert_action, horizon=1, first=invalid)
    if last.terminated or not last.truncated:
        yield f"{what} cost a step: with horizon=1 it truncates the episode"


def determinism(spec: EnvSpec, tasks: Sequence[str]) -> Iterator[str]:
    """A task in two environments that are stepped in turn."""
    for task in tasks:
        pairs = zip(*(_episode(spec, task, np.random.default_rng(0)) for _ in range(2)), strict=False)
        if any((one.seen, one.reward) != (other.seen, other.reward) for (_, one), (_, other) in pairs):
            away = "let chance follow from the task's id, and keep no state outside the environment"
            yield f"task {task!r} gives different episodes under the same actions; {away}"


def expert_and_oracle(spec: EnvSpec, tasks: Sequence[str]) -> Iterator[str]:
    steps = {task: _steps_to_success(spec, task, spec.expert_action) for task in tasks}
    failed = [task for task, taken in steps.items() if not taken]
    slow = [task for task, taken in steps.items() if taken > spec.horizon]
    if failed:
        yield f"the expert does not finish {len(failed)} of {len(tasks)} training tasks, such as {failed[0]!r}"
    if len(slow) > len(tasks) / 2:
        where = f"in {len(slow)} of {len(tasks)} training tasks, up to {max(steps.values())}"
        yield f"the expert takes more than horizon={spec.horizon} steps {where}; raise the horizon"
    for task in tasks if spec.oracle_steps else ():
        least = spec.oracle_steps(task)
        taken = _steps_to_success(spec, task, spec.oracle_action) if spec.oracle_action else least
        if not isinstance(least, int) or least < 1:
            yield f"oracle_steps({task!r}) gives {least!r}; it should be a whole number from 1 on"
        elif 0 < steps[task] < least:
            yield f"the expert finishes {task!r} in {steps[task]} steps, but oracle_steps says that it takes {least}"
        elif taken != least:
            yield f"oracle_action finishes {task!r} in {taken} steps (0: not at all), oracle_steps says {least}"


def teacher(spec: EnvSpec, tasks: Sequence[str]) -> Iterator[str]:
    """Reflections along the expert's way and along random play."""
    advises = False
    for task, player in itertools.product(tasks, (spec.expert_action, np.random.default_rng(0))):
        env = spec.make(horizon=spec.horizon)
        now = play.begin(spec, env, task)
        while now is not None:
            text = spec.teacher(now)
            if not (isinstance(text, str) and text.strip() and "\n" not in text):
                yield f"the teacher says {text!r}; it should be one line of text"
                return
            advised = _advised(text, now.actions)
            advises = advises or advised is not None
            if advised is not None and advised not in spec.good(env):
                wrong = f"the last action that the teacher names in {text!r} is none of the good ones"
                yield f"{wrong}; let it end with the expert's, {now.expert_action!r}"
            now = play.act(spec, env, now, _action(player, env, now.actions))
        env.close()
    if not advises:
        yield "the teacher never names a legal action, so nobody can follow it; write it as in `actions`"


def _advised(text: str, actions: Sequence[str]) -> int | None:
    """Index of the legal action that a text names last, in whole words; of several that end there, the longest."""
    places = []
    for index, action in enumerate(actions):
        found = re.finditer(rf"(?<!\w){re.escape(action)}(?!\w)", text)
        places += [(match.end(), len(action), index) for match in found]
    return max(places)[2] if places else None


def drawing(spec: EnvSpec, tasks: Sequence[str]) -> Iterator[str]:
    """An episode is drawn; what cannot be drawn raises."""
    from matplotlib.figure import Figure

    found = spec.load_draw()
    for _, step in _episode(spec, tasks[0], spec.expert_action) if found else ():
        found.draw(Figure().add_subplot(), step.observation)
    if found and found.draw_legend is not None:
        found.draw_legend(Figure().add_subplot())
    yield from ()


PLAYED = (gymnasiums_contract, random_play, invalid_action, determinism, expert_and_oracle, teacher, drawing)
