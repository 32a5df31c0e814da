from dataclasses import replace
from pathlib import Path

import pytest
import train_helpers
from train_helpers import Killed, equal

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.identity import stage_dir
from reflect_rl.envs.base import Situation
from reflect_rl.envs.registry import get
from reflect_rl.envs.taxi import env as taxi
from reflect_rl.train import data, warmup

TAXI = get("taxi")
TINY = (
    "model.d_model=32 model.n_layer=1 reflector.steps=4 reflector.evaluate_every=2 policy.steps=6 "
    "policy.evaluate_every=2"
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path / "home"))


def load(variant="sft_only", seed=0, more=""):
    return train_helpers.load(variant, seed, TINY, more)


def files(folder: Path):
    return {name: (folder / name).read_bytes() for name in ("weights.safetensors", "log.csv")}


def test_killed_warm_up_of_a_variant_ends_with_the_same_files(tmp_path, monkeypatch, bars):
    found = {}
    for home in ("whole", "killed"):
        monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path / home))
        if home == "killed":
            bars.die_at = 5
            with pytest.raises(Killed):
                warmup.warm_up(load())
            bars.die_at = None
        warmup.warm_up(load())
        found[home] = files(stage_dir(load(), "policy"))
    assert bars[-1].n - bars[0].n == 0 and len(bars) == 3
    assert found["killed"] == found["whole"]


def test_warm_up_is_done_once_and_then_loaded(home, monkeypatch):
    trained = warmup.warm_up(load())
    monkeypatch.setattr(warmup, "fit", None)
    loaded = warmup.warm_up(load())
    assert equal(trained.policy.model.state_dict(), loaded.policy.model.state_dict())
    assert not loaded.policy.model.training
    assert list(warmup.training_log(load(), "policy")) == warmup.LOG_COLUMNS


def test_variants_with_equal_players_share_their_warm_up(home, monkeypatch):
    monkeypatch.setattr(warmup, "follow_success", lambda *_: 0.0)
    warmup.warm_up(load("reflect_rl"))
    monkeypatch.setattr(warmup, "fit", None)
    for variant in ("follow", "reflect_sft", "reflect_rl_no_milestones"):
        assert warmup.warm_up(load(variant)).reflector is not None


def test_variant_without_warm_up_gets_untrained_players(home, monkeypatch):
    monkeypatch.setattr(warmup, "fit", None)
    players = warmup.warm_up(load("rl_only"))
    assert players.reflector is None
    fresh = warmup.new_players(load("rl_only"))
    assert equal(players.policy.model.state_dict(), fresh.policy.model.state_dict())
    other = warmup.new_players(load("rl_only", seed=1))
    assert not equal(
        {"wpe": players.policy.model.state_dict()["transformer.wpe.weight"]},
        {"wpe": other.policy.model.state_dict()["transformer.wpe.weight"]},
    )


@pytest.mark.parametrize("variant", ["sft_only", "reflect_rl", "reflect_rl_no_negatives"])
def test_each_variant_learns_from_its_own_sets(home, monkeypatch, variant):
    read, used = data.read, []
    monkeypatch.setattr(data, "read", lambda run, name: used.append(name) or read(run, name))
    monkeypatch.setattr(warmup, "follow_success", lambda *_: 0.0)
    warmup.warm_up(load(variant))
    assert (
        used
        == {
            "sft_only": ["policy_no_reflection"],
            "reflect_rl": ["reflector", "policy"],
            "reflect_rl_no_negatives": ["reflector_no_negatives", "policy_no_negatives"],
        }[variant]
    )


@pytest.mark.parametrize("damage", [lambda whole: whole[:100], lambda whole: whole[:-1] + bytes([whole[-1] ^ 1])])
def test_damaged_weights_are_named_and_the_advised_deletion_makes_them_anew(home, damage):
    warmup.warm_up(load())
    path = stage_dir(load(), "policy") / "weights.safetensors"
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    with pytest.raises(ReflectRLError, match="is damaged .*; delete it to train anew") as error:
        warmup.warm_up(load())
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    path.unlink()
    warmup.warm_up(load())
    assert path.read_bytes() == whole


