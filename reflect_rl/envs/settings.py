"""Settings with the environment's share in them: its defaults, what it lacks, and the identity of its code."""

import dataclasses
from hashlib import sha256
from typing import Any

from reflect_rl.core import profiles
from reflect_rl.core.config import Config, DataConfig
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.identity import code_of_objects
from reflect_rl.core.variants import REFERENCES, VARIANTS
from reflect_rl.envs.base import EnvSpec
from reflect_rl.envs.registry import get

chosen, tuning = profiles.chosen, profiles.tuning  # so that all that asks for settings finds them here
STAGE_SHARE = 0.1  # of the budget, for each easier stage of an environment that does not say
#: Fields of an `EnvSpec` that decide no numbers, or that are settings.
NO_CODE = ("name", "gym_id", "draw", "reported", "reported_on", "task_source", "manifest", "parallel", "labels")
NO_CODE += ("defaults", "claims_horizon", "selection_settings", "strata")


def load(
    profile: str = "smoke",
    env: str = "",
    variant: str = "reflect_rl",
    seed: int = 0,
    overrides: str = "",
    regime: str = "",
) -> Config:
    """The settings of one run: `core.profiles.load` with the defaults of an environment and the hash of its code.

    Args:
        env: an environment's name; by default the first one of the profile.
        variant: a variant's name; of one that is prompted also `prompted:<model>`.
        overrides: such as `rl.learning_rate=1e-3 rl.entropy=0`; they win over everything else.
        regime: one of those of the environment in the profile; by default its first.

    Raises:
        ReflectRLError: an unknown profile, environment, regime, variant or setting, a value out of its range, or one that
            asks for what the environment does not have.
    """
    spec = get(env or profiles.profile(profile).envs[0])
    if lacking := _lacking(profile, spec, variant, overrides, regime):
        raise ReflectRLError(f"environment {spec.name!r} has no variant {variant!r}: {lacking}; choose another")
    config = profiles.load(profile, spec.name, variant, seed, overrides, defaults(spec), spec_code(spec), regime)
    shares = config.rl.stage_shares
    if shares and len(shares) != len(spec.stages):
        stages = f"{len(spec.stages)} easier stages ({', '.join(spec.stages) or 'none'}); give one share each, or []"
        raise ReflectRLError(f"setting rl.stage_shares={list(shares)}, but environment {spec.name!r} has {stages}")
    if config.rl.milestone and not spec.milestones:
        raise ReflectRLError(f"setting rl.milestone=True, but environment {spec.name!r} has none; leave it out")
    return config


def profile(name: str) -> profiles.Profile:
    """What a profile runs, without the variants that an environment or regime has no use for (`oracle` without an oracle).

    Raises:
        ReflectRLError: an unknown profile, environment or variant.
    """
    grid = profiles.profile(name)
    variants = {
        (env, regime): tuple(v for v in grid.variants_of(env, regime) if not _lacking(name, get(env), v, "", regime))
        for env in grid.envs
        for regime in grid.regimes_of(env)
    }
    return dataclasses.replace(grid, own_variants=variants)


def defaults(spec: EnvSpec) -> dict[str, Any]:
    """An environment's default settings by dotted name: what follows from its spec, then what the spec says."""
    derived = {
        "data.horizon": max(DataConfig().horizon, spec.horizon),
        "rl.horizon": spec.horizon,
        "rl.milestone": spec.milestones,
        "rl.stage_shares": (STAGE_SHARE,) * len(spec.stages),
        "evaluation.horizons": tuple(sorted({spec.claims_horizon, spec.horizon})),
    }
    return derived | dict(spec.defaults)


def spec_code(spec: EnvSpec) -> str:
    """Hash of the code that decides an environment's numbers, wherever it was defined.

    It covers the functions of the spec with the modules that they import, and its values; not the fields in `NO_CODE`,
    nor the module that holds the spec (unless functions are defined in it).
    """
    names = [field.name for field in dataclasses.fields(spec) if field.name not in (*NO_CODE, "teachers", "references")]
    fields = {name: getattr(spec, name) for name in names} | vars(spec.labels) | {**spec.teachers, **spec.references}
    functions = [value for value in fields.values() if callable(value)]
    values = {name: value for name, value in fields.items() if not callable(value)}
    return sha256(f"{code_of_objects(functions)} {values}".encode()).hexdigest()[:16]


def _lacking(profile: str, spec: EnvSpec, variant: str, overrides: str, regime: str) -> str:
    """What an environment, or training in a regime of it, lacks that a variant is about; empty where it lacks nothing."""
    if variant == "oracle" and spec.oracle_action is None:
        return "it has no oracle"
    if variant in REFERENCES and variant not in spec.references:
        return f"of references it has {', '.join(spec.references) or 'none'}"
    if variant == "follow":
        found = profiles.load(profile, spec.name, variant, 0, overrides, defaults(spec), regime=regime).teacher
        return "" if found.tells == "action" else f"its reflections give no advice (teacher.tells={found.tells})"
    if variant not in VARIANTS or VARIANTS[variant].milestones and not VARIANTS[variant].stages:
        return ""
    own = variant if VARIANTS[variant].milestones else "reflect_rl"
    found = profiles.load(profile, spec.name, own, 0, overrides, defaults(spec), regime=regime).rl
    if not (VARIANTS[variant].milestones or found.milestone):
        return "training has no milestones that could be left out (rl.milestone is false)"
    if VARIANTS[variant].stages and not found.stage_shares:
        return "training has no easier stages to begin with (rl.stage_shares is empty)"
    return ""
