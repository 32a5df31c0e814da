import numpy as np
import pytest

from reflect_rl.train import advantages

# episodes of 3, 1 and 2 steps
REWARDS, STEPS = np.array([-1.0, -1.0, 3.0, 4.0, -3.0, 10.0]), np.array([0, 1, 2, 0, 0, 1])
RETURNS = np.array([1.0, 2.0, 3.0, 4.0, 7.0, 10.0])


def test_return_to_go_sums_to_the_end_of_the_episode():
    np.testing.assert_allclose(advantages.return_to_go(REWARDS, STEPS), RETURNS)
    np.testing.assert_allclose(advantages.return_to_go(REWARDS, STEPS, 0.5), [-0.75, 0.5, 3, 4, 2, 10])


def test_gae_by_hand():
    """Values 1, 2, 3 and 4; gamma 0.5, lambda 0.5, so that a step looks 0.25 times at the next one's advantage."""
    rewards, values, steps = np.array([1.0, 0.0, 2.0, 1.0]), np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 1, 2, 0])
    deltas = [1 + 0.5 * 2 - 1, 0 + 0.5 * 3 - 2, 2 - 3, 1 - 4]
    expected = [deltas[0] + 0.25 * (deltas[1] + 0.25 * deltas[2]), deltas[1] + 0.25 * deltas[2], deltas[2], deltas[3]]
    np.testing.assert_allclose(advantages.gae(rewards, values, steps, 0.5, 0.5), expected)


def test_gae_is_the_td_error_at_lambda_0_and_the_return_minus_the_value_at_1():
    rng = np.random.default_rng(0)
    values = rng.normal(size=len(REWARDS))
    following = np.where(np.append(STEPS[1:] == 0, True), 0, np.append(values[1:], 0))
    td = REWARDS + 0.9 * following - values
    np.testing.assert_allclose(advantages.gae(REWARDS, values, STEPS, 0.9, 0.0), td)
    returns = advantages.return_to_go(REWARDS, STEPS, 0.9)
    np.testing.assert_allclose(advantages.gae(REWARDS, values, STEPS, 0.9, 1.0), returns - values)


def test_baseline_is_the_mean_of_the_other_episodes_at_the_same_place():
    """The third step is alone at its place: the mean over all steps of the others, (4 + 7 + 10) / 3."""
    found = advantages.leave_one_out_means(RETURNS, STEPS)
    np.testing.assert_allclose(found, [(4 + 7) / 2, 10, 7, (1 + 7) / 2, (1 + 4) / 2, 2])


def test_baseline_does_not_move_with_the_returns_of_its_own_episode():
    changed = RETURNS.copy()
    changed[:3] += 100
    found = advantages.leave_one_out_means(changed, STEPS)
    np.testing.assert_allclose(found[:3], advantages.leave_one_out_means(RETURNS, STEPS)[:3])
    assert (found[3:] > advantages.leave_one_out_means(RETURNS, STEPS)[3:]).all()


def test_an_only_episode_has_no_baseline():
    np.testing.assert_array_equal(advantages.leave_one_out_means(np.array([5.0, 3.0]), np.array([0, 1])), [0, 0])


def test_surplus_is_what_a_return_has_above_the_value():
    np.testing.assert_array_equal(
        advantages.surplus(np.array([1.0, 0.2, -1.0]), np.array([0.25, 0.5, -2.0])), [0.75, 0, 1]
    )


def test_groups_by_hand():
    """Starts 0 (returns 1, 2 and 6), 1 (5 and 5) and 2 (7, alone)."""
    totals, starts = np.array([1.0, 5.0, 2.0, 6.0, 5.0, 7.0]), np.array([0, 1, 0, 0, 1, 2])
    np.testing.assert_allclose(advantages.rloo(totals, starts), [1 - 4, 0, 2 - 3.5, 6 - 1.5, 0, 0])
    spread = np.sqrt(14 / 3)  # of 1, 2 and 6 around 3
    np.testing.assert_allclose(advantages.grpo(totals, starts), [-2 / spread, 0, -1 / spread, 3 / spread, 0, 0])


def test_group_advantages_are_those_of_the_whole_episode_in_all_its_steps():
    """Returns of the three episodes are 1, 4 and 7, whatever the discount; the first two have one start."""
    given = REWARDS, STEPS, np.array([0, 0, 1]), None, 0.5
    np.testing.assert_allclose(advantages.advantage("rloo", *given), [-3] * 3 + [3] + [0] * 2)
    np.testing.assert_allclose(advantages.advantage("grpo", *given), [-1] * 3 + [1] + [0] * 2)


def test_normalised_has_mean_0_and_deviation_1_and_equal_ones_are_0():
    found = advantages.normalised(RETURNS, advantages.spread(RETURNS, 0.0))
    assert found.mean() == pytest.approx(0) and found.std() == pytest.approx(1)
    np.testing.assert_array_equal(advantages.normalised(np.full(4, 2.5), 0.0), np.zeros(4))


