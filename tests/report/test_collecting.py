"""A profile of an environment that has only what is required: collected, and made into tables and figures."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from counting_game import CLAIMS, PROFILE, SPEC

from reflect_rl.cli.main import main
from reflect_rl.core import paths
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.files import write_csv, write_json
from reflect_rl.core.identity import STAGES, stage_code, stage_dir
from reflect_rl.envs import registry, settings
from reflect_rl.evaluate.panels import evaluate
from reflect_rl.report import protocol, raw, replay, results, watch, write


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """A project with one profile of one environment, which has only what is required, collected."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "configs").mkdir()
    (folder / "configs" / "tiny.yaml").write_text(PROFILE)
    (folder / "configs" / "claims.yaml").write_text(CLAIMS)
    (folder / "pyproject.toml").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("REFLECT_RL_HOME", raising=False)
        registry.register(SPEC, replace=True)
        with pytest.raises(
            ReflectRLError, match="no results .*'counting' in profile 'tiny'.* reproduce --profile tiny"
        ):
            results.results("tiny", "counting")
        assert not (folder / "runs").exists() and not (folder / "results").exists()
        yield results.results("tiny", "counting", collect=True)


def test_what_an_environment_lacks_is_left_out(counted):
    variants = set(counted.episodes.variant)
    assert variants == {"random", "expert", "follow", "sft_rl", "reflect_sft", "reflect_rl"}
    assert counted.episodes.provenance.isna().all() and counted.ceilings.ceiling.isna().all()
    assert set(counted.training.stage) == {"warm-up", "full"}
    assert counted.reflections.judges_right.dropna().isin([0, 1]).all()
    expert = counted.episodes[counted.episodes.variant == "expert"]
    assert (expert.success == 1).all() and set(expert.steps) == {1, 2, 3}


def test_collecting_again_makes_the_same_bytes_and_runs_nothing(counted, monkeypatch):
    folder = paths.results("tiny")
    before = {path.name: path.read_bytes() for path in folder.glob("[!.]*.*")}
    monkeypatch.setattr("reflect_rl.evaluate.panels.agents", None)
    results.results("tiny", "counting", collect=True)
    after = {path.name: path.read_bytes() for path in folder.glob("[!.]*.*")}
    assert set(before) == {*raw.FILES.values(), raw.CHECKSUMS, "manifest.json", "counting_episodes.json"}
    assert after == before


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\x00"])
def test_a_damaged_run_is_named_and_made_anew_once_its_folder_is_deleted(counted, content):
    folder = stage_dir(settings.load("tiny", "counting", "sft_rl"), "rl")
    whole = (folder / "metrics.csv").read_bytes()
    (folder / "metrics.csv").write_bytes(content)
    with pytest.raises(ReflectRLError, match=f"metrics.csv cannot be read .*; delete the run folder {folder} and run"):
        results.results("tiny", "counting", collect=True)
    shutil.rmtree(folder)
    results.results("tiny", "counting", collect=True)  # the evaluation is still there, and would train nothing
    assert (folder / "metrics.csv").read_bytes() == whole


def test_damaged_results_are_named(counted):
    folder = paths.results("tiny")
    for name, content in {
        "episodes.csv.gz": b"x",
        "ceilings.csv": b"env,setting\n",
        "prompts.csv": b"",
        "manifest.json": b"[]",
    }.items():
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(content)
        with pytest.raises(ReflectRLError, match=f"{folder / name} .*; delete it and run again"):
            results.results("tiny", "counting")
        (folder / name).write_bytes(whole)


def test_no_results_are_not_stale(counted):
    (paths.configs() / "other.yaml").write_text(PROFILE)
    assert len(replay.stale("other")[replay.stale("other").stale].drop(columns="stale")) == 0
    with pytest.raises(ReflectRLError, match="unknown profile 'another'; choose one of: other, tiny"):
        replay.stale("another")


def test_reading_runs_and_writes_nothing(counted, monkeypatch):
    monkeypatch.setattr(results, "evaluate", None)
    monkeypatch.setattr(results, "write_csv", None)
    read = results.results("tiny", "counting")
    pd.testing.assert_frame_equal(read.episodes, counted.episodes)


