import numpy as np

from reflect_rl.train import advantages


def test_return_to_go_sums_to_the_end_of_the_episode():
    np.testing.assert_allclose(advantages.return_to_go(np.array([-0.05, 1.0, -0.05, 1.0])), [1.9, 1.95, 0.95, 1.0])
    np.testing.assert_array_equal(advantages.return_to_go(np.array([3.0])), [3.0])


def test_step_means_average_over_the_same_place_in_the_episode():
    # episodes of 3, 1 and 2 steps
    returns = np.array([1.0, 2.0, 3.0, 4.0, 7.0, 10.0])
    steps = np.array([0, 1, 2, 0, 0, 1])
    np.testing.assert_array_equal(advantages.step_means(returns, steps), [4.0, 6.0, 3.0, 4.0, 4.0, 6.0])


def test_step_means_survive_a_place_that_no_episode_has():
    np.testing.assert_array_equal(advantages.step_means(np.array([1.0, 3.0, 5.0]), np.array([0, 0, 2])), [2, 2, 5])
