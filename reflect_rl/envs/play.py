"""A step of play at a time, without a model: what data are made of and probes are put to."""

from functools import cache

import gymnasium as gym

from reflect_rl.envs.base import EnvSpec, Situation


def begin(spec: EnvSpec, env: gym.Env, task: str) -> Situation:
    """Start the episode of a task."""
    observation, info = env.reset(options={"task": task})
    return _situation(spec, env, task, 0, observation, info["actions"], "", "start")


def act(spec: EnvSpec, env: gym.Env, now: Situation, action: int) -> Situation | None:
    """Take a legal action, given by its index; the next situation, None at the end of the episode.

    The action is `right` where it was among the good ones (`EnvSpec.good`), else `wrong`.
    """
    feedback = "right" if action in spec.good(env) else "wrong"
    observation, _, terminated, truncated, info = env.step(action)
    if terminated or truncated:
        return None
    return _situation(spec, env, now.task, now.index + 1, observation, info["actions"], now.actions[action], feedback)


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
