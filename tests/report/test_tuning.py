import pandas as pd
import pytest

from reflect_rl.core import paths
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs import settings
from reflect_rl.evaluate import panels
from reflect_rl.report import tuning


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("points", "chosen"),
    [
        (
            [
                ("data.policy_draw=visits rl.learning_rate=0.1", 0.995),
                ("data.policy_draw=balanced rl.learning_rate=1e-2", 0.99),
            ],
            1,
        ),
        ([("rl.learning_rate=0.1", 0.995), ("rl.learning_rate=1e-2", 0.98)], 0),
        ([("data.policy_draw=visits", 0.5), ("data.policy_draw=balanced", 0.505)], 0),
        ([("data.policy_draw=visits", 0.5), ("data.policy_draw=balanced", 0.52)], 1),
    ],
)
def test_a_small_lead_in_tuning_is_none_and_the_smaller_learning_rate_counts(points, chosen):
    rows = [("taxi", "", "reflect_rl", seed, text, value) for seed in (1, 2) for text, value in points]
    table = pd.DataFrame(rows, columns=tuning.COLUMNS[:-1])
    assert tuning.choose(table) == [int(i == chosen) for i in range(2)] * 2


def test_a_point_is_chosen_for_each_value_of_a_setting_that_is_not_tuned():
    points = {f"rl.replay={n} rl.learning_rate={rate}": n + rate for n in (0, 9) for rate in (0.1, 0.3)}
    rows = [("taxi", "", "sft_rl", seed, text, value) for seed in (1, 2) for text, value in points.items()]
    assert tuning.choose(pd.DataFrame(rows, columns=tuning.COLUMNS[:-1])) == [0, 1, 0, 1] * 2


def grid(monkeypatch, *points, variants=("random",), seeds=(100, 101)):
    jobs = [("taxi", "", v, s, p, p.replace(" ", ",")) for v in variants for s in seeds for p in points]
    monkeypatch.setattr(settings, "tuning", lambda name, env="": jobs)


def test_tuning_on_test_tasks_is_refused(monkeypatch):
    grid(monkeypatch, "evaluation.repeats=1")
    monkeypatch.setattr(panels, "evaluate", lambda run: pytest.fail("played before it looked at the split"))
    with pytest.raises(ReflectRLError, match="tuning needs evaluation.split=validation"):
        tuning.collect_tuning("smoke")
    assert not paths.results("smoke").exists()


def test_tuning_chooses_the_highest_mean_over_seeds_on_sampled_full_episodes(monkeypatch):
    points = [f"evaluation.split=validation rl.learning_rate={rate}" for rate in (0.1, 0.2, 0.3)]
    grid(monkeypatch, *points)
    success = {(0.1, 100): 1.0, (0.1, 101): 0.0, (0.2, 100): 0.5, (0.2, 101): 0.75, (0.3, 100): 0.75, (0.3, 101): 0.5}

    def played(run):
        value = success[run.rl.learning_rate, run.seed]
        rows = [
            {"setting": "full", "horizon": 20, "decoding": "sampled", "success": value},
            {"setting": "full", "horizon": 15, "decoding": "sampled", "success": 1 - value},
            {"setting": "full", "horizon": 20, "decoding": "greedy", "success": 1 - value},
            {"setting": "pickup", "horizon": 20, "decoding": "sampled", "success": 1 - value},
        ]
        return pd.DataFrame(rows)

    monkeypatch.setattr(panels, "evaluate", played)
    table = tuning.collect_tuning("smoke")
    assert table.success.tolist() == [1.0, 0.5, 0.75, 0.0, 0.75, 0.5]
    assert table.chosen.tolist() == [0, 1, 0, 0, 1, 0]  # 0.2 and 0.3 are level: the smaller rate
    written = tuning.tuning_results("smoke")
    assert list(written) == ["env", "regime", "variant", "seed", "overrides", "success", "chosen"]
    assert written.chosen.tolist() == table.chosen.tolist()
    other = written.assign(env="alfworld")
    pd.concat([written, other]).to_csv(paths.results("smoke") / "tuning.csv", index=False)
    again = tuning.collect_tuning("smoke", "taxi")  # what the file has of other environments stays
    pd.testing.assert_frame_equal(again, pd.concat([other, written], ignore_index=True))
    pd.testing.assert_frame_equal(tuning.tuning_results("smoke"), again)


def test_committed_tuning_is_found():
    assert set(tuning.tuning_results("study").env) == {"taxi", "alfworld"}
    assert tuning.tuning_results("smoke") is None
