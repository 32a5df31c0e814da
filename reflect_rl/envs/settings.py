"""Settings with the environment's share in them: its defaults, what it lacks, and the identity of its code."""

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

from reflect_rl.core import profiles
from reflect_rl.core.config import Config, DataConfig
from reflect_rl.core.errors import ReflectRLError, unknown
from reflect_rl.core.identity import code_of_objects
from reflect_rl.core.profiles import Profile
from reflect_rl.core.variants import VARIANTS
from reflect_rl.envs import registry
from reflect_rl.envs.base import EnvSpec

STAGE_SHARE = 0.1  # of the budget, for each easier stage of an environment that does not say
FUNCTIONS = ("make", "tasks", "first_tasks", "expert_action", "teacher", "good_actions", "safe_actions", "slips")
FUNCTIONS += ("phase", "oracle_action", "oracle_steps")  # those that decide numbers
VALUES = ("goal", "legend", "settings", "training_setting", "headline", "horizon", "stages", "milestones")
VALUES += ("tokenizer_pattern",)  # and are no settings


def load(
    profile: str = "smoke", env: str = "", variant: str = "reflect_rl", seed: int = 0, overrides: str = ""
) -> Config:
    """The settings of one run: `core.profiles.load` with the defaults of an environment and the hash of its code.

    Args:
        env: an environment's name; by default the first one of the profile.
        variant: a variant's name; of one that is prompted also `prompted:<model>`.
        overrides: such as `rl.learning_rate=1e-3 rl.entropy=0`; they win over everything else.

    Raises:
        ReflectRLError: an unknown profile, environment, variant or setting, a value out of its range, or one that asks
            for what the environment does not have.
    """
    spec = registry.get(env or profiles.profile(profile).envs[0])
    lacking = _lacking(spec, variant)
    if lacking:
        raise ReflectRLError(f"environment {spec.name!r} has no variant {variant!r}: {lacking}; choose another")
    config = profiles.load(profile, spec.name, variant, seed, overrides, defaults(spec), spec_code(spec))
    shares, stages = config.rl.stage_shares, spec.stages
    if shares and len(shares) != len(stages):
        raise ReflectRLError(
            f"setting rl.stage_shares={list(shares)} has {len(shares)} shares, environment {spec.name!r} has "
            f"{len(stages)} easier stages ({', '.join(stages) or 'none'}); give one share each, or []"
        )
    if config.rl.milestone and not spec.milestones:
        raise ReflectRLError(
            f"setting rl.milestone=True, but environment {spec.name!r} has no milestones; leave it out"
        )
    return config


def profile(name: str) -> Profile:
    """The grid of a profile, without the variants that an environment has no use for (`oracle` without an oracle).

    Raises:
        ReflectRLError: an unknown profile, environment or variant.
    """
    found = profiles.profile(name)
    _known(*found.envs)
    variants = {
        env: tuple(v for v in found.variants_of(env) if not _lacking(registry.get(env), v)) for env in found.envs
    }
    return dataclasses.replace(found, own_variants=variants)


def chosen(profile: Profile, env: str) -> tuple[str, ...]:
    """The environments of a profile, or the one of them that is asked for; raises where there is none, or not in it."""
    _known(*((env,) if env else ()))
    return profiles.chosen(profile, env)


def tuning(name: str, env: str = "") -> list[tuple[str, str, int, str, str]]:
    """The tuning grids of a profile: (env, variant, seed, overrides, slug); see `core.profiles.tuning`."""
    _known(*profiles.profile(name).envs, *((env,) if env else ()))
    return profiles.tuning(name, env)


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

    It covers the functions of the spec with the modules that they import, and those of its values that are no settings;
    not the drawing, what was reported, nor the module that holds the spec (unless functions are defined in it).
    """
    functions = [getattr(spec, name) for name in FUNCTIONS if getattr(spec, name) is not None]
    functions += _closed_over(spec.labels.of)
    values = [getattr(spec, name) for name in VALUES] + [spec.labels.names]
    return sha256(f"{code_of_objects(functions)} {values!r}".encode()).hexdigest()[:16]


def _closed_over(function: Callable) -> Iterator[Callable]:
    """A function and those that its closure holds, which may be defined elsewhere."""
    yield function
    for cell in getattr(inspect.unwrap(function), "__closure__", None) or ():
        if callable(cell.cell_contents):
            yield from _closed_over(cell.cell_contents)


def _known(*envs: str) -> None:
    for env in envs:
        if env not in registry.names():
            raise unknown("environment", env, registry.names())


def _lacking(spec: EnvSpec, variant: str) -> str:
    """What an environment lacks that a variant is about; empty where it lacks nothing."""
    if variant == "oracle" and spec.oracle_action is None:
        return "it has no oracle"
    if variant in VARIANTS and not VARIANTS[variant].curriculum and not (spec.stages or spec.milestones):
        return "it has no curriculum (neither stages nor milestones) that could be left out"
    return ""
