import math

import pytest

from reflect_rl import paper


def test_reported_gives_rates_between_0_and_1_where_they_are_known():
    assert paper.reported("taxi", "full", "reflect_rl") == 0.58
    assert paper.reported("taxi", "full", "sft_rl") == 0.0
    assert paper.reported("autoexplore", "depth1", "reflect_rl_no_negatives") == 0.33
    assert all(0 <= number.rate <= 1 for number in paper.REPORTED)


def test_reported_is_none_where_nothing_is_known():
    assert paper.reported("taxi", "full", "sft_only") is None
    assert paper.reported("taxi", "pickup", "reflect_rl") is None
    assert paper.reported("autoexplore", "depth2", "prompted") is None


def test_taxi_numbers_stand_beside_horizon_20_only_and_others_beside_any():
    assert paper.reported("taxi", "full", "reflect_rl", horizon=20) == 0.58
    assert paper.reported("taxi", "full", "reflect_rl", horizon=15) is None
    assert paper.reported("alfworld", "paper", "reflect_rl", horizon=30) == 0.74


def test_the_source_is_marked_as_secondary():
    assert "secondary source" in paper.REPORTED_SOURCE


def test_seven_claims_compare_known_variants():
    assert [claim.number for claim in paper.CLAIMS] == [1, 2, 3, 4, 5, 6, 7]
    for claim in paper.CLAIMS[:6]:
        assert claim.better == "reflect_rl"
        assert claim.worse in paper.VARIANTS
    assert (paper.CLAIMS[6].better, paper.CLAIMS[6].worse) == (None, None)


def test_every_reported_number_belongs_to_one_known_variant():
    keys = [(number.env, number.setting, number.variant) for number in paper.REPORTED]
    assert len(set(keys)) == len(keys)
    assert {variant for _, _, variant in keys} <= set(paper.VARIANTS)


@pytest.mark.parametrize(
    ("low", "high", "judged"),
    [
        (0.01, 0.2, "reproduced"),
        (-0.2, -0.01, "not reproduced"),
        (-0.1, 0.1, "inconclusive"),
        (0.0, 0.2, "inconclusive"),
        (-0.2, 0.0, "inconclusive"),
        (math.nan, math.nan, "inconclusive"),
    ],
)
def test_verdict_needs_the_whole_interval_on_one_side_of_zero(low, high, judged):
    assert paper.verdict(low, high) == judged