def test_the_manifest_names_settings_code_data_and_machines(counted):
    entry = json.loads((paths.results("tiny") / "manifest.json").read_text())["environments"]["counting"]
    run = settings.load("tiny", "counting")
    assert entry["code"] == {stage: stage_code(run, stage) for stage in STAGES}
    (made,) = entry["regimes"].values()
    assert set(made["data_sha256"]) == {"seed 0", "seed 1"}
    assert made["settings"]["sft_rl"]["rl"]["env_steps"] == 40
    assert len(entry["machines"]) == 1 and "CPU cores" in entry["machines"][0]


def test_results_are_stale_where_the_code_has_changed_since(counted, monkeypatch):
    assert not replay.stale("tiny").stale.any()
    monkeypatch.setattr(replay, "stage_code", lambda run, stage: "changed" if stage == "rl" else stage_code(run, stage))
    found = replay.stale("tiny").set_index("stage")
    assert found.stale.to_dict() == {stage: stage == "rl" for stage in STAGES}
    assert found.now["rl"] == "changed" != found.then["rl"]


def test_results_of_before_code_was_hashed_are_stale(counted):
    path = paths.results("tiny") / "manifest.json"
    whole = path.read_text()
    manifest = json.loads(whole)
    del manifest["environments"]["counting"]["code"]
    manifest["environments"]["lost"] = {}
    write_json(path, manifest)
    found = replay.stale("tiny")
    path.write_text(whole)
    assert found.stale.all() and set(found.then) == {"not recorded"}
    assert set(found[found.env == "lost"].now) == {"no such environment"} and len(found) == 2 * len(STAGES)


def test_all_tables_and_figures_are_made_from_the_raw_results(counted, monkeypatch):
    monkeypatch.setattr(results, "evaluate", None)
    made = write.write_all("tiny", "counting")
    assert set(made.figures) == {"training_curves", "main_results", "reflector", "episode"}
    assert "ceiling" in made.tables["main"] and made.tables["main"].ceiling.isna().all()
    assert "paper (secondary source)" not in made.tables["headline"]
    assert set(made.tables["claims"].claim) == {"3"} and set(made.tables["claims"].verdict) == {"undecided"}
    drawn = {path.name for path in paths.figures("tiny").iterdir()}
    assert made.claims is not None
    assert drawn == {
        f"{stem}.{kind}" for stem in ("claims", *map("counting_{}".format, made.figures)) for kind in ("png", "svg")
    }
    written = {path.relative_to(paths.results("tiny")).as_posix() for path in paths.results("tiny").rglob("*.md")}
    own = {"headline", "online_rl", "ablations", "reflector", "verdicts"}
    tables = {*"main seeds parts runs budgets prompts".split(), *(f"counting_{name}" for name in own)}
    assert written == {"claims.md"} | {f"tables/{name}.md" for name in tables}
    assert "ceiling is" not in protocol.protocol("tiny", "counting")
    budgets = made.tables["budgets"].set_index("variant")
    assert set(budgets.index) == {"follow", "sft_rl", "reflect_sft", "reflect_rl"}
    assert (budgets.n_seeds == 2).all() and budgets.policy_parameters.nunique() == 1
    assert budgets.policy_samples.dropna().unique().tolist() == [64] and budgets.policy_samples.isna().sum() == 1
    assert budgets.reflector_parameters.isna()["sft_rl"] and budgets.policy_parameters.isna()["follow"]
    assert budgets.reflector_samples.isna()["sft_rl"] and budgets.reflector_samples["follow"] == 64
    assert budgets.updates.isna()["reflect_sft"] and budgets.updates["reflect_rl"] > 1
    assert budgets.env_steps["reflect_rl"] >= 40 and budgets.situations.nunique() == 1
    again = write.products("tiny", "counting")
    pd.testing.assert_frame_equal(again.tables["main"], made.tables["main"])


