import json
import random
import shutil
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
import torch
import train_helpers
from train_helpers import contents

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.identity import stage_dir
from reflect_rl.envs.base import Situation
from reflect_rl.envs.labels import IN_ORDER
from reflect_rl.envs.play import advised_action
from reflect_rl.envs.registry import get
from reflect_rl.envs.taxi import env as taxi
from reflect_rl.lm.tokenizers import load_tokenizer
from reflect_rl.train import data

TAXI = get("taxi")


def load(seed=0, more=""):
    return train_helpers.load("reflect_rl", seed, "data.trajectories=80 data.negatives=60", more)


def folder_of(run):
    return stage_dir(run, "data")


def raw_examples(run):
    return [json.loads(line) for line in (folder_of(run) / "examples.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder, manifest, examples and sets of seed 0."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFLECT_RL_HOME", str(tmp_path_factory.mktemp("made")))
        run = load()
        manifest = data.make(run)
        return folder_of(run), manifest, raw_examples(run), {name: data.read(run, name) for name in data.SETS}


@pytest.fixture
def home(tmp_path, monkeypatch, made):
    """A home that holds a copy of the data of seed 0."""
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))
    shutil.copytree(made[0], folder_of(load()))
    return tmp_path


# --- seeds ---


def test_equal_seeds_give_equal_files_and_different_seeds_differ(made, tmp_path, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    data.make(load())
    assert contents(folder_of(load())) == contents(made[0])
    data.make(load(seed=1))
    other = contents(folder_of(load(seed=1)))
    for name, content in contents(made[0]).items():
        if name.endswith(".jsonl"):
            assert other[name] != content, name
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


# --- what is in it ---


def test_no_validation_or_test_start_is_a_start_situation(made):
    train = {taxi.grid(state, False) for state in taxi.starts("full", "train")}
    starts = {e["situation"]["observation"] for e in made[2] if e["situation"]["action_feedback"] == "start"}
    assert len(starts) > 20
    assert starts <= train
    tasks = {e["situation"]["task"] for e in made[2]}
    assert tasks <= set(TAXI.tasks("full", "train"))


def test_positives_follow_no_wrong_action_and_negatives_are_wrong_ones(made):
    kinds = {(e["kind"], e["situation"]["action_feedback"]) for e in made[2]}
    assert kinds == {("positive", "start"), ("positive", "right"), ("negative", "wrong")}
    negatives = [e for e in made[2] if e["kind"] == "negative"]
    assert 30 < len(negatives) <= 60  # one a trajectory: the planted step only
    assert all("was wrong" in e["reflection"] for e in negatives)


def test_sets_have_the_stated_size_and_no_negatives_sets_have_none(made):
    for name, found in made[3].items():
        kinds = {line["kind"] for line in found}
        assert len(found) == 300
        assert kinds == ({"positive"} if "no_negatives" in name else {"positive", "negative"})
        assert set(found[0]) == {"prompt", "completion", "kind"}
        shows_reflection = "Reflection: " in found[0]["prompt"]
        assert shows_reflection == name.startswith("policy") * ("no_reflection" not in name)


def test_completions_are_labels_of_the_best_action_or_reflections(made):
    best = {}
    for e in made[2]:
        s = e["situation"]
        best[s["observation"], s["last_action"] or "none"] = (IN_ORDER.names[s["actions"].index(s["expert_action"])], e)
    for name in ("policy", "policy_no_reflection", "reflector"):
        for line in made[3][name]:
            observation, _, rest = line["prompt"].partition("\nLast: ")
            expected, _ = best[observation, rest.split("\n")[0]]
            if name == "reflector":
                assert line["completion"].startswith((" Starting: ", " Moving ", " Picking ", " Dropping "))
            else:
                assert line["completion"] == f" {expected}"


def test_manifest_has_the_checksums_of_the_files(made):
    folder, manifest, examples, _ = made
    assert manifest == json.loads((folder / "manifest.json").read_text())
    assert set(manifest["sha256"]) == {"examples"}
    for name, checksum in manifest["sha256"].items():
        assert sha256((folder / f"{name}.jsonl").read_bytes()).hexdigest() == checksum
    assert manifest["examples"] == len(examples)
    assert sum(sum(kind.values()) for kind in manifest["balance"].values()) == len(examples)


# --- a limited number of reflections, and what the policy imitates ---


@pytest.fixture(scope="module")
def steps():
    """Free play of seed 0, with the wrong steps of its walk."""
    config = replace(load(more="data.trajectories=400").data, wrong_steps=True, negatives=0)
    return data.play_freely(TAXI, config, np.random.default_rng([0, 1]))


def test_limited_reflections_are_nested_by_kind_and_phase(steps):
    sets = {n: {s.asked: s for s in data.limited(steps, n, np.random.default_rng(0))} for n in (30, 60, 120)}
    assert {n: len(found) for n, found in sets.items()} == {30: 30, 60: 60, 120: 120}
    assert sets[30].keys() < sets[60].keys() < sets[120].keys()
    strata = {(s.kind, s.situation.phase) for s in steps}
    for found in sets.values():
        assert {(s.kind, s.situation.phase) for s in found.values()} == strata and len(strata) > 5
        negatives = sum(s.kind == "negative" for s in found.values())
        assert len(found) / 4 < negatives < len(found) / 2
    assert len(data.limited(steps, 0, np.random.default_rng(0))) == len(steps)
    other = {s.asked for s in data.limited(steps, 30, np.random.default_rng(1))}
    assert other != sets[30].keys()


def test_all_visits_of_a_chosen_situation_are_kept(steps):
    chosen = data.limited(steps, 40, np.random.default_rng(0))
    situations = {s.asked for s in chosen}
    assert len(chosen) == sum(s.asked in situations for s in steps) > 60


def test_teacher_is_asked_once_for_each_of_the_limited_situations(home, monkeypatch):
    asked = []
    teacher = replace(TAXI, teacher=lambda s: asked.append(s) or TAXI.teacher(s))
    monkeypatch.setattr(data, "get", lambda _: teacher)
    run = load(more="data.reflections=24 data.trajectories=200")
    manifest = data.make(run)
    assert manifest["reflections"] == {"all": 24, "no_negatives": 24}
    assert {data.reflections(run, name) for name in data.SETS} == {24}
    assert 24 < len(asked) == len({replace(s, task="", index=0) for s in asked}) <= 32  # a third more without negatives
    for name in data.SETS:
        prompts = {line["prompt"].split("\nReflection")[0].split("\nActions")[0] for line in data.read(run, name)}
        assert len(prompts) <= 24


def test_policy_imitates_what_was_executed(home):
    """Random in half of the steps: the expert's action in .5 + .5 / 6 of the cases, and another one in the rest."""
    more = "data.target=executed data.trajectories=300 data.negatives=0 data.wrong_steps=true data.sft_examples=2000"
    run = load(more=more)
    data.make(run)
    examples = raw_examples(run)
    same = np.mean([e["executed"] == e["situation"]["expert_action"] for e in examples])
    assert 0.53 < same < 0.64
    assert {e["kind"] for e in examples} == {"positive", "negative"}
    allowed = {}
    for e in examples:
        s = e["situation"]
        label = " " + IN_ORDER.names[s["actions"].index(e["executed"])]
        allowed.setdefault((s["observation"], s["last_action"] or "none"), set()).add(label)
    for line in data.read(run, "policy"):
        observation, _, rest = line["prompt"].partition("\nLast: ")
        assert line["completion"] in allowed[observation, rest.split("\n")[0]]
    named = [line["prompt"].split("Next: ")[1].split(".")[0] for line in data.read(run, "policy")]
    taken = [taxi.ACTIONS[IN_ORDER.names.index(x["completion"].strip())] for x in data.read(run, "policy")]
    assert 0.4 < np.mean([a == b for a, b in zip(named, taken, strict=True)]) < 0.75


def test_tokenizer_knows_the_grids_of_free_play_that_no_reflection_was_bought_for(home):
    """So that the unit of a tokenizer does not depend on how many reflections there are."""
    few, all_of_them = load(more="data.reflections=20"), load()
    for run in (few, all_of_them):
        data.make(run)
    vocabularies = [
        load_tokenizer(run.model, folder_of(run) / "tokenizer.json").get_vocab().keys() for run in (few, all_of_them)
    ]
    shared = len(vocabularies[0] & vocabularies[1]) / len(vocabularies[1])
    assert shared > 0.8


def test_what_the_policy_alone_is_given_does_not_reach_the_reflector(home):
    other = load(more="data.target=executed data.policy_draw=visits data.policy_examples=50")
    for stage, alike in (("data", True), ("reflector", True), ("policy", False)):
        assert (stage_dir(other, stage) == stage_dir(load(), stage)) is alike
    for name in data.SETS:
        assert (data.read(other, name) == data.read(load(), name)) is ("reflector" in name)


@pytest.mark.parametrize("tells", ["hint", "verdict"])
def test_reflections_of_less_telling_teachers_name_no_action(home, tells):
    run = load(more=f"teacher.tells={tells}")
    data.make(run)
    assert folder_of(run) != folder_of(load())
    for line in data.read(run, "reflector"):
        assert advised_action(line["completion"], taxi.ACTIONS) is None
        assert line["completion"].startswith((" Starting.", " Moving ", " Picking ", " Dropping "))


def test_unknown_level_of_telling_names_the_way_out(home, monkeypatch):
    monkeypatch.setattr(data, "get", lambda _: replace(TAXI, teachers={}))
    with pytest.raises(
        ReflectRLError, match="no teacher for teacher.tells=hint, only for action; give its EnvSpec one"
    ):
        data.make(load(more="teacher.tells=hint"))


# --- trajectories ---


def env():
    return TAXI.make(horizon=40)


def test_trajectory_without_random_actions_is_the_oracles():
    for task in TAXI.tasks("full", "train")[:20]:
        found = [now for now, _ in data.trajectory(TAXI, env(), task, 0.0, np.random.default_rng(0))]
        assert len(found) == TAXI.oracle_steps(task)
        assert [s.action_feedback for s in found] == ["start"] + ["right"] * (len(found) - 1)
        assert [s.index for s in found] == list(range(len(found)))
        assert [s.last_action for s in found] == ["", *(s.expert_action for s in found[:-1])]


def test_trajectory_with_random_actions_is_shorter_and_has_wrong_ones():
    rng = np.random.default_rng(0)
    found = [[now for now, _ in data.trajectory(TAXI, env(), t, 0.9, rng)] for t in TAXI.tasks("full", "train")[:40]]
    assert sum(map(len, found)) < sum(map(TAXI.oracle_steps, TAXI.tasks("full", "train")[:40]))
    assert {s.action_feedback for steps in found for s in steps} == {"start", "right", "wrong"}


def test_negative_is_survived_wrong_and_recoverable():
    rng = np.random.default_rng(0)
    found = 0
    for task in TAXI.tasks("full", "train"):
        taxi_env = env()
        after = data.negative(TAXI, taxi_env, task, 40, rng)
        if after is None:
            continue
        found += 1
        assert after.action_feedback == "wrong" and 1 <= after.index <= TAXI.oracle_steps(task)
        assert after.observation == taxi_env._observation()
        left, info = 0, {"success": False}
        while not info["success"]:
            _, _, terminated, truncated, info = taxi_env.step(TAXI.expert_action(taxi_env))
            left += 1
            assert info["success"] or not (terminated or truncated)
        assert after.index - 1 + left >= TAXI.oracle_steps(task)  # a step was lost
    assert found > 70


def test_negatives_fall_on_every_part_of_the_way():
    rng = np.random.default_rng(1)
    task = next(t for t in TAXI.tasks("full", "train") if TAXI.oracle_steps(t) == 13)
    places = {n.index for n in (data.negative(TAXI, env(), task, 40, rng) for _ in range(200)) if n is not None}
    assert len(places) >= 10 and min(places) == 1 and max(places) >= 12


def test_rare_situations_are_drawn_more_often_than_they_occur():
    def example(feedback, phase, observation):
        s = Situation("full-1", 0, observation, "", feedback, phase, ("a",), "a")
        return data.Example("positive", s, "", "")

    common = [example("right", "to passenger", str(i)) for i in range(64)]
    rare = [example("right", "at destination", f"d{i}") for i in range(4)]
    chosen = data.balanced(common + rare * 5, 7000, np.random.default_rng(0))  # copies do not count
    share = sum(e.situation.phase == "at destination" for e in chosen) / 7000
    assert share == pytest.approx(2 / (2 + 8), abs=0.02)  # sqrt(4) against sqrt(64)


# --- damage ---


def test_visits_are_drawn_as_they_are_and_each_once_while_there_are_enough():
    examples = [data.Example("positive", None, str(i), "") for i in range(50)]
    drawn = data.visits(examples, 50, np.random.default_rng(0))
    assert sorted(e.executed for e in drawn) == sorted(e.executed for e in examples) and drawn != examples
    assert len(data.visits(examples, 120, np.random.default_rng(0))) == 120


def test_data_is_made_once(home, monkeypatch):
    monkeypatch.setattr(data, "play_freely", None)
    assert data.make(load())["seed"] == 0
    assert len(data.read(load(), "policy")) == 300


def test_data_of_other_settings_gets_a_folder_of_its_own(home):
    assert folder_of(load(more="data.horizon=30")) != folder_of(load())
    assert folder_of(load(more="rl.replay=5")) == folder_of(load())


@pytest.mark.parametrize("damage", ["missing", "changed", "truncated"])
def test_damaged_file_is_named_and_the_advised_deletion_makes_it_anew(home, made, damage):
    folder = folder_of(load())
    path = folder / "examples.jsonl"
    if damage == "missing":
        path.unlink()
    elif damage == "changed":
        path.write_text(path.read_text().replace("wrong", "right", 1))
    else:
        path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ReflectRLError) as error:
        data.read(load(), "policy")
    assert str(path) in str(error.value)
    assert str(error.value).endswith(f"delete {folder} to make the data anew")
    shutil.rmtree(folder)
    assert data.read(load(), "policy") == made[3]["policy"]


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_damaged_tokenizer_is_named_with_the_way_out(home, damage):
    path = folder_of(load()) / "tokenizer.json"
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[:500])
    with pytest.raises(ReflectRLError, match="tokenizer.json"):
        load_tokenizer(load().model, path)


def test_damaged_manifest_is_named_and_the_advised_deletion_makes_it_anew(home):
    folder = folder_of(load())
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ReflectRLError, match="manifest.json cannot be read") as error:
        data.make(load())
    assert f"delete the run folder {folder} " in str(error.value)
    shutil.rmtree(folder)
    assert len(data.read(load(), "policy")) == 300
