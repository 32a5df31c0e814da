import numpy as np
import pytest

from reflect_rl.errors import ReflectRLError
from reflect_rl.stats import paired_difference, seed_bootstrap, stratified_bootstrap, wilson


def generator(seed=0):
    return np.random.default_rng(seed)


def bernoulli(num_seeds, num_tasks):
    return (generator(7).random((num_seeds, num_tasks)) < 0.5).astype(float)


def test_stratified_interval_has_the_width_that_the_variance_within_tasks_gives():
    scores = np.tile([[0.0], [0.0], [1.0], [1.0]], (1, 100))  # each task: variance 1/4 over 4 seeds
    mean, low, high = stratified_bootstrap(scores, generator(), resamples=4000)
    standard_error = np.sqrt(0.25 / 4 / 100)
    assert mean == 0.5
    assert high - low == pytest.approx(2 * 1.96 * standard_error, rel=0.06)


def test_seed_interval_is_wider_where_seeds_differ_as_blocks():
    scores = np.tile([[0.0], [0.0], [1.0], [1.0]], (1, 100))
    _, stratified_low, stratified_high = stratified_bootstrap(scores, generator())
    mean, low, high = seed_bootstrap(scores, generator())
    assert mean == 0.5
    assert (low, high) == (0.0, 1.0)
    assert high - low > 5 * (stratified_high - stratified_low)


@pytest.mark.parametrize("bootstrap", [stratified_bootstrap, seed_bootstrap])
def test_equal_generators_give_equal_intervals_and_different_ones_differ(bootstrap):
    scores = generator(3).random((5, 20))
    assert bootstrap(scores, generator(1)) == bootstrap(scores, generator(1))
    assert bootstrap(scores, generator(1)) != bootstrap(scores, generator(2))


@pytest.mark.parametrize("bootstrap", [stratified_bootstrap, seed_bootstrap])
def test_interval_holds_the_mean_and_grows_with_confidence(bootstrap):
    scores = bernoulli(5, 100)
    mean, low, high = bootstrap(scores, generator())
    _, lower, higher = bootstrap(scores, generator(), confidence=0.99)
    assert mean == scores.mean()
    assert lower <= low < mean < high <= higher


def test_stratified_ignores_differences_between_tasks():
    scores = np.array([[0.0, 1.0, 0.5]] * 5)
    assert stratified_bootstrap(scores, generator()) == (0.5, 0.5, 0.5)
    assert seed_bootstrap(scores, generator()) == (0.5, 0.5, 0.5)


@pytest.mark.filterwarnings("error")
def test_one_seed_has_no_spread_within_tasks_and_an_unknown_one_between_seeds():
    scores = np.array([[1.0, 0.0, 1.0, 1.0]])
    assert stratified_bootstrap(scores, generator()) == (0.75, 0.75, 0.75)
    mean, low, high = seed_bootstrap(scores, generator())
    assert mean == 0.75
    assert np.isnan([low, high]).all()


def test_paired_difference_cancels_what_the_seeds_share():
    b = generator(5).random((5, 30)) / 2
    effect, low, high = paired_difference(b + 0.25, b, generator())
    assert (effect, low, high) == pytest.approx((0.25, 0.25, 0.25))


def test_paired_difference_of_three_seeds_spans_the_seeds():
    a = np.array([[0.3, 0.3], [0.2, 0.2], [0.1, 0.1]])
    effect, low, high = paired_difference(a, np.zeros_like(a), generator())
    assert (effect, low, high) == pytest.approx((0.2, 0.1, 0.3))


def test_wilson_of_16_of_44_questions():
    assert wilson(16, 44) == pytest.approx((0.238, 0.511), abs=0.001)


def test_wilson_stays_within_0_and_1_at_the_ends():
    low, high = wilson(0, 100)
    assert low == 0 and high == pytest.approx(0.037, abs=0.001)
    low, high = wilson(100, 100)
    assert low == pytest.approx(0.963, abs=0.001) and high == 1


def test_errors_name_the_shape_and_the_way_out():
    with pytest.raises(ReflectRLError, match=r"shape \(4,\); give a non-empty \(num_seeds, num_tasks\)"):
        stratified_bootstrap(np.zeros(4), generator())
    with pytest.raises(ReflectRLError, match=r"shape \(0, 3\)"):
        seed_bootstrap(np.zeros((0, 3)), generator())
    with pytest.raises(ReflectRLError, match="1 of 4 scores are NaN"):
        seed_bootstrap([[1, 0], [np.nan, 1]], generator())
    with pytest.raises(ReflectRLError, match=r"shapes \(2, 3\) and \(3, 3\)"):
        paired_difference(np.zeros((2, 3)), np.zeros((3, 3)), generator())
    with pytest.raises(ReflectRLError, match="5 successes of 4 episodes"):
        wilson(5, 4)
