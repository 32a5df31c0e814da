"""Profiles: settings in YAML, merged in layers of which the later one wins and says what it replaces."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from reflect_rl.core import paths
from reflect_rl.core.config import SECTIONS, Config
from reflect_rl.core.errors import ReflectRLError, unknown
from reflect_rl.core.ranges import Seed, check, in_range
from reflect_rl.core.variants import VARIANTS

GRID = ("envs", "variants", "seeds")  # what every profile has
BESIDE_SECTIONS = ("variants", "variant_overrides")  # keys of an environment's section that are no settings
BUDGET = "rl.env_steps"


@dataclass(frozen=True)
class Profile:
    """What a profile runs: environments x variants x seeds. An environment's section may name `variants` of its own."""

    name: str
    envs: tuple[str, ...]
    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    own_variants: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def variants_of(self, env: str) -> tuple[str, ...]:
        return self.own_variants.get(env, self.variants)

    def seeds_of(self, variant: str) -> tuple[int, ...]:
        """The seeds of a variant; a model that is prompted and not trained has one."""
        return self.seeds[:1] if VARIANTS[variant].prompted else self.seeds


def chosen(profile: Profile, env: str) -> tuple[str, ...]:
    """The environments of a profile, or the one of them that is asked for; raises where the profile lacks it."""
    if env and env not in profile.envs:
        raise unknown("environment", env, profile.envs)
    return (env,) if env else profile.envs


def names() -> list[str]:
    """The profiles that there are."""
    return sorted(path.stem for path in paths.configs().glob("*.yaml"))


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would take the later one without a word."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise yaml.YAMLError(
                f"{', '.join(map(str, twice))} twice in the mapping of line {node.start_mark.line + 1}"
            )
        return super().construct_mapping(node, deep)


def _is_list(value: Any, kind: type) -> bool:
    """Whether a value is a list of at least one, all of a kind and none of them twice."""
    return isinstance(value, list) and all(isinstance(v, kind) for v in value) and 0 < len(value) == len({*value})


def _read(name: str) -> dict:
    """A profile as it stands in its file, with everything in the place where it belongs."""
    path = paths.configs() / f"{name}.yaml"
    if not path.is_file():
        raise unknown("profile", name, names())
    return _parsed(name, path.read_bytes())


