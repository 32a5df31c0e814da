import gzip
import json
import re

import numpy as np
import pandas as pd
import pytest

from reflect_rl import config, evaluate, paths
from reflect_rl.baselines import Oracle, Random, Stumble
from reflect_rl.envs import domain, taxi
from reflect_rl.errors import ReflectRLError
from reflect_rl.rollout import play
from reflect_rl.runs import write_json
from reflect_rl.tables import EPISODE_COLUMNS

TAXI = domain("taxi")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))
    return tmp_path


def load(variant, seed=0, overrides="evaluation.repeats=2"):
    return config.load("smoke", "taxi", variant, seed, overrides)


def rngs(count, seed=0):
    return [np.random.default_rng([seed, i]) for i in range(count)]


def story(episode):
    return [(t.observation, t.decision.action, t.reward) for t in episode.transitions] + [episode.last_observation]


# --- episodes side by side ---


@pytest.mark.parametrize("agent", [Random(), Oracle(), Stumble(Oracle(), 0.3)], ids=["random", "oracle", "stumble"])
def test_cut_equals_play_with_the_shorter_horizon(agent):
    tasks = taxi.tasks("full", "validation")
    long = play(TAXI, agent, tasks, rngs(60), 20)
    ends = set()
    for horizon in (1, 2, 6, 13, 15, 20):
        short = play(TAXI, agent, tasks, rngs(60), horizon)
        for whole, other in zip(long, short, strict=True):
            found = evaluate.cut(whole, horizon)
            assert found == (other.success, pytest.approx(other.total_reward), len(other), other.ended)
            ends.add(found[3])
    assert len(ends) > 1


def test_cut_at_the_very_step_of_success_keeps_it():
    task = taxi.tasks("full", "train")[0]
    length = taxi.shortest(task)
    (episode,) = play(TAXI, Oracle(), [task], rngs(1), 50)
    assert evaluate.cut(episode, length)[0] is True and evaluate.cut(episode, length)[3] == "success"
    assert evaluate.cut(episode, length - 1)[0] is False
    assert evaluate.cut(episode, length - 1)[2:] == (length - 1, "horizon")


def test_episode_alone_equals_the_same_episode_in_a_batch():
    tasks = taxi.tasks("full", "train")[:30]
    together = play(TAXI, Random(), tasks, rngs(30), 20)
    for i in (0, 7, 29):
        (alone,) = play(TAXI, Random(), [tasks[i]], [rngs(30)[i]], 20)
        assert story(alone) == story(together[i])
    assert len({len(episode) for episode in together}) > 1


# --- evaluate ---


def test_rows_follow_the_contract(home):
    rows = evaluate.evaluate(load("random"))
    assert list(rows) == EPISODE_COLUMNS
    assert set(rows.ended) <= {"success", "danger", "horizon"}
    assert ((rows.ended == "success") == (rows.success == 1)).all()
    assert set(rows.success) <= {0, 1}
    assert set(rows.split) == {"test"} and set(rows.decoding) == {"sampled"} and set(rows.horizon) == {15, 20}
    assert rows.model.isna().all()
    assert (rows.steps <= rows.horizon).all() and (rows.steps >= 1).all()
    for setting in ("pickup", "full"):
        own = rows[rows.setting == setting]
        assert set(own.task) == set(taxi.tasks(setting, "test"))
        assert (own.groupby(["task", "horizon"]).repeat.apply(list).map(sorted).map(tuple) == (0, 1)).all()
        assert len(own) == 100 * 2 * 2


def test_repeats_and_seeds_play_different_episodes(home):
    rows = evaluate.evaluate(load("random"))
    full = rows[(rows.setting == "full") & (rows.horizon == 20)]
    first, second = (full[full.repeat == r][["steps", "return"]].to_numpy() for r in (0, 1))
    assert not np.array_equal(first, second)
    other = evaluate.evaluate(load("random", seed=1))
    other = other[(other.setting == "full") & (other.horizon == 20) & (other.repeat == 0)]
    assert not np.array_equal(first, other[["steps", "return"]].to_numpy())


def test_oracle_reaches_the_ceiling_and_no_more(home):
    rows = evaluate.evaluate(load("oracle"))
    assert set(rows.decoding) == {"greedy"} and set(rows.repeat) == {0}
    for setting in ("pickup", "full"):
        for horizon in (15, 20):
            own = rows[(rows.setting == setting) & (rows.horizon == horizon)]
            assert own.success.mean() == pytest.approx(TAXI.ceiling(setting, "test", horizon))
    full = rows[(rows.setting == "full") & (rows.horizon == 20)].set_index("task")
    assert full.steps.to_dict() == {task: taxi.shortest(task) for task in taxi.tasks("full", "test")}
    assert full["return"].to_numpy() == pytest.approx(2 - 0.05 * (full.steps.to_numpy() - 2))


