"""A step of play at a time."""

from small_corridor import BARE, SPEC, changed

from reflect_rl.envs.play import ILLEGAL, act, begin, expert_steps


def test_an_episode_is_told_as_the_teacher_sees_it():
    spec = changed(phase=lambda env: "near" if env.room > 2 else "far")
    env = spec.make(horizon=6)
    now = begin(spec, env, "train-full-2")
    assert (now.task, now.index, now.last_action, now.action_feedback) == ("train-full-2", 0, "", "start")
    assert (now.observation, now.phase) == ("You are in room 2. A pit is left of room 0.", "far")
    assert now.actions == ("go left", "go right", "wait") and now.expert_action == "go right"
    now = act(spec, env, now, 1)
    assert (now.index, now.last_action, now.action_feedback, now.phase) == (1, "go right", "right", "near")
    now = act(spec, env, now, 2)
    assert (now.task, now.index, now.last_action, now.action_feedback) == ("train-full-2", 2, "wait", "wrong")
    now = act(spec, env, now, 1)
    assert act(spec, env, now, 1) is None


def test_feedback_goes_by_the_good_actions_of_the_state_before():
    spec = changed(good_actions=lambda env: (1, 2) if env.room == 2 else (1,))
    env = spec.make(horizon=6)
    now = act(spec, env, begin(spec, env, "train-full-2"), 2)
    assert now.action_feedback == "right"
    now = act(spec, env, now, 1)
    assert act(spec, env, now, 2).action_feedback == "wrong"


def test_an_episode_ends_at_its_horizon():
    env = BARE.make(horizon=2)
    now = act(BARE, env, begin(BARE, env, "train-full-1"), 0)
    assert now.index == 1 and act(BARE, env, now, 0) is None


def test_experts_steps_are_counted_once_for_each_spec():
    assert [expert_steps(SPEC, task) for task in SPEC.tasks("full", "train")] == [4, 3, 2]
    slow = changed(expert_action=lambda env: 1 if env.steps % 2 else 2)
    assert expert_steps(slow, "train-full-2") == 6  # not that of the other one


def test_an_expert_that_does_not_finish_is_cut():
    assert expert_steps(changed(expert_action=lambda env: 2), "train-full-2") == 10 * SPEC.horizon


def test_an_action_that_is_not_legal_is_wrong_and_has_a_name():
    env = SPEC.make(horizon=6)
    first = begin(SPEC, env, "train-full-2")
    now = act(SPEC, env, first, 3)
    assert (now.last_action, now.action_feedback, now.observation) == (ILLEGAL, "wrong", first.observation)