@functools.cache
def _parsed(name: str, content: bytes) -> dict:
    try:
        raw = yaml.load(content, _Loader) or {}
    except yaml.YAMLError as error:
        raise ReflectRLError(f"configs/{name}.yaml is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ReflectRLError(f"configs/{name}.yaml is no mapping; configs/template.yaml shows what one looks like")
    for key, kind in zip(GRID, (str, str, int), strict=True):
        if not _is_list(raw.get(key), kind):
            raise ReflectRLError(f"configs/{name}.yaml lacks a list of {key}, each once; see configs/template.yaml")
    for env in raw.keys() - {*GRID, "tuning"}:
        _check_shape(f"configs/{name}.yaml, section {env}", raw[env] or {})
    return raw


def _check_shape(where: str, section: Any) -> None:
    """Raise ReflectRLError where an environment's section is not mappings of settings, and lists of variants."""
    parts = section if isinstance(section, dict) else {"": section}
    parts = {key: value for key, value in parts.items() if key != "variants"}
    overrides = parts.get("variant_overrides")
    inner = overrides.values() if isinstance(overrides, dict) else ()
    if not all(isinstance(part, dict) for part in (*parts.values(), *inner)):
        raise ReflectRLError(f"{where} should hold a mapping of settings for each part; see configs/template.yaml")
    if "variants" in section and not _is_list(section["variants"], str):
        raise ReflectRLError(f"{where}: variants should be a list of names, each once")


def _section(raw: dict, name: str, env: str, defaults: Mapping[str, Any]) -> dict:
    """An environment's section of a profile.

    Raises:
        ReflectRLError: there is none, and the environment itself does not say how long to train.
    """
    if not raw.get(env) and BUDGET not in defaults:
        raise ReflectRLError(
            f"configs/{name}.yaml has no section {env!r} with the settings of that environment; write one as in "
            f"configs/template.yaml (or give the environment a default for {BUDGET})"
        )
    return raw.get(env) or {}


def profile(name: str) -> Profile:
    """The grid of a profile; raises on an unknown name, variant, or environment without a section."""
    raw = _read(name)
    for env in raw["envs"]:
        _section(raw, name, env, {})
    sections = {env: raw[env] for env in raw["envs"]}
    own = {env: tuple(section["variants"]) for env, section in sections.items() if "variants" in section}
    overridden = [section.get("variant_overrides", ()) for section in sections.values()]
    for variant in itertools.chain(raw["variants"], *own.values(), *overridden):
        if variant not in VARIANTS:
            raise unknown("variant", variant, VARIANTS)
    for seed in raw["seeds"]:
        in_range("seed", Seed, seed)
    if any("reflect_rl" not in variants for variants in (raw["variants"], *own.values())):
        raise ReflectRLError(f"configs/{name}.yaml leaves out 'reflect_rl', which all others are compared with; add it")
    return Profile(name, tuple(raw["envs"]), tuple(raw["variants"]), tuple(raw["seeds"]), own)


def parse(overrides: str) -> list[tuple[str, Any]]:
    """`rl.learning_rate=1e-3 rl.entropy=0` -> [(key, value), ...], sorted, values read as YAML."""
    pairs = {}
    for item in overrides.split():
        key, equals, value = item.partition("=")
        if not equals:
            raise ReflectRLError(f"override {item!r} is not of the form section.setting=value")
        try:
            pairs[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ReflectRLError(
                f"override {item!r} cannot be read; write lists without spaces: {key}=[1,2]"
            ) from error
    return sorted(pairs.items(), key=lambda pair: pair[0])


class _Layers:
    """Dotted settings, checked one by one; `sources` says of each where it comes from and what it replaces."""

    def __init__(self):
        self.values: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self._places: dict[str, str] = {}

    def put(self, key: str, value: Any, place: str) -> None:
        section, _, name = str(key).partition(".")
        try:
            if section not in SECTIONS:
                raise unknown("settings section", section, SECTIONS)
            value = check(SECTIONS[section], section, name, value)
        except ReflectRLError as error:
            raise ReflectRLError(f"{place}: {error}") from error
        replaced = ""
        if key in self.values and self.values[key] != value:
            replaced = f", instead of {self.values[key]!r} of {self._places[key]}"
        self.values[key], self._places[key], self.sources[key] = value, place, place + replaced

    def build(self) -> dict[str, Any]:
        """The sections as dataclasses."""
        sections: dict[str, dict] = {}
        for key, value in self.values.items():
            section, _, name = key.partition(".")
            sections.setdefault(section, {})[name] = value
        return {name: SECTIONS[name](**values) for name, values in sections.items()}


def load(
    profile: str,
    env: str,
    variant: str = "reflect_rl",
    seed: int = 0,
    overrides: str = "",
    defaults: Mapping[str, Any] | None = None,
    env_code: str = "",
) -> Config:
    """The settings of one run: each layer wins over those before it.

    The layers: the dataclasses' defaults, the environment's `defaults`, the profile's section of the environment, what
    the variant leaves out, the section's `variant_overrides`, `overrides`.

    Raises:
        ReflectRLError: an unknown profile, variant or setting, or a value out of its range.
    """
    raw = _read(profile)
    variant, _, model = variant.partition(":")
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    if model and not VARIANTS[variant].prompted:
        prompted = [name for name, arm in VARIANTS.items() if arm.prompted]
        raise unknown("variant", f"{variant}:{model}", [f"{name}:<model>" for name in prompted])
    section, where = _section(raw, profile, env, defaults or {}), f"configs/{profile}.yaml, section {env}"
    layers = _Layers()
    for key, value in (defaults or {}).items():
        layers.put(key, value, f"the environment {env}")
    for part in (key for key in section if key not in BESIDE_SECTIONS):
        for name, value in section[part].items():
            layers.put(f"{part}.{name}", value, where)
    if not VARIANTS[variant].curriculum:
        layers.put("rl.milestone", False, f"the variant {variant}")
        layers.put("rl.stage_shares", (), f"the variant {variant}")
    for key, value in section.get("variant_overrides", {}).get(variant, {}).items():
        layers.put(key, value, f"configs/{profile}.yaml, variant_overrides of {variant}")
    pairs = tuple(parse(f"{overrides} prompted.model={model}" if model else overrides))
    for key, value in pairs:
        layers.put(key, value, "override")
    built = layers.build()
    return Config(profile, env, variant, seed, **built, overrides=pairs, env_code=env_code, sources=layers.sources)


def describe(config: Config) -> list[tuple[str, Any, str]]:
    """What is in force and why: (dotted setting, value, where it comes from) of every setting, in order."""
    by_objective = dict.fromkeys(("rl.epochs", "rl.minibatches"), f"default of rl.objective={config.rl.objective}")
    rows = []
    for section in SECTIONS:
        for name, value in dataclasses.asdict(getattr(config, section)).items():
            key = f"{section}.{name}"
            rows.append((key, value, config.sources.get(key) or by_objective.get(key, "default")))
    return rows


def tuning(name: str, env: str = "") -> list[tuple[str, str, int, str, str]]:
    """The tuning grids of a profile: (env, variant, seed, overrides, slug) of every run.

    Raises:
        ReflectRLError: there is none, or none of `env`.
    """
    grids = _read(name).get("tuning") or {}
    grids = {key: grid for key, grid in grids.items() if key in chosen(profile(name), env)}
    if not grids:
        where = f"profile {name!r}" + (f" and environment {env!r}" if env else "")
        raise ReflectRLError(f"{where}: no tuning grid; add one below `tuning:` in configs/{name}.yaml")
    jobs = []
    for env, raw in grids.items():
        if not all(raw.get(key) for key in ("variants", "seeds", "grid")):
            raise ReflectRLError(f"configs/{name}.yaml, tuning of {env}: give it variants, seeds and a grid")
        grid = raw["grid"]
        points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
        for variant, seed, point in itertools.product(raw["variants"], raw["seeds"], points):
            overrides = " ".join(f"{key}={str(value).replace(' ', '')}" for key, value in point.items())
            jobs.append((env, variant, seed, overrides, overrides.replace(" ", ",")))
    return jobs
