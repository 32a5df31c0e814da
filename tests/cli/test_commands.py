"""The commands that are neither a run nor a notebook, and their one-line errors."""

import subprocess
import sys

import pandas as pd
import pytest

from reflect_rl.cli import graph
from reflect_rl.cli.main import main
from reflect_rl.core import paths, profiles
from reflect_rl.envs import settings
from reflect_rl.report import page, replay, write
from reflect_rl.train import release


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    commands = (
        "reproduce",
        "tune",
        "execute",
        "train",
        "release",
        "notebooks",
        "settings",
        "report",
        "stale",
        "replay",
        "check",
    )
    assert all(f"\n    {command} " in text or f"\n    {command}\n" in text for command in commands)


def test_help_is_quick_since_nothing_heavy_is_imported():
    code = "import sys; from reflect_rl.cli.main import parser; parser().format_help(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "snakemake"} & set(done.stdout.split())


def test_settings_say_what_is_in_force_and_why(capsys):
    given = ["--profile", "smoke", "--variant", "rl_only", "--overrides", "rl.clip=0.2"]
    assert main(["settings", *given]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    shown = {name: [part for part in line.split("  ") if part] for name, line in lines.items()}
    shown = {name: [part.strip() for part in parts] for name, parts in shown.items()}
    assert shown["rl.clip"][:3] == ["rl.clip", "0.2", "override"]
    assert shown["rl.env_steps"][1:3] == [str(settings.load("smoke").rl.env_steps), "configs/smoke.yaml, section taxi"]
    assert shown["rl.advantage"][1:3] == ["gae", "default"]
    assert shown["data.trajectories"][3] == "episodes of the expert mixed with random actions"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["settings", "--profile", "mine"], "unknown profile 'mine'; choose one of: "),
        (["settings", "--regime", "rich", "--env", "taxi"], "unknown regime of taxi 'rich'; choose one of: "),
        (["settings", "--env", "lake"], "unknown environment 'lake'; choose one of: "),
        (["settings", "--overrides", "rl.clip=-3"], "rl.clip"),
        (["check", "lake"], "unknown environment 'lake'; choose one of: "),
        (["reproduce", "--env", "lake"], "unknown environment 'lake'; choose one of: "),
        (["tune", "--profile", "smoke"], "no tuning grid"),
    ],
)
def test_errors_are_one_line(capfd, command, message):
    assert main(command) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error


@pytest.mark.parametrize("cores", ["0", "two"])
def test_cores_are_counted_from_one(capsys, cores):
    with pytest.raises(SystemExit, match="2"):
        main(["reproduce", "--cores", cores])
    assert f"'{cores}' is not a whole number from 1 on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "printed"),
    [
        (
            [["lake", "rl", "c", "c", False]],
            ["0 of 1 stages of profile laptop were made by other code than today's"],
        ),
        (
            [["lake", "rl", "a", "b", True], ["lake", "data", "c", "c", False]],
            [
                "1 of 2 stages of profile laptop were made by other code than today's",
                " env stage then now",
                "lake    rl    a   b",
            ],
        ),
    ],
)
def test_stale_results_are_listed(capsys, monkeypatch, rows, printed):
    columns = ["env", "stage", "then", "now", "stale"]
    monkeypatch.setattr(replay, "stale", lambda profile: pd.DataFrame(rows, columns=columns).astype({"stale": bool}))
    assert main(["stale"]) == 0
    assert capsys.readouterr().out.splitlines() == printed


@pytest.mark.parametrize("command", [["stale", "--profile", "template"], ["verify", "template"]])
def test_a_profile_without_results_is_no_profile_whose_results_are_in_order(capsys, command):
    assert main(command) == 2
    assert "`reproduce --profile template` makes them" in capsys.readouterr().err


def test_settings_say_which_regimes_run_a_variant(capsys):
    asked = ["settings", "--profile", "beyond", "--variant", "reflect_rl_both"]
    assert main(asked) == 0
    said = "note: profile beyond runs reflect_rl_both in online-reflector, online-reflector-frozen, not in texts"
    assert said in capsys.readouterr().err
    assert main([*asked, "--regime", "online-reflector"]) == 0 and not capsys.readouterr().err


def test_release_copies_the_weights_of_the_run_that_is_asked_for(capsys, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(release, "release", lambda config: asked.append(config) or tmp_path)
    assert main(["release", "--profile", "smoke", "--env", "taxi", "--variant", "sft_rl", "--seed", "1"]) == 0
    assert asked == [settings.load("smoke", "taxi", "sft_rl", 1)]
    assert capsys.readouterr().out == f"released: {tmp_path}\n"


def test_check_plays_an_environment(capsys):
    assert main(["check", "taxi"]) == 0
    assert capsys.readouterr().out == "taxi: nothing to complain about\n"


def test_report_makes_tables_and_figures_of_every_environment(capsys, monkeypatch):
    made = []
    monkeypatch.setattr(write, "write_profile", lambda *asked: made.append(asked))
    monkeypatch.setattr(page, "write_page", lambda profile: made.append(profile))
    assert main(["report", "--profile", "laptop", "--env", "taxi"]) == 0
    assert made == [("laptop", ("taxi",)), "laptop"]
    assert capsys.readouterr().out.startswith("tables: ")


@pytest.mark.parametrize("regimes", [{}, {"one": {}}, {"one": {}, "two": {}}], ids=["none", "one", "two"])
def test_reproduce_ends_with_the_table_that_one_wants_to_see_first(regimes, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))
    monkeypatch.setattr(graph, "run", lambda *_, **__: None)
    monkeypatch.setattr(page, "write_page", lambda profile: tmp_path / f"{profile}.html")
    section = {"regimes": regimes} if regimes else {}
    plan = profiles.Profile(name="smoke", envs=("taxi",), seeds=(0,), variants=("follow",), sections={"taxi": section})
    monkeypatch.setattr(settings, "profile", lambda name: plan)
    table = paths.tables("smoke") / f"{'taxi_one' if len(regimes) > 1 else 'taxi'}_headline.md"
    table.parent.mkdir(parents=True)
    table.write_text("the first table\n")
    assert main(["reproduce", "--profile", "smoke"]) == 0
    out = capsys.readouterr().out
    assert (
        out.startswith("the first table\n\nas a figure: ") and table.stem.replace("headline", "main_results.png") in out
    )


def test_replay_prints_how_many_rows_differ(capsys, monkeypatch):
    asked = []

    def replayed(profile, env, runs, every_variant):
        asked.append((profile, env, runs, every_variant))
        return pd.DataFrame([{"variant": "sft_rl"} | dict.fromkeys(replay.REPLAYED, "0 of 240")])

    monkeypatch.setattr(replay, "replay", replayed)
    assert main(["replay", "--profile", "laptop", "--env", "taxi", "--runs", "4"]) == 0
    assert asked == [("laptop", "taxi", 4, False)] and "0 of 240" in capsys.readouterr().out