def test_two_homes_give_the_same_bytes(tmp_path, monkeypatch):
    found = []
    for name in ("a", "b"):
        monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path / name))
        run = load("random")
        evaluate.evaluate(run)
        found.append((run.run_dir / "evaluation" / "episodes.csv.gz").read_bytes())
    assert found[0] == found[1]
    assert gzip.decompress(found[0]).startswith(",".join(EPISODE_COLUMNS).encode())


def test_evaluation_is_made_once_and_then_read(home, monkeypatch):
    first = evaluate.evaluate(load("oracle"))
    monkeypatch.setattr(evaluate, "play", None)
    pd.testing.assert_frame_equal(evaluate.evaluate(load("oracle")), first)


def test_evaluation_of_other_settings_gets_a_folder_of_its_own(home):
    test = evaluate.evaluate(load("oracle"))
    validation = evaluate.evaluate(load("oracle", overrides="evaluation.split=validation"))
    assert set(validation.task).isdisjoint(test.task)
    assert {task.split("-")[0] for task in validation.task} == {"pickup", "full"}
    assert validation.task.nunique() == 2 * 60


def test_damaged_episodes_are_named(home):
    evaluate.evaluate(load("oracle"))
    path = load("oracle").run_dir / "evaluation" / "episodes.csv.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    with pytest.raises(ReflectRLError, match="episodes.csv.gz cannot be read .* delete it"):
        evaluate.evaluate(load("oracle"))
    for lost in (path, path.with_name("prompts.csv")):
        lost.unlink()
        evaluate.evaluate(load("oracle"))
        assert path.read_bytes() == whole and lost.exists()


# --- probes ---


class Words:
    """A reflector that says the same of everything."""

    def __init__(self, text):
        self.text = text

    def reflect(self, prompts):
        return [self.text] * len(prompts)


def test_probes_leave_the_environment_in_the_situation_they_describe():
    run = load("follow", overrides="evaluation.split=validation")
    seen = set()
    for env, now in evaluate.probe(run):
        assert env._observation() == now.observation
        assert env.phase() == now.phase
        assert now.actions[env.best_action()] == now.best_action
        seen.add(now.verdict)
        if len(seen) == 3 and now.task == taxi.tasks("full", "validation")[5]:
            break
    assert seen == {"start", "right", "wrong"}


def test_judgement_of_a_reflector_that_always_says_the_same():
    run = load("follow", overrides="evaluation.split=validation")
    panel = list(evaluate.probe(run))
    found = evaluate.judge_reflector(run, Words("Moving east was right: go on. Next: pick up."))
    assert list(found) == evaluate.REFLECTION_COLUMNS
    assert len(found) == len(panel)
    assert (found.judges_right == (found.situation == "right")).all()
    assert (found.names_best == (found.phase == "at passenger")).all()
    assert (found.names_fatal == (found.phase != "at passenger")).all()
    silent = evaluate.judge_reflector(run, Words("Starting: well."))
    assert silent.names_best.sum() == silent.names_fatal.sum() == 0
    assert (silent.judges_right == (silent.situation == "start")).all()


# --- results of several environments ---


def part(env, value):
    """Raw results of one environment, a row each."""
    key = {"env": env, "variant": "sft_rl", "seed": 0}
    return evaluate.Results(**{name: pd.DataFrame([key | {"value": value}]) for name in evaluate.FILES})


def test_results_of_one_environment_leave_those_of_another(home):
    profile = config.profile("laptop")
    folder = paths.results("laptop")
    for env, value in (("alfworld", 1), ("taxi", 2), ("alfworld", 3)):
        merged = evaluate._merge(folder, profile, env, part(env, value), {"value": value})
    for name, file in evaluate.FILES.items():
        found = pd.read_csv(folder / file)  # in the order of the profile, whichever came first
        assert found[["env", "value"]].values.tolist() == [["taxi", 2], ["alfworld", 3]]
        pd.testing.assert_frame_equal(getattr(merged, name), found)
    entries = json.loads((folder / "manifest.json").read_text())["environments"]
    assert entries == {"taxi": {"value": 2}, "alfworld": {"value": 3}}


def test_prompts_of_an_evaluation_are_counted(home):
    def counts(run):
        evaluate.evaluate(run)
        return pd.read_csv(run.run_dir / "evaluation" / "prompts.csv")

    assert list(counts(load("oracle"))) == evaluate.COUNTS and counts(load("oracle")).empty  # it reads none
    small = "data.trajectories=20 data.negatives=10 data.sft_examples=64 policy.steps=2 evaluation.repeats=1"
    (row,) = counts(load("sft_only", overrides=small)).to_dict("records")
    assert row["limit"] == 95 and row["shortened"] == 0 and 0 < row["longest"] <= 95
    assert 100 <= row["prompts"] < 4000  # those of training are not among them
    (row,) = counts(load("sft_only", overrides=f"{small} model.context=28")).to_dict("records")
    assert row["shortened"] == row["prompts"] > 0 and row["longest"] > row["limit"] == 27


