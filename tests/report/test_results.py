"""Results of several environments, collected and committed, and what is said of them."""

import json

import pandas as pd
import pytest

from reflect_rl.core import paths
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.files import write_json
from reflect_rl.core.identity import stage_dir
from reflect_rl.envs import settings
from reflect_rl.report import protocol, raw, results
from reflect_rl.report.tables import matching


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))
    return tmp_path


def part(env, value):
    """Raw results of one environment, a row each."""
    key = {"env": env, "regime": "", "variant": "sft_rl", "seed": 0}
    rows = {name: dict.fromkeys(columns) | key | {"value": value} for name, columns in raw.COLUMNS.items()}
    return raw.Results(**{name: pd.DataFrame([row]) for name, row in rows.items()})


def test_results_of_one_environment_leave_those_of_another(home):
    profile = settings.profile("laptop")
    folder = paths.results("laptop")
    for env, value in (("alfworld", 1), ("taxi", 2), ("alfworld", 3)):
        results._merge(profile, env, part(env, value), {"value": value})
    for name in raw.FILES:
        found = getattr(results.results("laptop", "taxi"), name)  # in the order of the profile, whichever came first
        assert found[["env", "value"]].values.tolist() == [["taxi", 2], ["alfworld", 3]]
    assert results.results("laptop", "alfworld").of("taxi").runs.value.tolist() == [2]
    entries = json.loads((folder / "manifest.json").read_text())["environments"]
    assert entries == {"taxi": {"value": 2}, "alfworld": {"value": 3}}


def test_committed_results_are_read_until_others_were_collected_here(home):
    committed = results.results("laptop", "taxi")
    assert set(committed.episodes.env) == {"taxi", "alfworld", "autoexplore"} and not list(home.iterdir())
    results._merge(settings.profile("laptop"), "taxi", part("taxi", 1), {})
    assert results.results("laptop", "taxi").runs.value.tolist() == [1]
    assert len(results.results("laptop", "alfworld").episodes) == len(committed.episodes)


def test_tables_say_what_they_were_made_on(home, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(protocol, "collected", lambda profile: {})  # nothing was run yet
        assert protocol.made_on("laptop", "taxi") == ""
    assert protocol.made_on("laptop", "taxi").startswith("Made on ") and " CPU cores, " in protocol.made_on(
        "laptop", "taxi"
    )
    both = protocol.protocols("laptop")
    assert protocol.made_on("laptop", "taxi") in both and protocol.protocol("laptop", "alfworld") in both


def test_a_protocol_says_what_the_claims_are_judged_on(home):
    text = protocol.protocol("laptop", "taxi")
    assert (
        "fixed test tasks (60 pickup, 60 full, 50 pairs)" in text and "judged on what configs/claims.yaml lists" in text
    )
    assert "secondary source" in text and "measured on 100 random maps" in text
    assert "Prompted models (smollm2-135m) are not trained and have one seed" in text
    with pytest.raises(ReflectRLError, match="profile 'smoke' does not run 'alfworld'"):
        protocol.protocol("smoke", "alfworld")


def test_runs_may_have_been_made_on_another_machine_than_the_tables(home):
    runs = [settings.load("smoke", "taxi", "sft_rl", seed) for seed in (0, 1)]
    folders = [stage_dir(runs[0], "rl"), stage_dir(runs[0], "policy"), stage_dir(runs[1], "evaluation")]
    for folder, gpu in zip(folders, ("NVIDIA H100", "NVIDIA H100", ""), strict=True):
        write_json(folder / "provenance.json", {"machine": "x86_64", "cpu_cores": 16, "gpu": gpu})
    made_on = [results._machines(run) for run in runs]
    assert made_on == [["x86_64, 16 CPU cores, NVIDIA H100"], ["x86_64, 16 CPU cores, no GPU"]]


@pytest.mark.parametrize(
    ("here", "studied"),
    [("texts", "paper"), ("texts-limited", "limited-200-hint"), ("online-reflector", "executed-200-action")],
)
@pytest.mark.parametrize("variant", ["reflect_sft", "reflect_rl"])
def test_what_two_profiles_ran_ended_alike_though_by_code_of_different_days(here, studied, variant):
    runs = {}
    for profile, regime in (("beyond", here), ("study", studied)):
        episodes = raw.read_rows(paths.project() / "results" / profile / raw.FILES["episodes"], raw.COLUMNS["episodes"])
        runs[profile] = matching(episodes, env="taxi", regime=regime, variant=variant).drop(columns="regime")
    seeds = set(runs["beyond"]["seed"]) & set(runs["study"]["seed"])
    assert len(seeds) >= 5
    one, other = (of[of["seed"].isin(seeds)].reset_index(drop=True) for of in runs.values())
    pd.testing.assert_frame_equal(one, other)
