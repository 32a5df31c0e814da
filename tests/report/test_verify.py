import pandas as pd
import pytest

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.report import verify


def main(**changes):
    """A main table: oracle, random play and an arm, at one setting and horizon."""
    rows = [("oracle", 0.9, 0.9, 0.9), ("random", 0.12, 0.1, 0.2), ("reflect_rl", 0.8, 0.7, 0.9)]
    table = pd.DataFrame(rows, columns=["variant", "success", "ci_low", "ci_high"])
    table = table.assign(
        env="taxi", regime="", setting="full", split="test", horizon=20, decoding="greedy", ceiling=0.9
    )
    for column, (variant, value) in changes.items():
        table.loc[table.variant == variant, column] = value
    return table


def test_a_sound_table_is_described_with_the_success_of_random_play():
    assert verify.check_main(main()) == [
        "3 of 3 rates have a ceiling, and none exceeds it",
        "the oracle reaches the ceiling everywhere",
        "random play finishes 12.0% of the tasks of taxi",
    ]


def test_without_an_oracle_there_is_less_to_check():
    table = main().query("variant == 'reflect_rl'").assign(ceiling=float("nan"))
    assert verify.check_main(table) == ["0 of 1 rates have a ceiling, and none exceeds it"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"success": ("reflect_rl", 0.95), "ci_high": ("reflect_rl", 1.0)},
            "above the ceiling: taxi full 20 greedy reflect_rl",
        ),
        ({"ci_high": ("reflect_rl", 0.75)}, "outside its interval: taxi full 20 greedy reflect_rl 0.8"),
        ({"success": ("oracle", 0.8), "ci_low": ("oracle", 0.8)}, "of the oracle and not at the ceiling: taxi"),
    ],
)
def test_what_cannot_be_is_named(changes, complaint):
    with pytest.raises(ReflectRLError, match=complaint):
        verify.check_main(main(**changes))
