"""Released weights: the players of a run, loaded without data and without training."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from train_helpers import load_rl

from reflect_rl.core import paths
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.identity import stage_code, stage_dir
from reflect_rl.envs.registry import get
from reflect_rl.lm import models
from reflect_rl.train import release, rl
from reflect_rl.train.rollout import PlayersAgent, play


@pytest.fixture
def weights(homes, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "weights", lambda: tmp_path / "weights")
    return homes


def test_released_players_play_as_the_trained_ones(weights):
    run, spec = load_rl("reflect_rl"), get("taxi")
    folder = release.release(run)
    trained = rl.train(run)
    weights("elsewhere")
    for path in stage_dir(run, "data").parent.rglob("*"):
        path.unlink() if path.is_file() else None  # nothing but the released files is needed
    loaded = release.released(run)
    for name in models.PLAYERS:
        a, b = (models.weights(getattr(pair, name).model, name) for pair in (trained, loaded))
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    tasks = spec.panel("full", "validation", 4)
    played = [
        play(spec, PlayersAgent(p.policy, p.reflector), tasks, [np.random.default_rng(i) for i in range(4)], 20)
        for p in (trained, loaded)
    ]
    assert played[0] == played[1]
    card = json.loads((folder / "release.json").read_text())
    assert card["code"] == stage_code(run, "rl")
    assert set(card["sha256"]) == {p.name for p in folder.iterdir()} - {"release.json"}


def test_a_variant_without_reflection_has_no_reflector(weights):
    run = load_rl("sft_rl")
    folder = release.release(run)
    assert release.released(run).reflector is None and not (folder / "reflector.safetensors").exists()


def test_regimes_have_weights_of_their_own(weights):
    run = load_rl("reflect_rl")
    limited = dataclasses.replace(run, regime="limited")
    folder = release.release_dir(run)
    assert release.release_dir(limited) == folder.parents[1] / "limited" / folder.parent.name / folder.name
    with pytest.raises(ReflectRLError, match="release --profile .* --regime limited --variant reflect_rl --seed 0"):
        release.released(limited)


def test_what_was_not_released_or_is_damaged_says_so(weights):
    run = load_rl("reflect_rl")
    with pytest.raises(ReflectRLError, match="no released weights .*python -m reflect_rl release"):
        release.released(run)
    folder = release.release(run)
    with pytest.raises(ReflectRLError, match="other settings"):
        release.released(load_rl("reflect_rl", more="rl.entropy=0.5"))
    card = json.loads((folder / "release.json").read_text())
    del card["settings"]["model"]["start"]
    (folder / "release.json").write_text(json.dumps(card))
    release.released(run)  # a setting that came later has its default
    with pytest.raises(ReflectRLError, match="other settings"):
        release.released(load_rl("reflect_rl", more="model.start=lookup"))
    path = folder / "policy.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ReflectRLError, match="policy.safetensors is missing or damaged; .* release .*--seed 0"):
        release.released(run)
    (folder / "release.json").write_text("{}")
    with pytest.raises(ReflectRLError, match="release.json is damaged .*KeyError"):
        release.released(run)