def test_the_kept_episodes_are_those_of_the_raw_results_with_what_the_policy_thought(counted):
    kept, rows = watch.kept("tiny", "counting"), results.results("tiny", "counting").episodes
    assert [*dict.fromkeys(e["variant"] for e in kept)] == ["reflect_rl", "expert", "follow", "sft_rl", "reflect_sft"]
    assert [e["task"] for e in kept[: watch.TASKS]] == [*SPEC.panel("full", "test")[: watch.TASKS]]
    for episode in kept:
        row = rows[(rows.repeat == 0) & (rows.horizon == 6)]
        for column in ("variant", "seed", "task", "decoding"):
            row = row[row[column] == episode[column]]
        (row,), frames = row.to_dict("records"), episode["frames"]
        assert (row["success"], row["ended"]) == (episode["success"], episode["ended"])
        assert row["steps"] == len(frames) - 1 and frames[-1]["action"] == "" and "choices" not in frames[-1]
        for frame in frames[:-1]:
            actions, shares = zip(*frame["choices"], strict=True) if frame["choices"] else ((), ())
            assert bool(actions) == (episode["variant"] not in ("expert", "follow"))
            assert frame["action"] in actions or not actions or min(shares) >= watch.LEAST
            assert [*shares] == sorted(shares, reverse=True) and sum(shares) <= 1.01
    assert watch.kept("tiny", "nothing") == []


@pytest.fixture
def without_runs(counted, tmp_path, monkeypatch):
    """The project as it would be cloned: with the results of `tiny`, without run folders; what it evaluates is noted."""
    shutil.copytree(paths.project(), tmp_path / "clone", ignore=shutil.ignore_patterns("runs", ".lock"))
    monkeypatch.chdir(tmp_path / "clone")
    evaluated = []
    monkeypatch.setattr(results, "evaluate", lambda run: evaluated.append((run.variant, run.seed)) or evaluate(run))
    return evaluated


def manifest():
    return json.loads((paths.results("tiny") / "manifest.json").read_text())["environments"]["counting"]


