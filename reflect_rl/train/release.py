"""Released weights: the two trained players of a run, small enough to be committed and loaded in a second."""

import json
import shutil
from dataclasses import fields
from pathlib import Path

from reflect_rl.core import paths
from reflect_rl.core.config import SECTIONS as CLASSES
from reflect_rl.core.config import Config
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.files import digest, read_json, write_json
from reflect_rl.core.identity import stage_code, stage_dir
from reflect_rl.core.runtime import provenance
from reflect_rl.lm.models import PLAYERS, load_weights
from reflect_rl.train import rl
from reflect_rl.train.warmup import PlayerPair, players_with

CARD = "release.json"
SECTIONS = ("data", "model", "reflector", "policy", "rl")


def release_dir(config: Config) -> Path:
    """Where the players of a run are released: `weights/<profile>/<env>/[<regime>/]<variant>/seed<k>/`."""
    return paths.weights() / config.profile / config.env / config.regime / config.variant / f"seed{config.seed}"


def release(config: Config) -> Path:
    """Copy the players of a run, trained now where that has not been done, to `release_dir`; returns the folder.

    Files: the players' weights (safetensors), the tokenizer, and `release.json` with settings, code hash, checksums and
    provenance.

    Raises:
        ReflectRLError: the variant has no online RL, or its model is a pretrained base.
    """
    if config.model.base:
        raise ReflectRLError(f"model.base={config.model.base!r}: adapters are not released, only models from scratch")
    rl.train(config)
    folder = release_dir(config)
    sources = {
        "policy.safetensors": stage_dir(config, "rl") / "policy.safetensors",
        "tokenizer.json": stage_dir(config, "data") / "tokenizer.json",
    }
    if config.arm.reflection:
        warm, trained = stage_dir(config, "reflector") / "weights.safetensors", stage_dir(config, "rl")
        sources["reflector.safetensors"] = trained / "reflector.safetensors" if config.arm.trains_reflector else warm
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in sources.items():
        shutil.copyfile(source, folder / name)
    card = {
        "settings": _settings(config),
        "code": stage_code(config, "rl"),
        "sha256": {name: digest(folder / name) for name in sorted(sources)},
        "provenance": provenance(),
    }
    write_json(folder / CARD, card)
    return folder


def released(config: Config) -> PlayerPair:
    """The released players of a run, without its data and without training; `stale` tells whether their code changed.

    Raises:
        ReflectRLError: none were released with these settings, or a file is damaged.
    """
    folder, named = release_dir(config), ("profile", "env", *["regime"] * bool(config.regime), "variant", "seed")
    again = "python -m reflect_rl release " + " ".join(f"--{name} {getattr(config, name)}" for name in named)
    if not (folder / CARD).is_file():
        there = ", ".join(sorted(path.name for path in folder.parent.glob("seed*"))) or "none"
        raise ReflectRLError(
            f"no released weights in {folder} (there are: {there}); `{again}` trains and releases them"
        )
    try:
        card = read_json(folder / CARD)
        if _with_defaults(card["settings"]) != _settings(config):
            raise ReflectRLError(f"{folder} was released with other settings; drop the overrides, or `{again}`")
        for name, sha256 in card["sha256"].items():
            if not (folder / name).is_file() or digest(folder / name) != sha256:
                raise ReflectRLError(f"{folder / name} is missing or damaged; restore it, or `{again}`")
        players = players_with(config, folder / "tokenizer.json")
        for name in PLAYERS:
            if (player := getattr(players, name)) is not None:
                load_weights(player.model, name, folder / f"{name}.safetensors")
                player.model.eval()
    except (LookupError, TypeError, AttributeError) as error:
        raise ReflectRLError(f"{folder / CARD} is damaged ({error!r}); restore it, or `{again}`") from error
    return players


def _settings(config: Config) -> dict:
    """All that decides the players, as plain JSON."""
    return json.loads(json.dumps(config.sections(*SECTIONS) | {"variant": config.variant}))


def _with_defaults(settings: dict) -> dict:
    """The settings on a card; those that did not exist yet when it was written had what is their default now."""
    defaults = {name: {f.name: f.default for f in fields(CLASSES[name])} for name in SECTIONS}
    return settings | {name: json.loads(json.dumps(of)) | settings[name] for name, of in defaults.items()}
