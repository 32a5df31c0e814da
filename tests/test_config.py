import json

import pandas as pd
import pytest
import yaml

from reflect_rl import config, paths
from reflect_rl.envs import DOMAINS
from reflect_rl.errors import ReflectRLError

TUNING = paths.project() / "results" / "laptop" / "tuning.csv"


def load(overrides="", variant="reflect_rl", profile="smoke", seed=0):
    return config.load(profile, "taxi", variant, seed, overrides)


# --- messages ---


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"profile": "smok"},
            ["unknown profile 'smok'", "choose one of: laptop, paper, pretrained, pretrained_cpu, smoke"],
        ),
        ({"env": "taxy"}, ["unknown environment 'taxy'", "choose one of: taxi"]),
        ({"variant": "reflect"}, ["unknown variant 'reflect'", ", ".join(config.VARIANTS)]),
        ({"seed": -1}, ["seed -1", "from 0 on"]),
        ({"seed": True}, ["seed True"]),
        ({"seed": 1.0}, ["seed 1.0"]),
        ({"overrides": "lr.steps=3"}, ["unknown settings section 'lr'", "data, model, reflector, policy, rl, evalu"]),
        ({"overrides": "steps=3"}, ["unknown settings section 'steps'"]),
        (
            {"overrides": "rl.learning_rat=3"},
            ["unknown setting of rl 'learning_rat'", "env_steps, episodes_per_update"],
        ),
        ({"overrides": "policy.bucket=-1"}, ["bucket=-1", "should be 0 or more"]),
        ({"overrides": "rl.env_steps=many"}, ["rl.env_steps='many'", "should be a int"]),
        ({"overrides": "rl.env_steps=1.5"}, ["rl.env_steps=1.5", "should be a int"]),
        ({"overrides": "rl.env_steps=true"}, ["rl.env_steps=True", "should be a int"]),
        ({"overrides": "rl.learning_rate=fast"}, ["rl.learning_rate='fast'", "should be a float, such as 0.001"]),
        ({"overrides": "rl.learning_rate=true"}, ["rl.learning_rate=True", "should be a float"]),
        ({"overrides": "rl.milestone=1"}, ["rl.milestone=1", "should be a bool"]),
        ({"overrides": "evaluation.horizons=20"}, ["evaluation.horizons=20", "should be a tuple"]),
        ({"overrides": "rl.entropy"}, ["override 'rl.entropy'", "section.setting=value"]),
        ({"overrides": "rl.entropy="}, ["rl.entropy=None", "should be a float"]),
        ({"overrides": "evaluation.horizons=[15"}, ["evaluation.horizons"]),
        ({"overrides": "rl.objective=trpo"}, ["unknown objective 'trpo'", "pg, ppo"]),
        ({"overrides": "rl.baseline=median"}, ["unknown baseline 'median'", "none, mean, critic"]),
        ({"overrides": "model.n_conv=-1"}, ["model.n_conv=-1 should be 0 or more"]),
        ({"overrides": "model.n_layer=0"}, ["model.n_layer=0 should be 1 or more"]),
        ({"overrides": "rl.pickup=0.8 rl.dropoff=0.5"}, ["rl.pickup + rl.dropoff = 1.3 exceeds 1", "lower one"]),
    ],
    ids=str,
)
def test_bad_setting_is_one_line_that_names_it_and_the_choices(arguments, words):
    with pytest.raises(ReflectRLError) as error:
        config.load(**arguments)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def project(tmp_path, monkeypatch, text):
    """A project whose only profile is `own`."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "configs" / "own.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)


GOOD = "envs: [taxi]\nseeds: [0]\nvariants: [random]\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD.replace("taxi", "taxy"), "unknown environment 'taxy'; choose one of: taxi"),
        (GOOD.replace("random", "lucky"), "unknown variant 'lucky'; choose one of: random, oracle"),
        ("envs: [taxi\n", "configs/own.yaml is not valid YAML"),
    ],
)
def test_bad_profile_is_one_line(tmp_path, monkeypatch, text, words):
    project(tmp_path, monkeypatch, text)
    with pytest.raises(ReflectRLError) as error:
        config.profile("own")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_misspelt_setting_in_a_profile_is_named(tmp_path, monkeypatch):
    project(tmp_path, monkeypatch, GOOD + "taxi:\n  rl: {env_stepz: 3}\n")
    with pytest.raises(ReflectRLError, match="unknown setting of rl 'env_stepz'"):
        load(profile="own")


# --- values ---


def test_overrides_are_parsed_by_type_and_sorted():
    run = load("rl.learning_rate=3e-3 rl.entropy=1 evaluation.horizons=[10,12] data.trajectories=7 rl.milestone=false")
    assert run.rl.learning_rate == 0.003
    assert run.rl.entropy == 1.0 and isinstance(run.rl.entropy, float)
    assert run.evaluation.horizons == (10, 12)
    assert run.data.trajectories == 7 and isinstance(run.data.trajectories, int)
    assert run.rl.milestone is False
    assert [key for key, _ in run.overrides] == [
        "data.trajectories", "evaluation.horizons", "rl.entropy", "rl.learning_rate", "rl.milestone",
    ]  # fmt: skip


def test_order_of_overrides_does_not_matter():
    one, other = load("rl.clip=0.2 rl.entropy=0.5"), load("rl.entropy=0.5 rl.clip=0.2")
    assert one == other and one.run_dir == other.run_dir


@pytest.mark.parametrize("values", [("40", "90"), ("90", "40")])
def test_later_one_of_two_overrides_of_a_setting_counts(values):
    assert load(" ".join(f"rl.env_steps={value}" for value in values)).rl.env_steps == int(values[1])


def test_profile_beats_defaults_and_overrides_beat_the_profile(tmp_path, monkeypatch):
    project(tmp_path, monkeypatch, GOOD + "taxi:\n  rl: {env_steps: 123, clip: 0.2}\n")
    run = load("rl.clip=0.3", profile="own")
    assert (run.rl.env_steps, run.rl.clip, run.rl.max_grad_norm) == (123, 0.3, 0.3)


def test_a_variant_may_differ_by_hand_and_by_tuning_which_counts_more(tmp_path, monkeypatch):
    text = "taxi:\n  own: {sft_rl: {rl.clip: 0.4, evaluation.tasks: 3}}\n  tuned: {sft_rl: {rl.clip: 0.3}}\n"
    project(tmp_path, monkeypatch, GOOD + text)
    mine, other = load(profile="own", variant="sft_rl"), load(profile="own")
    assert (mine.rl.clip, mine.evaluation.tasks) == (0.3, 3)
    assert (other.rl.clip, other.evaluation.tasks) == (config.RLConfig().clip, 0)
    assert mine.overrides == ()


def test_an_unknown_variant_or_setting_of_its_own_is_named(tmp_path, monkeypatch):
    project(tmp_path, monkeypatch, GOOD + "taxi:\n  own: {lucky: {rl.clip: 0.4}}\n")
    with pytest.raises(ReflectRLError, match="unknown variant 'lucky'"):
        config.profile("own")
    (tmp_path / "configs" / "own.yaml").write_text(GOOD + "taxi:\n  own: {sft_rl: {rl.clipp: 0.4}}\n")
    with pytest.raises(ReflectRLError, match="unknown setting of rl 'clipp'"):
        load(profile="own", variant="sft_rl")


def test_tuned_settings_belong_to_their_variant_and_beat_the_profile(tmp_path, monkeypatch):
    text = "taxi:\n  rl: {clip: 0.2}\n  tuned: {reflect_rl: {rl.clip: 0.4, policy.steps: 800}}\n"
    project(tmp_path, monkeypatch, GOOD + text)
    tuned, other = load(profile="own"), load(profile="own", variant="sft_rl")
    assert (tuned.rl.clip, tuned.policy.steps) == (0.4, 800)
    assert (other.rl.clip, other.policy.steps) == (0.2, config.SFTConfig().steps)
    assert load("rl.clip=0.1", profile="own").rl.clip == 0.1
    assert tuned.overrides == ()


def test_no_curriculum_has_no_milestones_and_no_stages():
    run, full = load(variant="reflect_rl_no_curriculum"), load(variant="reflect_rl")
    assert (run.rl.milestone, run.rl.pickup, run.rl.dropoff) == (False, 0.0, 0.0)
    assert full.rl.milestone and full.rl.pickup > 0
    assert run.rl.env_steps == full.rl.env_steps


# --- folders ---


def test_overridden_stage_gets_a_folder_of_its_own_and_others_are_shared():
    plain, run = load(), load("rl.entropy=0.5")
    assert plain.stage_profile("rl") == "smoke"
    assert run.stage_profile("rl", "data") == "smoke~rl.entropy=0.5"
    assert run.stage_profile("data", "model") == "smoke"
    assert run.data_dir == plain.data_dir
    assert run.run_dir != plain.run_dir
    assert [run.player_dir(p) for p in ("reflector", "policy")] == [
        plain.player_dir(p) for p in ("reflector", "policy")
    ]


def test_change_of_data_reaches_every_later_folder():
    plain, run = load(), load("data.trajectories=7")
    assert run.data_dir != plain.data_dir and run.run_dir != plain.run_dir
    assert all(run.player_dir(p) != plain.player_dir(p) for p in ("reflector", "policy"))


def test_change_of_one_player_leaves_the_other():
    plain, run = load(), load("policy.steps=7")
    assert run.player_dir("reflector") == plain.player_dir("reflector")
    assert run.player_dir("policy") != plain.player_dir("policy")


def test_folder_names_are_plain_and_short_and_differ():
    long = " ".join(
        f"rl.{key}={value}" for key, value in dict(clip=0.2, entropy=0.3, entropy_end=0.01, replay=5).items()
    )
    slow = load(long + " rl.env_steps=100 rl.learning_rate=1e-4 rl.evaluation_repeats=7")
    slower = load(long + " rl.env_steps=101 rl.learning_rate=1e-4 rl.evaluation_repeats=7")
    names = [run.stage_profile("rl") for run in (slow, slower)]
    assert names[0] != names[1] and max(map(len, names)) < 120
    path = load("model.base=some/where").stage_profile("model")
    assert "/" not in path and path.startswith("smoke~")


def test_seeds_and_variants_have_folders_of_their_own():
    folders = {load(variant=v, seed=s).run_dir for v in config.VARIANTS for s in (0, 1)}
    assert len(folders) == 2 * len(config.VARIANTS)
    assert load().run_dir == paths.home() / "runs" / "smoke" / "taxi" / "reflect_rl" / "seed0"


def test_sections_are_plain_json():
    found = load().sections(*config.DECIDING)
    assert list(found) == [
        *("env", "seed", "data", "model", "reflector", "policy", "rl", "evaluation", "prompted", "teacher")
    ]
    assert json.loads(json.dumps(found))["rl"]["clip"] == 0.1


# --- profiles ---


@pytest.mark.parametrize("name", config.profiles())
def test_every_profile_loads_for_all_it_lists(name):
    found = config.profile(name)
    sections = set(config._read(name)) & set(config.ENVS)  # one that is in no list can be run notebook by notebook
    for env in {*found.envs, *sections}:
        assert env in DOMAINS
        for variant in found.variants_of(env):
            for seed in found.seeds:
                config.load(name, env, variant, seed)


def test_environments_are_those_of_the_registry():
    assert set(config.ENVS) == set(DOMAINS)


def test_laptop_has_at_least_five_seeds_and_every_variant():
    found = config.profile("laptop")
    assert len(set(found.seeds)) >= 5
    assert set(found.variants) == set(config.VARIANTS) - {
        "expert"
    }  # the grid shows all of the taxi: oracle and expert agree


def test_an_environment_may_have_variants_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(config.paths, "configs", lambda: tmp_path)
    text = "envs: [taxi, alfworld]\nseeds: [0]\nvariants: [reflect_rl]\nalfworld: {variants: [reflect_rl, expert]}\n"
    (tmp_path / "mine.yaml").write_text(text)
    found = config.profile("mine")
    assert found.variants_of("taxi") == ("reflect_rl",) and found.variants_of("alfworld") == ("reflect_rl", "expert")
    assert config.load("mine", "alfworld").variant == "reflect_rl"
    for wrong, message in (("[reflect_rl, best]", "unknown variant 'best'"), ("[expert]", "leaves out 'reflect_rl'")):
        (tmp_path / "mine.yaml").write_text(text.replace("[reflect_rl, expert]", wrong))
        with pytest.raises(ReflectRLError, match=message):
            config.profile("mine")


def test_all_trained_variants_of_a_profile_have_the_same_budget():
    budgets = {load(variant=v, profile="laptop").rl.env_steps for v, arm in config.VARIANTS.items() if arm.rl}
    assert len(budgets) == 1


def test_tuning_grid_is_the_same_for_every_variant_on_seeds_of_its_own():
    jobs = config.tuning("laptop")
    by_variant: dict[str, dict[str, list]] = {}
    for env, variant, seed, overrides, slug in jobs:
        by_variant.setdefault(env, {}).setdefault(variant, []).append((seed, overrides))
        run = config.load("laptop", env, variant, seed, overrides)  # every point is a valid setting
        assert run.evaluation.split == "validation"
        assert " " not in slug
    assert set(by_variant) == set(config.profile("laptop").envs)
    for of_env in by_variant.values():
        assert set(of_env) == {v for v, arm in config.VARIANTS.items() if arm.rl} | {"sft_only"}
        grids = list(of_env.values())
        assert all(grid == grids[0] for grid in grids) and len(grids[0]) > 1
    assert not {job[2] for job in jobs} & set(config.profile("laptop").seeds)


def test_one_environment_of_a_profile_can_be_asked_for():
    profile = config.profile("laptop")
    assert config.chosen(profile, "") == ("taxi", "alfworld") and config.chosen(profile, "taxi") == ("taxi",)
    with pytest.raises(ReflectRLError, match="unknown environment 'taxy'; choose one of: taxi, alf"):
        config.chosen(profile, "taxy")


def test_model_names_tell_the_architecture():
    assert load(overrides="model.n_layer=3").model_name == "gpt2-scratch-3x64"
    assert load(overrides="model.n_conv=1 model.n_layer=2").model_name == "lfm2-scratch-1+2x64"


def test_a_grid_of_one_environment_and_none():
    assert {job[0] for job in config.tuning("laptop", "alfworld")} == {"alfworld"}
    with pytest.raises(ReflectRLError, match="profile 'smoke': no tuning grid; add one below `tuning:` in configs/smo"):
        config.tuning("smoke")
    with pytest.raises(ReflectRLError, match="profile 'smoke' and environment 'taxi': no tuning grid"):
        config.tuning("smoke", "taxi")


def chosen_points(table):
    """Settings of the chosen points: {env: {variant: {key: value}}}, without those of the evaluation."""
    points = {}
    for (env, variant), rows in table[table.chosen == 1].groupby(["env", "variant"]):
        (overrides,) = rows.overrides.unique()
        pairs = (item.split("=") for item in overrides.split())
        points.setdefault(env, {})[variant] = {
            key: yaml.safe_load(value) for key, value in pairs if not key.startswith("evaluation.")
        }
    return points


def disagreements(tuned, points):
    """(env, variant) of which the profile's tuned settings are not the chosen point."""
    keys = {(env, variant) for settings in (tuned, points) for env in settings for variant in settings[env]}
    return sorted(k for k in keys if tuned.get(k[0], {}).get(k[1]) != points.get(k[0], {}).get(k[1]))


