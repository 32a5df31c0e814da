"""`check`: plays an environment and says in words where it departs from what the library relies on."""

import random
import re
import warnings
from collections.abc import Sequence

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs import play
from reflect_rl.envs.base import SPLITS, Drawing, EnvSpec, Situation
from reflect_rl.envs.registry import wrong_fields
from reflect_rl.envs.trial import Step, Trial


def check(spec: EnvSpec, episodes: int = 4) -> None:
    """Play an environment on some of its training tasks, registered or not, and complain of what is wrong with it.

    Args:
        episodes: how many tasks are played by each of those that try it: one that acts at random, the expert, and the
            oracle where there is one.

    Raises:
        ReflectRLError: something is missing or wrong; the message lists all that was found, and what to do. Where tasks
            are missing, or an episode begins badly, nothing more is tried.
    """
    complaints = wrong_fields(spec)
    if not complaints:
        before, trial = _global_generators(), Trial(spec, episodes)
        _ = trial.run([tasks]) and trial.run([beginning]) and trial.run(PLAYED)
        same = _global_generators() == before
        trial.require(same, "generators", "it uses the global `random` or `numpy.random`; draw from self.np_random")
        complaints = list(trial.complaints.values())
    if complaints:
        name = getattr(spec, "name", spec)
        raise ReflectRLError(f"environment {name!r} is not as it should be:\n- " + "\n- ".join(complaints))


def _global_generators() -> tuple:
    _, keys, position, *_ = np.random.get_state()
    return random.getstate(), keys.tobytes(), position


# --- the rules: each takes the trial and complains ---


def tasks(trial: Trial) -> None:
    """Every family that is needed has tasks, and no task is in two splits."""
    spec, split_of = trial.spec, {}
    evaluated = (*spec.settings, spec.training_setting)
    needed = {(setting, "test") for setting in evaluated}
    needed |= {(setting, "validation") for setting in (*spec.selection_settings, spec.training_setting)}
    needed |= {(setting, "train") for setting in (*spec.stages, spec.headline, spec.training_setting)}
    for setting in dict.fromkeys((*evaluated, *spec.stages)):
        for split in SPLITS if setting in evaluated else ("train",):  # of stages, nothing else is played
            name, panel = f"tasks({setting!r}, {split!r})", spec.tasks(setting, split)
            strings = isinstance(panel, tuple) and all(isinstance(task, str) for task in panel)
            if not trial.require(strings, "ids", f"{name} should be a tuple of strings, which can be written to files"):
                continue
            trial.require(panel or (setting, split) not in needed, name, f"{name} is empty; list at least one task")
            trial.require(len(set(panel)) == len(panel), "once", f"{name} lists a task twice; list each once")
            for task in panel:
                other = split_of.setdefault(task, split)
                trial.require(
                    other == split, "splits", f"task {task!r} is in {other} and in {split}; leave it in one of them"
                )


def beginning(trial: Trial) -> None:
    env = trial.make()
    _look_at(trial, env, trial.begin(env, trial.tasks[0]))
    env.close()


def _look_at(trial: Trial, env: gym.Env, step: Step) -> None:
    """What every step must hold, the first one too."""
    actions, success, observation = step.info.get("actions"), step.info.get("success"), step.observation
    named = isinstance(actions, tuple) and actions and all(isinstance(action, str) for action in actions)
    complaint = f'info["actions"]={actions!r} should be a tuple of texts, at least one'
    if trial.require(named, "actions", complaint):
        trial.require(len(set(actions)) == len(actions), "twice", f'info["actions"]={actions} names an action twice')
        labels, most = trial.spec.labels.of(actions), len(trial.spec.labels.names)
        trial.require(
            len(set(labels)) == len(actions) and max(labels) < most,
            "labels",
            f"the labels of {len(actions)} actions are {labels}; they should differ and be below {most}: list fewer "
            "actions, or give `labels` that have more names",
        )
    text = isinstance(env.observation_space, spaces.Text) and isinstance(observation, str)
    complaint = f"observation {observation!r:.200} should be text, and observation_space a gymnasium.spaces.Text"
    if trial.require(text, "text", complaint):
        complaint = (
            f"observation {observation!r:.200} is outside observation_space; widen its charset or its max_length"
        )
        trial.require(env.observation_space.contains(observation), "space", complaint)
    if step.over:
        complaint = f'info["success"]={success!r} should be True or False at the end of an episode'
        trial.require(isinstance(success, bool), "success", complaint)
    complaint = 'info["success"] is True in a step that is not terminated; return terminated=True with it'
    trial.require(not success or step.terminated, "terminated", complaint)