def test_results_are_collected_where_they_were_run_and_else_as_committed(home, monkeypatch):
    asked = []
    monkeypatch.setattr(evaluate, "collect", lambda *key: asked.append(key))
    committed = evaluate.results("laptop", "taxi")
    assert not asked and "taxi" in set(committed.episodes.env)
    (home / "runs" / "laptop" / "taxi").mkdir(parents=True)
    evaluate.results("laptop", "taxi")
    evaluate.results("smoke", "taxi")  # nothing of it is committed
    assert asked == [("laptop", "taxi"), ("smoke", "taxi")]
    assert evaluate._entries(home) == {}


def test_parts_of_an_evaluation_are_in_order_and_independent(home, monkeypatch):
    whole = evaluate.evaluate(load("random"))
    keys = whole[["setting", "horizon", "repeat"]].drop_duplicates().values.tolist()
    assert keys == [[s, h, r] for s in ("pickup", "full") for h in (15, 20) for r in (0, 1)]
    monkeypatch.setattr(evaluate, "SIDE_BY_SIDE", 7)
    monkeypatch.setenv("REFLECT_RL_HOME", str(home / "other"))
    pd.testing.assert_frame_equal(evaluate.evaluate(load("random")), whole)


# --- tuning ---


@pytest.mark.parametrize(
    ("points", "chosen"),
    [
        ([("policy.steps=2 rl.learning_rate=0.1", 0.995), ("policy.steps=1 rl.learning_rate=1e-2", 0.99)], 1),
        ([("rl.learning_rate=0.1", 0.995), ("rl.learning_rate=1e-2", 0.98)], 0),
        ([("policy.steps=1", 0.5), ("policy.steps=2", 0.505)], 1),
        ([("policy.steps=1", 0.5), ("policy.steps=2", 0.5)], 0),
    ],
)
def test_a_small_lead_in_tuning_is_none_and_the_smaller_learning_rate_counts(points, chosen):
    rows = [("taxi", "reflect_rl", seed, text, value) for seed in (1, 2) for text, value in points]
    table = pd.DataFrame(rows, columns=["env", "variant", "seed", "overrides", "success"])
    assert evaluate.choose(table) == [int(i == chosen) for i in range(2)] * 2


def grid(monkeypatch, *points, variants=("random",), seeds=(100, 101)):
    jobs = [("taxi", v, s, p, p.replace(" ", ",")) for v in variants for s in seeds for p in points]
    monkeypatch.setattr(config, "tuning", lambda name, env="": jobs)


def test_tuning_on_test_tasks_is_refused(home, monkeypatch):
    grid(monkeypatch, "evaluation.repeats=1")
    monkeypatch.setattr(evaluate, "evaluate", lambda run: pytest.fail("played before it looked at the split"))
    with pytest.raises(ReflectRLError, match="tuning needs evaluation.split=validation"):
        evaluate.collect_tuning("smoke")
    assert not paths.results("smoke").exists()


def test_tuning_chooses_the_highest_mean_over_seeds_on_sampled_full_episodes(home, monkeypatch):
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

    monkeypatch.setattr(evaluate, "evaluate", played)
    table = evaluate.collect_tuning("smoke")
    assert table.success.tolist() == [1.0, 0.5, 0.75, 0.0, 0.75, 0.5]
    assert table.chosen.tolist() == [0, 1, 0, 0, 1, 0]  # 0.2 and 0.3 are level: the smaller rate
    written = pd.read_csv(paths.results("smoke") / "tuning.csv")
    assert list(written) == ["env", "variant", "seed", "overrides", "success", "chosen"]
    assert written.chosen.tolist() == table.chosen.tolist()
    other = written.assign(env="alfworld")
    pd.concat([written, other]).to_csv(paths.results("smoke") / "tuning.csv", index=False)
    again = evaluate.collect_tuning("smoke", "taxi")  # what the file has of other environments stays
    pd.testing.assert_frame_equal(again, pd.concat([other, written], ignore_index=True))


def test_tables_say_what_they_were_made_on(home):
    assert evaluate.hardware("smoke", "taxi") == ""
    assert re.fullmatch(r"Made on \w+, \d+ CPU cores, .+\.", evaluate.hardware("laptop", "taxi"))
    assert evaluate.hardware("laptop", "taxi") in evaluate.protocols("laptop")


def test_runs_may_have_been_made_on_another_machine_than_the_tables(home):
    runs = [config.load("smoke", "taxi", "sft_rl", seed) for seed in (0, 1)]
    folders = [runs[0].run_dir / "rl", runs[0].player_dir("policy"), runs[1].run_dir / "evaluation"]
    for folder, gpu in zip(folders, ("NVIDIA H100", "NVIDIA H100", ""), strict=True):
        write_json(folder / "provenance.json", {"machine": "x86_64", "cpu_cores": 16, "gpu": gpu})
    assert evaluate._machines(runs) == ["x86_64, 16 CPU cores, NVIDIA H100", "x86_64, 16 CPU cores, no GPU"]