@pytest.mark.parametrize("estimator", ["rloo", "grpo", "gigpo"])
def test_episodes_of_equal_return_learn_nothing_from_other_groups(estimator):
    """Two failures from one start, beside a short success and a long failure from another."""
    steps = np.concatenate([np.arange(n) for n in (1, 1, 2, 10)])
    rewards = np.array([-1.0, -1.0, 0.0, 1.0, *[0.0] * 9, -1.0])
    found = advantages.advantage(estimator, rewards, steps, np.array([0, 0, 1, 1]), states=np.arange(14))
    found = advantages.normalised(found, advantages.spread(found, 0.0), estimator)
    np.testing.assert_array_equal(found[:2], [0, 0])
    assert (found[2:4] > 0).all() and (found[4:] < 0).all()
    assert advantages.normalised(RETURNS, 1.0, "return").mean() == pytest.approx(0)


def test_small_differences_after_large_ones_are_not_blown_up():
    former = advantages.spread(100 * RETURNS, 0.0)
    assert former == pytest.approx(100 * RETURNS.std())
    now = advantages.spread(RETURNS, former)
    assert now == pytest.approx(0.99 * former)
    assert advantages.normalised(RETURNS, now).std() == pytest.approx(1 / 99)


MEETINGS = [  # the start of an episode, and the state and reward of each step; the first episode comes back to state 1
    (0, [(0, 0.0), (1, 2.0), (2, 0.0), (1, -1.0)]),
    (0, [(0, 1.0), (1, 0.0), (3, 8.0)]),
    (0, [(1, 1.0), (3, 0.0)]),
    (1, [(1, -3.0), (0, 5.0)]),
    (1, [(0, 0.5), (1, 2.0)]),
    (1, [(0, 4.0)]),
]


def rewards_of(steps):
    return [reward for _, reward in steps]


def discounted(rewards):
    return sum(reward * 0.5**i for i, reward in enumerate(rewards))


def above_mean(value, group):
    return value - sum(group) / len(group)


def compared(worth_of_episode, worth_of_step):
    """Of each step its episode among those of its start, and itself among the steps there in the same state.

    Arguments say what the rewards of an episode, or those from a step to its end, are worth.
    """
    found = []
    for start, steps in MEETINGS:
        group = [other for begun, other in MEETINGS if begun == start]
        whole = above_mean(worth_of_episode(rewards_of(steps)), [worth_of_episode(rewards_of(of)) for of in group])
        for i, (state, _) in enumerate(steps):
            there = [of[j:] for of in group for j, (met, _) in enumerate(of) if met == state]
            part = above_mean(worth_of_step(rewards_of(steps[i:])), [worth_of_step(rewards_of(of)) for of in there])
            found.append(whole + part)
    return found


def test_gigpo_by_hand():
    """Totals of whole episodes are not discounted, returns-to-go of steps are, and a state is one of its start."""
    steps = np.concatenate([np.arange(len(of)) for _, of in MEETINGS])
    states, rewards = np.array([step for _, of in MEETINGS for step in of]).T
    starts = np.array([start for start, _ in MEETINGS])
    found = advantages.advantage("gigpo", rewards, steps, starts, discount=0.5, states=states.astype(int))
    np.testing.assert_allclose(found, compared(sum, discounted))
    for other in ((sum, lambda rewards: rewards[0]), (sum, sum), (discounted, discounted)):
        assert not np.allclose(found, compared(*other))
    meeting = np.flatnonzero(
        states[:9] == 1
    )  # of the first start, at whose steps rewards and returns order differently
    returns = advantages.return_to_go(rewards, steps, 0.5)
    assert rewards[meeting].argsort().tolist() != returns[meeting].argsort().tolist()


def test_gigpo_compares_whole_episodes_alone_where_no_two_meet():
    """Returns of 1, 4 and 7: RLOO's advantage times 2/3, since its mean holds the episode itself."""
    given = REWARDS, STEPS, np.array([0, 0, 0])
    found = advantages.advantage("gigpo", *given, states=np.arange(6))
    np.testing.assert_allclose(found, [-3] * 3 + [0] + [3] * 2)
    np.testing.assert_allclose(found, advantages.advantage("rloo", *given) * 2 / 3)


@pytest.mark.parametrize("estimator", ["leave_one_out", "rloo"])
def test_policy_gradient_with_a_baseline_of_others_has_the_expectation_of_that_without(estimator):
    """All pairs of one-step episodes of a policy of probability p, with returns 1 and 0 for its two actions."""
    p = 0.3
    expected = {"return": 0.0, estimator: 0.0}
    for a in (0, 1):
        for b in (0, 1):
            rewards, weight = np.array([1.0 - a, 1.0 - b]), (1 - p if a else p) * (1 - p if b else p)
            score = np.array([1 / p if x == 0 else -1 / (1 - p) for x in (a, b)])  # d log pi / dp
            for name in expected:
                found = advantages.advantage(name, rewards, np.array([0, 0]), np.array([0, 0]))
                expected[name] += weight * (score * found).mean()
    assert expected[estimator] == pytest.approx(expected["return"]) == pytest.approx(1.0)


def test_advantage_by_hand():
    values, starts = np.array([1.0, 1, 1, 2, 2, 2]), np.array([0, 1, 2])
    given = REWARDS, STEPS, starts, values
    np.testing.assert_array_equal(advantages.advantage("return", *given), RETURNS)
    np.testing.assert_allclose(advantages.advantage("leave_one_out", *given), [-4.5, -8, -4, 0, 4.5, 8])
    np.testing.assert_array_equal(advantages.advantage("gae", *given), [0, 1, 2, 2, 5, 8])