def gymnasium(trial: Trial) -> None:
    """Gymnasium's own checker, whose warnings count too."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            check_env(trial.make(), skip_render_check=True)
        except Exception as error:
            heard.append(error)
    for said in heard:
        text = re.sub(r"\x1b\[\d*m", "", str(getattr(said, "message", said)))
        trial.require(False, text, f"Gymnasium's check_env says: {text}")


def random_play(trial: Trial) -> None:
    for task in trial.tasks:
        safe: list[tuple[int, ...]] = []

        def player(env: gym.Env, step: Step, safe=safe) -> int:
            _look_at(trial, env, step)
            safe.append(_functions(trial, env, step.info["actions"]))
            return trial.at_random(env, step)

        last = trial.episode(task, player)[-1]
        _look_at(trial, trial.make(), last)
        trial.require(last.over, "horizon", "an episode goes on beyond `horizon` steps; return truncated=True in time")
        failed = last.terminated and not last.info.get("success") and last.action in safe[-1]
        complaint = (
            f"an action that counts as safe ended task {task!r} in failure; leave it out of safe_actions and slips"
        )
        trial.require(not failed, "failed", complaint)


def _functions(trial: Trial, env: gym.Env, actions: Sequence[str]) -> tuple[int, ...]:
    """What the spec's functions say of a state agrees; returns the safe actions."""
    spec, legal = trial.spec, set(range(len(actions)))
    expert, good, safe = spec.expert_action(env), spec.good(env), spec.safe(env, actions)
    slips, phase = spec.slips_of(env, actions), spec.phase_of(env)
    trial.require(expert in legal, "expert", f"expert_action gives {expert!r}, where 0 to {len(actions) - 1} are legal")
    for name, found in (("good_actions", good), ("safe_actions", safe), ("slips", slips)):
        trial.require(set(found) <= legal, name, f"{name} gives {found}, where 0 to {len(actions) - 1} are legal")
    trial.require(expert in good, "good", "good_actions leaves out the expert's action; put it in")
    trial.require(expert in safe, "safe", "safe_actions leaves out the expert's action; put it in")
    trial.require(expert not in slips, "slip", "slips holds the expert's action; leave it out")
    trial.require(set(slips) <= set(safe), "unsafe", "slips holds an action that is not safe; leave it out")
    trial.require(isinstance(phase, str), "phase", f"phase gives {phase!r}; it should be a word or two")
    return safe


def invalid_action(trial: Trial) -> None:
    """The expert's way after an index beyond the legal actions, beside the expert's way alone."""
    task, horizon = trial.tasks[0], 10 * trial.spec.horizon
    usual, after = trial.episode(task, trial.expert, horizon), trial.episode(task, trial.illegal_first, horizon)
    what, index = "an index beyond the legal actions", len(usual[0].info["actions"])
    unchanged = [step.seen for step in after[1:]] == [step.seen for step in usual]
    trial.require(unchanged, "unchanged", f"{what} should change nothing but the number of steps; pass over it")
    named = after[1].info.get("invalid_action") == index
    trial.require(named, "named", f'{what} should be named: info["invalid_action"] = {index}')
    last = trial.episode(task, trial.illegal_first, horizon=1)[-1]
    costs = last.truncated and not last.terminated
    trial.require(costs, "costs", f"{what} should cost a step: with horizon=1 it truncates the episode")


def determinism(trial: Trial) -> None:
    """A task in two environments that are stepped in turn."""
    for task in trial.tasks:
        envs = trial.make(), trial.make()
        pair = [trial.begin(env, task) for env in envs]
        for _ in range(trial.spec.horizon):
            if pair[0].over or pair[0].seen != pair[1].seen:
                break
            action = trial.at_random(envs[0], pair[0])
            pair = [Step(action, *env.step(action)) for env in envs]
        trial.require(
            (pair[0].seen, pair[0].reward) == (pair[1].seen, pair[1].reward),
            "determinism",
            f"task {task!r} gives different episodes under the same actions; let chance follow from the task's id, and "
            "keep no state outside the environment",
        )