def test_with_extend_only_runs_that_no_results_hold_are_made(without_runs, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_EXTEND", "1")
    before = results.results("tiny", "counting")
    (paths.configs() / "tiny.yaml").write_text(PROFILE.replace("seeds: [0, 1]", "seeds: [0, 1, 2]"))
    found = results.results("tiny", "counting", collect=True)
    assert {seed for _, seed in without_runs} == {2} and len(without_runs) == len(set(before.episodes.variant))
    for name, rows in vars(found).items():
        known = rows[rows.seed < 2].reset_index(drop=True) if "seed" in rows else rows
        pd.testing.assert_frame_equal(known, getattr(before, name), check_dtype=False)
    assert [*manifest()["regimes"][""]["data_sha256"]] == ["seed 0", "seed 1", "seed 2"]
    assert len(manifest()["machines"]) == len(manifest()["held"]) == 1


def test_with_extend_another_profile_of_equal_settings_runs_nothing(without_runs, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_EXTEND", "1")
    (paths.configs() / "other.yaml").write_text(PROFILE + "  regimes: {one: {}, two: {}}\n")
    other = settings.profile("other")
    assert [*results.held(other, "counting")] == [*other.runs_of("counting")]
    found = results.results("other", "counting", collect=True)
    assert set(found.training.regime) == {"one", "two"} and without_runs == []
    for stem in ("counting_one", "counting_two"):
        assert watch.kept("other", stem) == watch.kept("tiny", "counting") != []
    (paths.configs() / "second.yaml").write_text(PROFILE.replace("seeds: [0, 1]", "seeds: [1]"))
    results.results("second", "counting", collect=True)  # the episode that was kept is that of seed 0
    assert watch.kept("second", "counting") == [] and without_runs == []


def test_without_extend_everything_is_made_anew(without_runs):
    variants = set(results.results("tiny", "counting").episodes.variant)
    results.results("tiny", "counting", collect=True)
    assert {variant for variant, _ in without_runs} == variants and "held" not in manifest()


def test_results_of_other_settings_code_threads_packages_or_games_hold_nothing(without_runs, monkeypatch):
    tiny = settings.profile("tiny")
    assert len(results.held(tiny, "counting")) == len([*tiny.runs_of("counting")])
    (paths.configs() / "other.yaml").write_text(PROFILE.replace("policy: {steps: 4", "policy: {steps: 5"))
    assert results.held(settings.profile("other"), "counting") == {}
    for name, value in {
        "threads": lambda: 2,
        "provenance": lambda: {"packages": {"torch": "1"}},
        "stage_code": lambda run, stage: "changed" if stage == "data" else stage_code(run, stage),
        "get": lambda env: dataclasses.replace(SPEC, task_source=lambda task: "elsewhere"),
    }.items():
        with monkeypatch.context() as patch:
            patch.setattr(results, name, value)
            assert results.held(tiny, "counting") == {}
    assert results.held(tiny, "counting")


def test_runs_that_are_made_again_are_compared_to_the_last_digit(without_runs):
    found = replay.replay("tiny", "counting", 5)
    assert found.variant[0] == "reflect_rl" and found.variant.is_unique and len(found) == len(without_runs) == 5
    told = {text for name in replay.REPLAYED for text in found[name]} - {""}
    assert told and all(text.startswith("0 of ") and int(text[5:]) > 0 for text in told)
    assert (found.training != "").sum() == found.variant.str.contains("_rl").sum() > 0 and (found.episodes != "").all()
    assert not (paths.home() / "runs").exists()

    rows = results.results("tiny", "counting")
    blank = rows.reflections.head(1).assign(seed=99, names_best=np.nan, names_fatal=np.nan)  # no action is named
    write_csv(paths.results("tiny") / "reflections.csv.gz", pd.concat([rows.reflections, blank]))
    assert replay.replay("tiny", "counting", 1).reflections[0].startswith("0 of ")
    one = rows.episodes.index[(rows.episodes.variant == "reflect_rl") & (rows.episodes.seed == found.seed[0])][0]
    changed = rows.episodes.assign(**{"return": rows.episodes["return"].where(rows.episodes.index != one, 0.1)})
    write_csv(paths.results("tiny") / "episodes.csv.gz", changed)
    assert replay.replay("tiny", "counting", 1).episodes[0].startswith("1 of ")
    write_csv(paths.results("tiny") / "episodes.csv.gz", rows.episodes.drop(index=one))
    made, held = replay.replay("tiny", "counting", 1).episodes[0].split(" of ")
    assert made == held
    with pytest.raises(SystemExit):
        main(["replay", "--profile", "tiny", "--runs", "none"])
    assert main(["replay", "--profile", "tiny", "--runs", "1", "--accept"]) == 1 and "replayed" not in manifest()


def test_results_of_other_code_count_as_todays_once_replays_of_every_variant_agree(without_runs, monkeypatch):
    changed = lambda run, stage: f"{stage_code(run, stage)}x"  # noqa: E731
    for module in (replay, results):
        monkeypatch.setattr(module, "stage_code", changed)
    then, tiny = manifest(), settings.profile("tiny")
    assert replay.stale("tiny").stale.all() and results.held(tiny, "counting") == {}
    assert main(["replay", "--profile", "tiny", "--runs", "1", "--accept"]) == 0
    assert {variant for variant, _ in without_runs} == {*then["regimes"][""]["settings"]}
    assert not replay.stale("tiny").stale.any() and len(results.held(tiny, "counting")) == len(
        [*tiny.runs_of("counting")]
    )
    (noted,) = manifest()["replayed"]
    assert noted["instead_of"] == then["code"] and len(noted["runs"]) == len(without_runs)
    assert manifest()["regimes"] == then["regimes"]

    monkeypatch.setenv("REFLECT_RL_EXTEND", "1")
    results.results("tiny", "counting", collect=True)
    assert manifest()["held"][0]["replayed"] == [noted]


def test_a_replay_with_other_settings_is_refused_and_names_them(without_runs):
    (paths.configs() / "tiny.yaml").write_text(PROFILE + "  variant_overrides: {sft_rl: {rl.env_steps: 50}}\n")
    with pytest.raises(ReflectRLError, match="tiny counting sft_rl: rl.env_steps differ from what the results"):
        replay.replay("tiny", "counting", 1)
    (paths.configs() / "tiny.yaml").write_text(PROFILE.replace("seeds: [0, 1]", "seeds: [7]"))
    with pytest.raises(ReflectRLError, match="hold none of its runs"):
        replay.replay("tiny", "counting", 1)
    assert without_runs == []


def test_regimes_share_runs_and_have_rows_and_files_of_their_own(counted, monkeypatch):
    """Two regimes of equal settings, of which the second has fewer variants and seeds: nothing is run."""
    regimes = "  regimes: {one: {}, two: {variants: [random, sft_rl, reflect_rl], seeds: [1]}}\n"
    (paths.configs() / "tiny.yaml").write_text(PROFILE + regimes)
    with pytest.raises(ReflectRLError, match="no results of regime 'two' of counting in profile 'tiny' yet; make them"):
        write.products("tiny", "counting", regime="two")
    monkeypatch.setattr("reflect_rl.evaluate.panels.agents", None)
    found = results.results("tiny", "counting", collect=True)
    seeds = found.episodes.groupby(["regime", "variant"], sort=False).seed.agg(set).to_dict()
    assert list(seeds)[-3:] == [("two", name) for name in ("random", "sft_rl", "reflect_rl")]
    assert seeds["two", "reflect_rl"] == {1} and seeds["one", "reflect_sft"] == {0, 1}
    for name in ("training", "reflections", "runs", "ceilings", "prompts"):
        assert set(getattr(found, name).regime) == {"one", "two"}
        assert set(getattr(found.of("counting", "two"), name).regime) == {"two"}
    made = write.write_all("tiny", "counting", found, "two")
    assert made.regime == "two" and set(made.tables["headline"].variant) == {"Random", "SFT + RL", "Reflect-RL"}
    for folder, kind in ((paths.figures("tiny"), "png"), (paths.tables("tiny"), "md")):
        files = {path.stem for path in folder.glob(f"counting_*.{kind}")}
        assert {f"counting_{name}" for name in ("one_reflector", "two_reflector")} < files
    assert (paths.results("tiny") / "counting_two_episodes.json").exists()
    told = (
        "Settings of the regimes:\n\n- `one` (2 seeds): none\n- `two` (1 seed): none; only Random, SFT + RL, Reflect-RL"
    )
    assert told in (paths.tables("tiny") / "main.md").read_text()
    assert "regime `two`, 1 seed," in (paths.tables("tiny") / "counting_two_headline.md").read_text()
    assert set(replay.stale("tiny").env) == {"counting"} and made.maps == {}  # nothing to compare
    assert not (paths.figures("tiny") / "counting_map.png").exists()


def test_of_many_regimes_those_that_the_rule_compares_have_files_of_their_own(counted, monkeypatch):
    (paths.configs() / "tiny.yaml").write_text(PROFILE + "  regimes: {first: {}, judged: {}, other: {}}\n")
    rule = yaml.safe_load(CLAIMS)
    for entry in rule["comparisons"]["counting"]:
        entry["regime"] = "judged"
    (paths.configs() / "claims.yaml").write_text(yaml.safe_dump(rule))
    monkeypatch.setattr("reflect_rl.evaluate.panels.agents", None)  # regimes of equal settings share their runs
    found = results.results("tiny", "counting", collect=True)
    assert {name for name in ("first", "judged", "other") if watch.kept("tiny", f"counting_{name}")} == {
        *("first", "judged"),
    }
    shutil.rmtree(paths.tables("tiny"), ignore_errors=True)
    made = write.write_all("tiny", "counting", found, "other")
    assert made.regime == "other" and not made.tables["headline"].empty
    headlines = {path.name for path in paths.tables("tiny").glob("*_headline.md")}
    assert headlines == {"counting_first_headline.md", "counting_judged_headline.md"}
    assert {*made.tables["main"].regime} == {"first", "judged", "other"}


def test_regimes_that_differ_in_their_reflections_have_figures_that_compare_them(counted):
    regimes = "  regimes: {all: {}, few: {settings: {data.reflections: 20}}, other: {settings: {policy.steps: 5}}}\n"
    (paths.configs() / "tiny.yaml").write_text(PROFILE + regimes)
    few = counted.episodes.reflections.mask(counted.episodes.variant != "random", 20)
    of_regimes = {
        name: [rows.assign(regime=regime) for regime in ("all", "few", "other")] for name, rows in vars(counted).items()
    }
    of_regimes["episodes"][1] = of_regimes["episodes"][1].assign(reflections=few)
    found = raw.Results(**{name: pd.concat(rows, ignore_index=True) for name, rows in of_regimes.items()})
    made = write.write_all("tiny", "counting", found)
    assert set(made.maps) == {"map", "parts", "costs", "warmup"} and made.regime == "all"
    drawn = {path.name for path in paths.figures("tiny").iterdir()}
    assert {f"counting_{name}.{kind}" for name in made.maps for kind in ("png", "svg")} < drawn
    ticks = made.maps["map"].axes[0].get_xticklabels()
    assert [tick.get_text() for tick in ticks] == ["20", "all"] and len(made.maps["costs"].axes) == 1
    parts = pd.read_csv(paths.tables("tiny") / "parts.csv")
    assert set(parts.regime) == {"all", "few", "other"} and set(parts.reflections.dropna()) == {20}
