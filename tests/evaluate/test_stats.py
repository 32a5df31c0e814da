import numpy as np
import pytest
from scipy.stats import t, ttest_rel

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.evaluate.stats import (
    holm,
    mean_squares,
    newcombe,
    p_value,
    paired_difference,
    rate_interval,
    seeds_needed,
    t_interval,
    variance_of_mean,
    wilson,
)


def generator(seed=0):
    return np.random.default_rng(seed)


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


# two seeds x three tasks; seeds' means 2/3 and 1/6, tasks' 3/4, 1/2 and 0; mean 5/12
CELLS = np.array([[1.0, 1.0, 0.0], [0.5, 0.0, 0.0]])


def test_mean_squares_by_hand():
    seeds, tasks, rest = mean_squares(CELLS)
    assert seeds == pytest.approx(3 * 2 * 0.25**2)
    assert tasks == pytest.approx(2 * ((1 / 3) ** 2 + (1 / 12) ** 2 + (5 / 12) ** 2) / 2)
    assert rest == pytest.approx(2 * (0 + 0.25**2 + 0.25**2) / 2)
    stacked = np.stack([CELLS, CELLS.T[:2, ::-1].repeat(2, axis=1)[:, :3]])
    assert [part[0] for part in mean_squares(stacked)] == pytest.approx([seeds, tasks, rest])


def test_the_variance_of_the_mean_by_hand():
    squares = mean_squares(CELLS)
    variance, df = variance_of_mean(squares, 2, 3)
    seeds, tasks, rest = squares
    assert variance == pytest.approx((seeds + tasks - rest) / 6)
    assert df == pytest.approx((seeds + tasks - rest) ** 2 / (seeds**2 / 1 + tasks**2 / 2 + rest**2 / 2))
    assert variance_of_mean((0.1, 0.8, 0.4), 5, 20)[0] == pytest.approx(0.8 / 100)  # no component is below 0
    assert variance_of_mean((0.1, 0.1, 0.1), 5, 20)[1] == 4  # Satterthwaite's would be fewer


def test_the_variance_of_the_mean_is_that_of_the_means_drawn():
    """Of 4,000 additive layouts with standard deviations 0.3 (4 seeds), 0.5 (12 tasks) and 0.4 (cells)."""
    rng = generator()
    cells = 0.3 * rng.standard_normal((4000, 4, 1)) + 0.5 * rng.standard_normal((4000, 1, 12))
    cells += 0.4 * rng.standard_normal((4000, 4, 12))
    true = 0.3**2 / 4 + 0.5**2 / 12 + 0.4**2 / 48
    assert variance_of_mean(mean_squares(cells), 4, 12)[0].mean() == pytest.approx(true, rel=0.05)
    assert cells.mean(axis=(1, 2)).var() == pytest.approx(true, rel=0.05)


@pytest.mark.filterwarnings("error")
def test_the_interval_of_one_seed_is_over_tasks():
    a, b = np.array([[1.0, 0.0, 1.0, 1.0]]), np.array([[0.0, 0.0, 0.0, 1.0]])
    assert paired_difference(a, b) == pytest.approx((0.5, 0.5 - 3.182 * np.sqrt(1 / 3 / 4), 1), abs=1e-3)
    assert paired_difference(a.T, b.T) == paired_difference(a, b)  # one task: over seeds
    mean, low, high = rate_interval(a)  # three trials of 3 degrees of freedom
    assert (mean, low, high) == (0.75, *wilson(2.25, 3, df=3))
    assert rate_interval([[0.5]]) == (0.5, *wilson(0.5, 1))


@pytest.mark.filterwarnings("error")
def test_no_interval_has_no_width():
    for same in (np.ones((5, 25)), np.zeros((5, 25)), np.full((5, 25), 0.3)):
        mean, low, high = rate_interval(same)  # a task is a trial, however often it was played: not 125
        assert (low, high) == wilson(mean * 25, 25) and 0 <= low <= mean <= high <= 1 and high - low > 0.1
        assert paired_difference(same, same)[1:] == pytest.approx(newcombe((mean, low, high), (mean, low, high))[1:])
    one = np.ones((5, 25))
    one[0, 0] = 0
    assert 0.02 < np.diff(rate_interval(one)[1:]) < 0.2 and np.diff(paired_difference(one, np.ones((5, 25)))[1:]) > 0.02


def test_seeds_that_differ_and_tasks_that_differ_both_widen_an_interval():
    seeds, tasks = np.linspace(-0.2, 0.2, 5)[:, None], np.tile([-0.4, 0.4], 15)[None]
    noise = 0.1 * generator(1).standard_normal((5, 30))
    widths = [np.diff(rate_interval(0.5 + noise + effect)[1:])[0] for effect in (0, tasks, seeds, seeds + tasks)]
    assert 2 * widths[0] < widths[1] < widths[3] and 2 * widths[0] < widths[2] < widths[3]


def test_newcombes_interval_of_his_own_example():
    """56 of 70 against 48 of 80: Newcombe 1998, table II (a), method 10."""
    a, b = (56 / 70, *wilson(56, 70)), (48 / 80, *wilson(48, 80))
    assert newcombe(a, b) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)


