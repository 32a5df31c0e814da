import dataclasses
import json
import math

import pytest

from reflect_rl.core.config import (
    DECIDING,
    ClientConfig,
    Config,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    PromptedConfig,
    RLConfig,
    SFTConfig,
    TeacherConfig,
    lora,
)
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.variants import REFERENCES, VARIANTS

INF, NAN = math.inf, math.nan
ODD = {
    DataConfig: {
        "trajectories": (0, -1, 1.5, True, "7", None, 10**20),
        "random_action_probability": (7, -0.1, 1.0001, INF, NAN, True, "often", None, []),
        "negatives": (-1, 2.5, False),
        "horizon": (0, True),
        "sft_examples": (0, INF),
        "tasks": (-1, 0.5),
        "reflections": (-1, 0.5),
        "target": ("expert", None),
        "policy_draw": ("rare", True),
        "policy_examples": (-1, 0.5),
        "validation_tasks": (-1, 0.5),
        "illegal_action_probability": (2, True),
        "wrong_steps": (1, "yes"),
    },
    ModelConfig: {
        "base": (0, None, True),
        "dtype": ("float16", 32, None),
        "quantization": ("2bit", 4),
        "lora": ("big", "0/8/0", "8/16", "8/16/1.5", "8/-1/0", "8/16/nan", 8),
        "start": ("sideways", 1),
        "layers": (-1, True),
        "n_conv": (-1, True),
        "n_layer": (0, 2.0),
        "n_head": (0, 3),
        "d_model": (63, 0, 10**9),
        "context": (1, 24, -96),
        "max_new_tokens": (0, 96, 1000),
        "init_std": (0, -0.02, 2, INF),
        "vocab_size": (0, 257),
        "normalisation": ("mean", 1, None),
        "micro_batch": (-1,),
        "reflection_rows": (-1, 1.5),
    },
    SFTConfig: {
        "steps": (0, -3, "many"),
        "batch_size": (0, 1e3),
        "learning_rate": (0, -1, INF, NAN, 1.5, "fast", True, "3e3", 10**400),
        "warmup_fraction": (-0.1, 1.1),
        "bucket": (-1,),
        "evaluate_every": (0,),
        "good_enough": (0, 1.01),
    },
    RLConfig: {
        "env_steps": (0, -5, 1e5, "1e5"),
        "episodes_per_update": (0,),
        "steps_per_update": (-1,),
        "objective": ("trpo", 1, None),
        "advantage": ("median", ["gae"]),
        "reflector_learning_rate": (-1, 2, NAN),
        "reflector_kl": (-1, INF),
        "epochs": (-1, True, 0.5),
        "minibatches": (-1, 0.5),
        "clip": (-3, 0, 1, INF),
        "learning_rate": (-1, 0, INF),
        "learning_rate_end": (-0.1, 2),
        "entropy": (-0.01, 100, NAN),
        "entropy_end": (-1,),
        "replay": (-1,),
        "group": (0, 1.5),
        "discount": (-0.1, 1.1),
        "gae_lambda": (-0.1, 2),
        "normalise": (1, "yes"),
        "critic_learning_rate": (0, INF),
        "critic_steps": (-1,),
        "kl": (-1, NAN),
        "max_grad_norm": (0, -0.3, INF),
        "milestone": (1, 0, "yes", None),
        "stage_shares": (0.2, [0.8, 0.5], [-0.1], ["much"], [True], "0.2", None),
        "horizon": (0,),
        "evaluate_every": (0,),
        "evaluation_repeats": (0,),
        "checkpoint_every": (0,),
    },
    EvaluationConfig: {
        "split": ("tests", 1),
        "horizons": ([0], [], 20, [15, 1.5], [True], "15", None, [[15]]),
        "repeats": (0,),
        "tasks": (-1,),
    },
    TeacherConfig: {"max_new_tokens": (0,), "tells": ("all", None), "model": (5,)},
    ClientConfig: {"per_minute": (-1, INF), "side_by_side": (0, 5000), "prompt_price": (-0.1,), "key": (None,)},
    PromptedConfig: {"examples": (0, -1), "context": (1, 48), "max_new_tokens": (0, 4096), "dtype": ("int8",)},
}
CASES = [(cls, name, value) for cls, fields in ODD.items() for name, values in fields.items() for value in values]


@pytest.mark.parametrize(("cls", "name", "value"), CASES, ids=lambda part: getattr(part, "__name__", repr(part)[:20]))
def test_an_odd_value_is_one_line_that_names_setting_and_value(cls, name, value):
    for make in (lambda: cls(**{name: value}), lambda: dataclasses.replace(cls(), **{name: value})):
        with pytest.raises(ReflectRLError) as error:
            make()
        message = str(error.value)
        assert "\n" not in message and "pydantic" not in message
        assert name in message


