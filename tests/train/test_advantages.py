import numpy as np
import pytest

from reflect_rl.train import advantages

# episodes of 3, 1 and 2 steps
RETURNS, STEPS = np.array([1.0, 2.0, 3.0, 4.0, 7.0, 10.0]), np.array([0, 1, 2, 0, 0, 1])


def test_return_to_go_sums_to_the_end_of_the_episode():
    np.testing.assert_allclose(advantages.return_to_go(np.array([-0.05, 1.0, -0.05, 1.0])), [1.9, 1.95, 0.95, 1.0])
    np.testing.assert_array_equal(advantages.return_to_go(np.array([3.0])), [3.0])


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


def test_policy_gradient_with_the_baseline_has_the_expectation_of_that_without():
    """All pairs of one-step episodes of a policy of probability p, with returns 1 and 0 for its two actions."""
    p = 0.3
    expected = {"none": 0.0, "mean": 0.0}
    for a in (0, 1):
        for b in (0, 1):
            returns, weight = np.array([1.0 - a, 1.0 - b]), (1 - p if a else p) * (1 - p if b else p)
            score = np.array([1 / p if x == 0 else -1 / (1 - p) for x in (a, b)])  # d log pi / dp
            for baseline in expected:
                advantage = advantages.advantage(returns, np.array([0, 0]), baseline)
                expected[baseline] += weight * (score * advantage).mean()
    assert expected["mean"] == pytest.approx(expected["none"]) == pytest.approx(1.0)


def test_advantage_by_hand():
    values = np.array([1.0, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(advantages.advantage(RETURNS, STEPS, "none"), RETURNS)
    np.testing.assert_allclose(advantages.advantage(RETURNS, STEPS, "mean"), [-4.5, -8, -4, 0, 4.5, 8])
    np.testing.assert_array_equal(advantages.advantage(RETURNS, STEPS, "critic", values), [0, 1, 2, 2, 5, 8])
