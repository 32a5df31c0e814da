import numpy as np
import pytest
from scipy.stats import ttest_rel

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.evaluate.stats import (
    holm,
    newcombe,
    p_value,
    paired_difference,
    rate_interval,
    t_interval,
    wilson,
)


def generator(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.filterwarnings("error")
def test_one_seed_says_nothing_of_others():
    mean, low, high = paired_difference(np.array([[1.0, 0.0, 1.0, 1.0]]), np.zeros((1, 4)))
    assert mean == 0.75
    assert np.isnan([low, high]).all()


def test_the_interval_of_five_seeds_covers_as_often_as_it_says():
    """Seeds whose success varies by 10 points, 100 tasks each: the share of 2,000 experiments whose interval holds 0.6."""
    rng = generator()
    success = rng.normal(0.6, 0.1, size=(2000, 5, 1)).clip(0, 1)
    played = rng.random((2000, 5, 100)) < success
    bounds = np.array([rate_interval(scores)[1:] for scores in played])
    assert 0.93 < ((bounds[:, 0] <= 0.6) & (0.6 <= bounds[:, 1])).mean() < 0.97


def test_students_interval_by_hand():
    mean, low, high = t_interval([0.1, 0.2, 0.3])  # standard deviation 0.1; t of 2 degrees of freedom is 4.303
    assert (mean, low, high) == pytest.approx(
        (0.2, 0.2 - 4.303 * 0.1 / np.sqrt(3), 0.2 + 4.303 * 0.1 / np.sqrt(3)), abs=1e-4
    )


def test_wilson_of_16_of_44_questions():
    assert wilson(16, 44) == pytest.approx((0.238, 0.511), abs=0.001)


def test_wilson_stays_within_0_and_1_at_the_ends():
    low, high = wilson(0, 100)
    assert low == 0 and high == pytest.approx(0.037, abs=0.001)
    low, high = wilson(100, 100)
    assert low == pytest.approx(0.963, abs=0.001) and high == 1


def test_the_interval_of_a_rate_is_over_seeds_where_they_differ_and_over_tasks_where_not():
    seeds = np.array([[1, 1], [1, 0], [0, 0], [1, 0], [1, 1.0]])
    assert rate_interval(seeds) == t_interval([1, 0.5, 0, 0.5, 1])[:1] + (t_interval([1, 0.5, 0, 0.5, 1])[1], 1.0)
    assert rate_interval(np.ones((5, 25))) == (1, *wilson(25, 25))  # not 125 episodes
    assert rate_interval(np.array([[0.5, 0.0, 1.0]])) == (0.5, *wilson(1.5, 3))


def test_newcombes_interval_of_his_own_example():
    """56 of 70 against 48 of 80: Newcombe 1998, table II (a), method 10."""
    a, b = (56 / 70, *wilson(56, 70)), (48 / 80, *wilson(48, 80))
    assert newcombe(a, b) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)


def test_three_failures_of_a_prompted_model_leave_much_open():
    effect, low, high = newcombe(rate_interval(np.ones((5, 3))), rate_interval(np.zeros((1, 3))))
    assert effect == 1 and high == 1
    assert low == pytest.approx(1 - np.hypot(1 - 0.4385, 0.5615), abs=1e-3)


def test_paired_difference_is_between_the_seeds():
    b = generator(5).random((5, 30)) / 2
    difference = np.array([0.1, 0.2, 0.3, 0.2, 0.1])
    assert paired_difference(b + difference[:, None], b) == pytest.approx(t_interval(difference))
    wide = np.array([[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
    assert paired_difference(wide, np.zeros((3, 2)))[1:] == (pytest.approx(-0.7676, abs=1e-3), 1.0)  # cut at 1


def test_paired_difference_without_a_spread_between_seeds_speaks_of_tasks():
    better, worse = np.ones((5, 25)), np.zeros((5, 25))
    assert paired_difference(better, worse) == newcombe((1, *wilson(25, 25)), (0, *wilson(0, 25)))
    assert paired_difference(better, worse)[1] == pytest.approx(0.81, abs=0.01)
    assert paired_difference(better, better)[1:] == pytest.approx((-0.133, 0.133), abs=0.001)


def test_p_is_that_of_the_paired_t_test():
    a, b = generator(1).random((6, 10)), generator(2).random((6, 10))
    expected = ttest_rel(a.mean(1), b.mean(1)).pvalue
    for first, second in ((a, b), (b, a)):
        assert p_value(lambda c, x=first, y=second: paired_difference(x, y, c)) == pytest.approx(expected, abs=1e-6)


def test_p_is_below_a_twentieth_where_the_interval_leaves_out_0():
    equal = np.ones((5, 25))
    assert p_value(lambda c: paired_difference(equal, equal, c)) == 1
    assert p_value(lambda c: paired_difference(equal, equal * 0, c)) < 1e-6
    assert np.isnan(p_value(lambda c: paired_difference(equal[:1], equal[:1] * 0, c)))
    for successes in (4, 6, 8):
        a, b = np.arange(10)[None] < successes, np.arange(10)[None] < 1

        def at(confidence, a=a, b=b):
            return newcombe(rate_interval(a, confidence), rate_interval(b, confidence))

        assert (p_value(at) < 0.05) == (at(0.95)[1] > 0)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]).tolist() == [1, 1]
    np.testing.assert_array_equal(holm([np.nan, 0.02]), [np.nan, 0.02])
    assert holm([]).tolist() == []


def test_errors_name_the_shape_and_the_way_out():
    with pytest.raises(ReflectRLError, match=r"shape \(4,\); give a non-empty \(num_seeds, num_tasks\)"):
        rate_interval(np.zeros(4))
    with pytest.raises(ReflectRLError, match=r"shape \(0, 3\)"):
        rate_interval(np.zeros((0, 3)))
    with pytest.raises(ReflectRLError, match="1 of 4 scores are NaN"):
        rate_interval([[1, 0], [np.nan, 1]])
    with pytest.raises(ReflectRLError, match=r"shapes \(2, 3\) and \(3, 3\)"):
        paired_difference(np.zeros((2, 3)), np.zeros((3, 3)))
    with pytest.raises(ReflectRLError, match="5 successes of 4 episodes"):
        wilson(5, 4)
