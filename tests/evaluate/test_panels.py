import gzip

import numpy as np
import pandas as pd
import pytest

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.identity import stage_dir
from reflect_rl.envs import settings
from reflect_rl.envs.registry import get
from reflect_rl.evaluate import panels
from reflect_rl.train.agents import PerturbedAgent, Random, Scripted
from reflect_rl.train.rollout import play

TAXI = get("taxi")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))
    return tmp_path


def load(variant, seed=0, overrides="evaluation.repeats=2"):
    return settings.load("smoke", "taxi", variant, seed, overrides)


def rngs(count, seed=0):
    return [np.random.default_rng([seed, i]) for i in range(count)]


AGENTS = {
    "random": Random(),
    "oracle": Scripted(TAXI, "oracle"),
    "perturbed": PerturbedAgent(TAXI, Scripted(TAXI, "oracle"), 0.3),
}


@pytest.mark.parametrize("agent", AGENTS.values(), ids=AGENTS)
def test_cut_equals_play_with_the_shorter_horizon(agent):
    tasks = TAXI.panel("full", "validation")
    long = play(TAXI, agent, tasks, rngs(60), 20)
    ends = set()
    for horizon in (1, 2, 6, 13, 15, 20):
        short = play(TAXI, agent, tasks, rngs(60), horizon)
        for whole, other in zip(long, short, strict=True):
            found = panels.cut(whole, horizon)
            assert found == (other.success, pytest.approx(other.total_reward), len(other), other.ended)
            ends.add(found[3])
    assert len(ends) > 1


def test_cut_at_the_very_step_of_success_keeps_it():
    task = TAXI.panel("full", "train")[0]
    length = TAXI.oracle_steps(task)
    (episode,) = play(TAXI, Scripted(TAXI, "oracle"), [task], rngs(1), 50)
    assert panels.cut(episode, length)[0] is True and panels.cut(episode, length)[3] == "success"
    assert panels.cut(episode, length - 1)[0] is False
    assert panels.cut(episode, length - 1)[2:] == (length - 1, "horizon")


def test_frames_tell_an_episode_and_its_end():
    (episode,) = play(TAXI, Scripted(TAXI, "oracle"), [TAXI.panel("full", "train")[0]], rngs(1), 50)
    found = panels.frames(episode)
    assert len(found) == len(episode) + 1
    assert found[-1] == {"observation": episode.last_observation, "reflection": "", "action": "", "reward": 0.0}
    assert [f["action"] for f in found if f["action"] in ("pick up", "drop off")] == ["pick up", "drop off"]


def test_rows_follow_the_contract(home):
    rows = panels.evaluate(load("random"))
    assert list(rows) == panels.EPISODE_COLUMNS
    assert set(rows.ended) <= {"success", "danger", "horizon"}
    assert ((rows.ended == "success") == (rows.success == 1)).all()
    assert set(rows.success) <= {0, 1}
    assert set(rows.split) == {"test"} and set(rows.decoding) == {"sampled"} and set(rows.horizon) == {15, 20}
    assert rows.model.isna().all()
    assert (rows.steps <= rows.horizon).all() and (rows.steps >= 1).all()
    for setting in TAXI.settings:
        own = rows[rows.setting == setting]
        assert set(own.task) == set(TAXI.panel(setting, "test"))
        assert (own.groupby(["task", "horizon"]).repeat.apply(list).map(sorted).map(tuple) == (0, 1)).all()
        assert len(own) == len(TAXI.panel(setting, "test")) * 2 * 2


def test_repeats_and_seeds_play_different_episodes(home):
    rows = panels.evaluate(load("random"))
    full = rows[(rows.setting == "full") & (rows.horizon == 20)]
    first, second = (full[full.repeat == r][["steps", "return"]].to_numpy() for r in (0, 1))
    assert not np.array_equal(first, second)
    other = panels.evaluate(load("random", seed=1))
    other = other[(other.setting == "full") & (other.horizon == 20) & (other.repeat == 0)]
    assert not np.array_equal(first, other[["steps", "return"]].to_numpy())


def test_oracle_reaches_the_ceiling_and_no_more(home):
    rows = panels.evaluate(load("oracle"))
    assert set(rows.decoding) == {"greedy"} and set(rows.repeat) == {0}
    for setting in ("pickup", "full"):
        for horizon in (15, 20):
            own = rows[(rows.setting == setting) & (rows.horizon == horizon)]
            assert own.success.mean() == pytest.approx(TAXI.ceiling(setting, "test", horizon))
    full = rows[(rows.setting == "full") & (rows.horizon == 20)].set_index("task")
    assert full.steps.to_dict() == {task: TAXI.oracle_steps(task) for task in TAXI.panel("full", "test")}
    assert full["return"].to_numpy() == pytest.approx(2 - 0.05 * (full.steps.to_numpy() - 2))


