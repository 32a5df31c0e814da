"""A step of play at a time, without a model: what data are made of and probes are put to."""

from collections.abc import Sequence
from functools import cache

import gymnasium as gym

from reflect_rl.envs.base import EnvSpec, Situation

ILLEGAL = "an action that is not legal"  # as the last action stands in prompts where it was none of the legal ones


def begin(spec: EnvSpec, env: gym.Env, task: str) -> Situation:
    """Start the episode of a task."""
    observation, info = env.reset(options={"task": task})
    return _situation(spec, env, task, 0, observation, info["actions"], "", "start")


def act(spec: EnvSpec, env: gym.Env, now: Situation, action: int) -> Situation | None:
    """Take an action, given by its index; the next situation, None at the end of the episode.

    The action is `right` where it was among the good ones (`EnvSpec.good`), else `wrong`, as one beyond the legal ones is.
    """
    feedback = "right" if action in spec.good(env) else "wrong"
    taken = now.actions[action] if action < len(now.actions) else ILLEGAL
    observation, _, terminated, truncated, info = env.step(action)
    if terminated or truncated:
        return None
    return _situation(spec, env, now.task, now.index + 1, observation, info["actions"], taken, feedback)


@cache
def expert_steps(spec: EnvSpec, task: str) -> int:
    """Length in steps of the expert's own episode; an expert that does not finish is cut at ten times the horizon."""
    env, steps = spec.make(horizon=10 * spec.horizon), 0
    now: Situation | None = begin(spec, env, task)
    while now is not None:
        now, steps = act(spec, env, now, now.actions.index(now.expert_action)), steps + 1
    env.close()
    return steps


def _situation(spec, env, task, index, observation, actions, last_action, feedback) -> Situation:
    expert = actions[spec.expert_action(env)]
    return Situation(task, index, observation, last_action, feedback, spec.phase_of(env), tuple(actions), expert)


def advised_action(text: str, actions: Sequence[str]) -> int | None:
    """Index of the legal action that a text names last, in whole words and numbers, or None where it names none.

    Of several that end at the same place ("door" and "open door") it is the longest.
    """
    places = [(last_mention(text, action), len(action)) for action in actions]
    best = max(range(len(actions)), key=places.__getitem__)
    return best if places[best][0] >= 0 else None


def last_mention(text: str, action: str) -> int:
    """Where the last mention of an action, in whole words and numbers, ends in a text; -1 where there is none."""
    place = text.rfind(action)
    while place >= 0:
        end = place + len(action)
        if not (text[place - 1 : place].isalnum() or text[end : end + 1].isalnum()):
            return end
        place = text.rfind(action, 0, end - 1)
    return -1