def hint(prompt):
    """The facts of the goal and the walls, all of them right, after a verdict that may be wrong."""
    observation, _, rest = prompt.partition("\nLast: ")
    feedback = "start" if rest.startswith("none") else "right"
    last = "" if feedback == "start" else rest.partition("\n")[0]
    return TAXI.teacher_of("hint")(Situation("", 0, observation, last, feedback, "", taxi.ACTIONS, ""))


def test_facts_are_judged_against_the_teachers_on_validation_tasks(monkeypatch):
    run = load("reflect_sft", more="teacher.tells=hint")
    reflector = Words(hint)
    found = warmup.fact_accuracy(run, reflector)
    assert 0.95 < found < 1  # but for the verdict on the few wrong actions
    starts = {taxi.grid(taxi.parse_task(task)[1], False) for task in TAXI.tasks("full", "validation")}
    assert {prompt[: prompt.index("\nLast")] for prompt in reflector.asked if "Last: none" in prompt} == starts
    assert warmup.fact_accuracy(run, Words(lambda prompt: "")) == 0
    assert 0.2 < warmup.fact_accuracy(run, Words(lambda prompt: hint(prompt).partition(" Walls")[0])) < found


def test_facts_right_by_hand():
    now = Situation("", 0, "", "wait", "wrong", "", ("wait", "go"), "go")
    spec = replace(TAXI, facts=None)
    texts = ["That was bad. Next: go.", "That was bad. Next: wait.", ""]
    right = warmup.facts_right(spec, lambda _: "That was bad. Next: go.", [now] * 3, texts)
    assert right == pytest.approx([1, 2 / 3, 0])


def test_reflectors_that_name_no_action_are_chosen_by_their_facts(home, monkeypatch):
    called = []
    monkeypatch.setattr(warmup, "fact_accuracy", lambda *_: called.append("facts") or 0.5)
    monkeypatch.setattr(warmup, "follow_success", lambda *_: called.append("follow") or 0.5)
    warmup.warm_up(load("reflect_sft", more="teacher.tells=hint"), policy=False)
    assert set(called) == {"facts"}
    warmup.warm_up(load("follow"), policy=False)
    assert set(called) == {"facts", "follow"}


class Words:
    """A reflector that computes its advice from the prompt, `None` for no advice."""

    def __init__(self, advise):
        self.advise, self.memory, self.asked = advise, {}, []

    def reflect(self, prompts):
        self.asked += prompts
        return [self.advise(prompt) for prompt in prompts]


def best(prompt):
    """The oracle's next action, from what the grid says."""
    facts = taxi.describe(prompt[: prompt.index("\nLast")])
    passenger = taxi.ABOARD if facts["aboard"] else "RGYB".index(facts["passenger"])
    env = taxi.DangerousTaxi()
    env.mode = "full"
    env.state = int(taxi._gymnasium_taxi().encode(*facts["taxi"], passenger, "RGYB".index(facts["destination"])))
    return f"Next: {taxi.ACTIONS[TAXI.expert_action(env)]}."


def test_follow_success_is_1_for_the_best_advice_and_0_without_any():
    assert warmup.follow_success(load("follow"), Words(best)) == 1
    assert warmup.follow_success(load("follow"), Words(lambda prompt: "")) == 0


def test_follow_success_plays_all_validation_tasks_and_no_other(monkeypatch):
    played = []
    play = warmup.play
    monkeypatch.setattr(
        warmup, "play", lambda d, a, tasks, *rest: played.append(list(tasks)) or play(d, a, tasks, *rest)
    )
    reflector = Words(lambda prompt: "")
    warmup.follow_success(load("follow"), reflector)
    assert played == [list(TAXI.tasks("full", "validation"))] * 2
    starts = {taxi.grid(taxi.parse_task(task)[1], False) for task in TAXI.tasks("full", "validation")}
    assert {prompt[: prompt.index("\nLast")] for prompt in reflector.asked if "Last: none" in prompt} == starts


def test_follow_success_asks_the_weights_of_now():
    """What was remembered from earlier weights must not be repeated."""
    reflector = Words(best)
    reflector.memory["old"] = "words"
    warmup.follow_success(load("follow"), reflector)
    assert "old" not in reflector.memory