def test_two_homes_give_the_same_bytes(tmp_path, monkeypatch):
    found = []
    for name in ("a", "b"):
        monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path / name))
        run = load("random")
        panels.evaluate(run)
        found.append((stage_dir(run, "evaluation") / "episodes.csv.gz").read_bytes())
    assert found[0] == found[1]
    header = gzip.decompress(found[0]).splitlines()[0].decode().split(",")
    assert set(panels.EPISODE_COLUMNS) - set(header) == {"regime", "reflections", "target", "tells"}


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        ("random", (None, None, None)),
        ("prompted_reflection", (None, None, None)),
        ("sft_only", (50, "executed", None)),
        ("reflect_sft", (50, "executed", "hint")),
    ],
)
def test_the_columns_of_a_regime_say_what_a_variant_learns_from(write, variant, said):
    given = "{data.reflections: 50, data.target: executed, teacher.tells: hint}"
    write(f"envs: [taxi]\nseeds: [0]\nvariants: [reflect_rl]\ntaxi: {{regimes: {{few: {{settings: {given}}}}}}}\n")
    columns = panels._regime(settings.load("mine", "taxi", variant))
    assert columns == dict(zip(("regime", "reflections", "target", "tells"), ("few", *said), strict=True))


def test_regimes_with_equal_settings_share_an_evaluation_and_keep_their_names(write, home, monkeypatch):
    write("envs: [taxi]\nseeds: [0]\nvariants: [reflect_rl]\ntaxi: {regimes: {one: {}, two: {}}}\n")
    one = panels.evaluate(settings.load("mine", "taxi", "oracle", regime="one"))
    monkeypatch.setattr(panels, "play", None)
    two = panels.evaluate(settings.load("mine", "taxi", "oracle", regime="two"))
    assert set(one.regime) == {"one"} and set(two.regime) == {"two"}
    pd.testing.assert_frame_equal(one.drop(columns="regime"), two.drop(columns="regime"))


def test_evaluation_is_made_once_and_then_read(home, monkeypatch):
    first = panels.evaluate(load("oracle"))
    monkeypatch.setattr(panels, "play", None)
    pd.testing.assert_frame_equal(panels.evaluate(load("oracle")), first)


def test_evaluation_of_other_settings_gets_a_folder_of_its_own(home):
    test = panels.evaluate(load("oracle"))
    validation = panels.evaluate(load("oracle", overrides="evaluation.split=validation"))
    assert set(validation.task).isdisjoint(test.task)
    assert {task.split("-")[0] for task in validation.task} == {"pickup", "full"}
    assert validation.task.nunique() == 3 * 50


def test_damaged_episodes_are_named_and_what_is_missing_is_made_anew(home):
    panels.evaluate(load("oracle"))
    path = stage_dir(load("oracle"), "evaluation") / "episodes.csv.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    with pytest.raises(ReflectRLError, match="episodes.csv.gz cannot be read .* delete the run folder"):
        panels.evaluate(load("oracle"))
    for lost in (path, path.with_name("prompts.csv")):
        lost.unlink()
        panels.evaluate(load("oracle"))
        assert path.read_bytes() == whole and lost.exists()


def test_parts_of_an_evaluation_are_in_order_and_independent(home, monkeypatch):
    whole = panels.evaluate(load("random"))
    keys = whole[["setting", "horizon", "repeat"]].drop_duplicates().values.tolist()
    assert keys == [[s, h, r] for s in TAXI.settings for h in (15, 20) for r in (0, 1)]
    monkeypatch.setattr(panels, "AT_A_TIME", 7)
    monkeypatch.setenv("REFLECT_RL_HOME", str(home / "other"))
    pd.testing.assert_frame_equal(panels.evaluate(load("random")), whole)


def test_prompts_of_an_evaluation_are_counted(home):
    def counts(run):
        panels.evaluate(run)
        return pd.read_csv(stage_dir(run, "evaluation") / "prompts.csv")

    assert list(counts(load("oracle"))) == panels.PROMPT_COUNTS and counts(load("oracle")).empty  # it reads none
    small = "data.trajectories=20 data.negatives=10 data.sft_examples=64 policy.steps=2 evaluation.repeats=1"
    (row,) = counts(load("sft_only", overrides=small)).to_dict("records")
    assert row["limit"] == 95 and row["shortened"] == 0 and 0 < row["longest"] <= 95
    assert 100 <= row["prompts"] < 4000  # those of training are not among them
    (row,) = counts(load("sft_only", overrides=f"{small} model.context=28")).to_dict("records")
    assert row["shortened"] == row["prompts"] > 0 and row["longest"] > row["limit"] == 27