def expert(trial: Trial) -> None:
    steps = {task: trial.steps_to_success(task, trial.expert) for task in trial.tasks}
    failed = [task for task, taken in steps.items() if not taken]
    slow = [task for task, taken in steps.items() if taken > trial.spec.horizon]
    complaint = f"the expert does not finish {len(failed)} of {len(steps)} training tasks, such as {failed[:1]}"
    trial.require(not failed, "fails", complaint)
    complaint = (
        f"the expert takes more than horizon={trial.spec.horizon} steps in {len(slow)} of {len(steps)} training tasks, "
        f"up to {max(steps.values())}; raise the horizon"
    )
    trial.require(len(slow) <= len(steps) / 2, "slow", complaint)


def oracle(trial: Trial) -> None:
    spec = trial.spec
    for task in trial.tasks if spec.oracle_steps is not None else ():
        least = spec.oracle_steps(task)
        complaint = f"oracle_steps({task!r}) gives {least!r}; it should be a whole number from 1 on"
        if not trial.require(isinstance(least, int) and least >= 1, "steps", complaint):
            continue
        taken = trial.steps_to_success(task, trial.expert)
        complaint = f"the expert finishes {task!r} in {taken} steps, but oracle_steps says that it takes {least}"
        trial.require(not taken or taken >= least, "shortest", complaint)
        if spec.oracle_action is not None:
            taken = trial.steps_to_success(task, trial.oracle)
            complaint = f"oracle_action finishes {task!r} in {taken} steps (0: not at all), oracle_steps says {least}"
            trial.require(taken == least, "oracle", complaint)


def teacher(trial: Trial) -> None:
    """Reflections along the expert's way and along random play."""
    spec, advises = trial.spec, False
    for task, player in ((task, player) for task in trial.tasks for player in (trial.expert, trial.at_random)):
        env = trial.make()
        now: Situation | None = play.begin(spec, env, task)
        while now is not None:
            text = spec.teacher(now)
            line = isinstance(text, str) and text.strip() and "\n" not in text
            if not trial.require(line, "line", f"the teacher says {text!r}; it should be one line of text"):
                return
            advised = _advised(text, now.actions)
            advises = advises or advised is not None
            complaint = (
                f"the last action that the teacher names in {text!r} is none of the good ones; let it end with the "
                f"expert's, {now.expert_action!r}"
            )
            trial.require(advised is None or advised in spec.good(env), "advice", complaint)
            step = Step(None, now.observation, 0.0, False, False, {"actions": now.actions})
            now = play.act(spec, env, now, player(env, step))
        env.close()
    complaint = "the teacher never names a legal action, so nobody can follow it; write it as in `actions`"
    trial.require(advises, "silent", complaint)


def _advised(text: str, actions: Sequence[str]) -> int | None:
    """Index of the legal action that a text names last, in whole words; of several in one place, the longest."""
    places = []
    for index, action in enumerate(actions):
        found = [match.start() for match in re.finditer(rf"(?<!\w){re.escape(action)}(?!\w)", text)]
        places += [(found[-1], len(action), index)] if found else []
    return max(places)[2] if places else None


def milestones(trial: Trial) -> None:
    if trial.spec.milestones:
        for milestone in (True, False):
            trial.spec.make(horizon=trial.spec.horizon, milestone=milestone).close()


def drawing(trial: Trial) -> None:
    found = trial.spec.load_draw()
    complaint = f"draw={trial.spec.draw!r} is no envs.base.Drawing but {type(found).__name__}"
    if found is None or not trial.require(isinstance(found, Drawing), "drawing", complaint):
        return
    from matplotlib.figure import Figure

    for step in trial.episode(trial.tasks[0], trial.expert):
        found.draw(Figure().add_subplot(), step.observation)
    if found.draw_legend is not None:
        found.draw_legend(Figure().add_subplot())


PLAYED = (gymnasium, random_play, invalid_action, determinism, expert, oracle, teacher, milestones, drawing)