def test_every_setting_is_refused_an_odd_value():
    free = {"revision", "lora_targets", "endpoint", "completion_price"}  # text, or as the one before
    for cls, fields in ODD.items():
        assert {field.name for field in dataclasses.fields(cls)} - fields.keys() - free <= {"model"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RLConfig(clip=-3), "setting rl.clip=-3 should be a number above 0 and below 1"),
        (lambda: RLConfig(learning_rate=INF), "setting rl.learning_rate=inf should be a number above 0 and at most 1"),
        (lambda: RLConfig(env_steps=0), "setting rl.env_steps=0 should be a whole number from 1 on"),
        (lambda: RLConfig(replay=-1), "setting rl.replay=-1 should be a whole number from 0 to 1,000,000"),
        (
            lambda: RLConfig(replay=4, advantage="return"),
            "rl.replay=4 asks a critic what a success was worth; give rl.advantage=gae, or",
        ),
        (lambda: RLConfig(objective="trpo"), "unknown rl.objective 'trpo'; choose one of: pg, ppo"),
        (lambda: RLConfig(100, 0), "setting rl.episodes_per_update=0 should be a whole number from 1 on"),
        (
            lambda: DataConfig(random_action_probability=7),
            "setting data.random_action_probability=7 should be a number",
        ),
        (lambda: EvaluationConfig(horizons=[0]), "setting evaluation.horizons=[0] should be a list of whole numbers"),
        (lambda: ModelConfig(d_model=63), "setting model.d_model=63 should be a multiple of model.n_head=4"),
        (lambda: ModelConfig(d_model=60, n_conv=1), "model.d_model=60 should be an even multiple of model.n_head=4"),
        (lambda: Config("mine", "game", "reflect_rl", -1), "setting seed=-1 should be a whole number from 0 to 4,294"),
        (lambda: Config("mine", "game", "best", 0), "unknown variant 'best'; choose one of: random, oracle"),
    ],
)
def test_the_message_says_the_range(make, message):
    with pytest.raises(ReflectRLError) as error:
        make()
    assert message in str(error.value)


@pytest.mark.parametrize("seed", [True, 1.0, "0", None, 2**32, 12345678901234567890])
def test_a_seed_that_is_none(seed):
    with pytest.raises(ReflectRLError, match="setting seed="):
        Config("mine", "game", "reflect_rl", seed)


def test_numbers_are_read_as_yaml_gives_them():
    rl = RLConfig(learning_rate="3e-3", entropy=1, stage_shares=[0.5, 0, "2e-1"])
    assert (rl.learning_rate, rl.entropy, rl.stage_shares) == (0.003, 1.0, (0.5, 0.0, 0.2))
    assert isinstance(rl.entropy, float) and isinstance(EvaluationConfig(horizons=[10, 12]).horizons, tuple)


def test_edges_of_ranges_are_in_them():
    DataConfig(random_action_probability=0), DataConfig(random_action_probability=1, negatives=0)
    RLConfig(learning_rate=1, learning_rate_end=0, entropy=0, stage_shares=[0.7, 0.2, 0.1])  # sums to 0.99...
    assert Config("mine", "game", "reflect_rl", 2**32 - 1).seed == 2**32 - 1


def test_settings_cannot_be_changed():
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
        RLConfig().clip = 0.3


def test_passes_over_a_batch_follow_from_the_objective():
    assert [(c.epochs, c.minibatches) for c in (RLConfig(objective="pg"), RLConfig())] == [(1, 1), (2, 4)]
    given = RLConfig(objective="ppo", epochs=3)
    assert (given.epochs, given.minibatches) == (3, 4)
    with pytest.raises(ReflectRLError, match="rl.epochs=2 and .*; for more take rl.objective=ppo"):
        RLConfig(objective="pg", epochs=2)


def test_groups_that_compare_nothing_are_refused():
    with pytest.raises(ReflectRLError, match="rl.advantage=rloo compares episodes of one task; give rl.group"):
        RLConfig(advantage="rloo")
    with pytest.raises(ReflectRLError, match="rl.group=3 should be a divisor of rl.episodes_per_update=128"):
        RLConfig(group=3)


@pytest.mark.parametrize("url", ["http://me:word@host/v1", "https://host/v1?key=abc", "https://host/v1#abc"])
def test_an_address_with_a_secret_is_refused_without_repeating_it(url):
    for cls in (TeacherConfig, PromptedConfig):
        with pytest.raises(ReflectRLError) as error:
            cls(model="m", endpoint=url)
        assert "at host has a user" in str(error.value) and "abc" not in str(error.value)


def test_a_teacher_needs_both_model_and_endpoint():
    with pytest.raises(ReflectRLError, match="needs both"):
        TeacherConfig(model="m")


def test_lora_is_a_name_or_numbers():
    assert dataclasses.astuple(lora("paper")) == (16, 8, 0.0) and dataclasses.astuple(lora("4/8/0.1")) == (4, 8, 0.1)


def test_model_names_tell_the_architecture_or_the_base():
    assert ModelConfig(n_layer=3).name == "gpt2-scratch-3x64"
    assert ModelConfig(n_conv=1).name == "lfm2-scratch-1+2x64"
    assert ModelConfig(base="some/where/m.Q4.gguf").name == "m.Q4.gguf"
    names = {variant: Config("mine", "game", variant, 0).model_name for variant in VARIANTS}
    assert {v for v, name in names.items() if not name} == {"random", "oracle", "expert", *REFERENCES}
    assert names["follow"] == names["rl_only"] == "gpt2-scratch-2x64" and names["prompted"] == "smollm2-135m"


def test_sections_are_plain_json_with_what_decides_of_the_teacher():
    run = Config("mine", "game", "reflect_rl", 3)
    found = run.sections(*DECIDING)
    assert [*found] == ["env", "seed", *DECIDING] and "client" not in found
    assert json.loads(json.dumps(found))["rl"]["clip"] == 0.2
    written = dataclasses.replace(run, teacher=TeacherConfig(model="m", endpoint="http://host/v1"))
    assert written.sections("data")["teacher"]["model"] == "m"
    assert run.sections("data")["teacher"] == {"tells": "action"} and "teacher" not in run.sections("rl")