def test_a_model_that_is_not_trained_is_compared_with_every_seed():
    a, b = generator(3).random((5, 30)), generator(4).random((1, 30))
    assert paired_difference(a, b) == paired_difference(a, np.repeat(b, 5, axis=0))
    effect, low, high = paired_difference(np.ones((5, 3)), np.zeros((1, 3)))  # three failures leave much open
    assert effect == 1 and high == 1
    assert low == pytest.approx(1 - np.hypot(1 - 0.4385, 0.5615), abs=1e-3)


def test_paired_difference_counts_what_arms_do_not_share():
    """Tasks and seeds that are as hard for both arms cancel out."""
    b = generator(5).random((5, 1)) * 0.3 + generator(6).random((1, 30)) * 0.3
    noise = 0.1 * generator(7).standard_normal((5, 30))
    assert paired_difference(b + 0.2 + noise, b) == pytest.approx(paired_difference(0.2 + noise, np.zeros((5, 30))))
    wide = np.array([[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
    assert paired_difference(wide, np.zeros((3, 2)))[1:] == (pytest.approx(-0.7676, abs=1e-3), 1.0)  # cut at 1


def test_paired_difference_that_is_the_same_everywhere_speaks_of_tasks():
    better, worse = np.ones((5, 25)), np.zeros((5, 25))
    assert paired_difference(better, worse) == newcombe((1, *wilson(25, 25)), (0, *wilson(0, 25)))
    assert paired_difference(better, worse)[1] == pytest.approx(0.81, abs=0.01)
    assert paired_difference(better, better)[1:] == pytest.approx((-0.133, 0.133), abs=0.001)


def test_p_is_that_of_the_interval():
    a, b = generator(1).random((6, 10)), generator(2).random((6, 10))
    variance, df = variance_of_mean(mean_squares(a - b), 6, 10)
    expected = 2 * t.sf(abs((a - b).mean()) / np.sqrt(variance), df)
    assert p_value(a, b) == pytest.approx(p_value(b, a)) == pytest.approx(expected, abs=1e-9)
    single = a[:1], b[:1]  # one seed: the paired t-test over tasks
    assert p_value(*single) == pytest.approx(ttest_rel(a[0], b[0]).pvalue, abs=1e-9)


def test_p_is_below_a_twentieth_where_the_interval_leaves_out_0():
    equal = np.ones((5, 25))
    assert p_value(equal, equal) == 1
    assert p_value(equal, equal * 0) < 1e-6
    for shift in np.linspace(-0.2, 0.2, 21):
        a, b = shift + generator(8).random((5, 20)), generator(9).random((5, 20))
        _, low, high = paired_difference(a, b)
        assert (p_value(a, b) < 0.05) == (low > 0 or high < 0)


def arms(effect, seeds, tasks=60, experiments=None, seed=0):
    """Success of two arms whose difference varies by 0.1 between seeds, by 0.1 between tasks and by 0.2 in a cell."""
    rng, shape = generator(seed), () if experiments is None else (experiments,)
    difference = 0.1 * rng.standard_normal((*shape, seeds, 1)) + 0.1 * rng.standard_normal((*shape, 1, tasks))
    b = np.full((*shape, seeds, tasks), 0.5)
    return b + effect + difference + 0.2 * rng.standard_normal(b.shape), b


def decides(a, b, margin=0.05):
    _, low, high = paired_difference(a, b)
    return low > 0 or high < 0 or (-margin < low and high < margin)


@pytest.mark.parametrize(("effect", "tasks"), [(0.1, 60), (0.06, 200), (0.0, 200)])
def test_with_the_seeds_needed_four_of_five_experiments_decide(effect, tasks):
    a, b = arms(effect, 400, tasks)  # enough to know the spreads
    a = a - a.mean() + 0.5 + effect
    needed = seeds_needed(a, b)
    assert 5 < needed < 80
    for seeds, least, most in ((needed, 0.74, 0.89), (needed // 2, 0.05, 0.72)):
        found = arms(effect, seeds, tasks, experiments=400, seed=1)
        assert least < np.mean([decides(*each) for each in zip(*found, strict=True)]) < most


def test_more_seeds_are_needed_for_a_smaller_effect_and_among_more_comparisons():
    needed = [seeds_needed(*arms(effect, 30)) for effect in (0.3, 0.15, 0.1)]
    assert needed == sorted(needed) and needed[0] < needed[-1]
    assert seeds_needed(*arms(0.1, 30), comparisons=20) > needed[-1]
    a, b = arms(0.1, 30)
    assert seeds_needed(a, b) == seeds_needed(b, a)


def test_no_number_of_seeds_makes_up_for_few_tasks_but_more_tasks_do():
    task, noise = np.tile([-0.4, 0.4], 5), 0.01 * generator(0).standard_normal((10, 10))
    a, b = 0.1 + task + noise, np.zeros((10, 10))
    assert seeds_needed(a, b) is None
    assert 100 < seeds_needed(a.T, b.T) < 300
    assert seeds_needed(a[:1], b[:1]) is None  # nothing is known of other seeds


def test_where_nothing_varies_the_number_of_seeds_does_not_count():
    assert seeds_needed(np.ones((5, 10)), np.zeros((5, 10))) == 2
    assert seeds_needed(np.ones((5, 10)), np.ones((5, 10))) is None  # 0 give or take 28 points
    assert seeds_needed(np.ones((5, 100)), np.ones((5, 100)), margin=0.05) == 2


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