def test_comparison_of_tuned_settings_notices_a_difference():
    table = pd.DataFrame(
        [
            ["taxi", "reflect_rl", 100, "policy.steps=800 rl.learning_rate=0.001 evaluation.split=validation", 0.9, 1],
            ["taxi", "reflect_rl", 101, "policy.steps=800 rl.learning_rate=0.001 evaluation.split=validation", 0.8, 1],
            ["taxi", "reflect_rl", 100, "policy.steps=200 rl.learning_rate=0.001 evaluation.split=validation", 0.1, 0],
        ],
        columns=["env", "variant", "seed", "overrides", "success", "chosen"],
    )
    points = chosen_points(table)
    assert points == {"taxi": {"reflect_rl": {"policy.steps": 800, "rl.learning_rate": 0.001}}}
    assert disagreements(points, points) == []
    assert disagreements({"taxi": {"reflect_rl": {"policy.steps": 200}}}, points) == [("taxi", "reflect_rl")]
    assert disagreements({}, points) == [("taxi", "reflect_rl")]


@pytest.mark.skipif(not TUNING.exists(), reason="results/laptop/tuning.csv has not been made yet")
def test_tuned_settings_of_laptop_are_the_points_that_tuning_chose():
    raw = yaml.safe_load((paths.configs() / "laptop.yaml").read_text())
    tuned = {env: raw[env]["tuned"] for env in raw["envs"] if "tuned" in raw.get(env, {})}
    assert tuned, "results/laptop/tuning.csv is there, but configs/laptop.yaml has no tuned settings"
    assert disagreements(tuned, chosen_points(pd.read_csv(TUNING))) == []
