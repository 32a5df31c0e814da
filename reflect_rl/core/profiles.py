"""Profiles: settings in YAML, merged in layers of which the later one wins and says what it replaces."""

import functools
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

import pydantic
import yaml

from reflect_rl.core import paths
from reflect_rl.core.config import SECTIONS, Config, Seed, check
from reflect_rl.core.errors import ReflectRLError, unknown
from reflect_rl.core.variants import VARIANTS


def _each_once(values: tuple) -> tuple:
    if not 0 < len(values) == len(set(values)):
        raise ValueError("list at least one, and each once")
    return values


VariantName = Literal[tuple(VARIANTS)]
Variants = Annotated[tuple[VariantName, ...], pydantic.AfterValidator(_each_once)]
Seeds = Annotated[tuple[Seed, ...], pydantic.AfterValidator(_each_once)]


class Section(pydantic.BaseModel, extra="allow"):
    """What a profile sets for an environment: a mapping for each section of `Config`, and what is named here."""

    __pydantic_extra__: dict[str, dict[str, Any]]
    variants: Variants | None = None
    variant_overrides: dict[VariantName, dict[str, Any]] = {}


class Grid(pydantic.BaseModel, extra="forbid"):
    """What tuning tries for an environment: `grid` lists the values of dotted settings."""

    variants: Variants
    seeds: Seeds
    grid: Annotated[dict[str, Annotated[list, pydantic.Field(min_length=1)]], pydantic.Field(min_length=1)]


@pydantic.dataclasses.dataclass(frozen=True)
class Profile:
    """What a profile runs: environments x variants x seeds. An environment's section may name `variants` of its own."""

    name: str
    envs: Annotated[tuple[str, ...], pydantic.AfterValidator(_each_once)]
    variants: Variants
    seeds: Seeds
    own_variants: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sections: dict[str, Section] = field(default_factory=dict)
    tuning: dict[str, Grid] = field(default_factory=dict)

    def variants_of(self, env: str) -> tuple[str, ...]:
        own = self.sections[env].variants if env in self.sections else None
        return self.own_variants.get(env, own or self.variants)

    def seeds_of(self, variant: str) -> tuple[int, ...]:
        """The seeds of a variant; a model that is prompted and not trained has one."""
        return self.seeds[:1] if VARIANTS[variant].prompted else self.seeds


def chosen(profile: Profile, env: str) -> tuple[str, ...]:
    """The environments of a profile, or the one of them that is asked for; raises where the profile lacks it."""
    if env and env not in profile.envs:
        raise unknown("environment", env, profile.envs)
    return (env,) if env else profile.envs


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node, deep=False):
        """Refuse a key that stands twice, of which YAML would take the later one without a word."""
        keys = [key.value for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.YAMLError(f"{twice[0]} twice in the mapping of line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


def _read(name: str) -> Profile:
    known = {path.stem: path for path in sorted(paths.configs().glob("*.yaml"))}
    if name not in known:
        raise unknown("profile", name, known)
    return _parsed(name, known[name].read_bytes())


@functools.cache
def _parsed(name: str, content: bytes) -> Profile:
    try:
        raw = yaml.load(content, _Loader)
        raw = raw if isinstance(raw, dict) else {}
        grid = {key: raw.pop(key) for key in ("envs", "variants", "seeds", "tuning") if key in raw}
        found = Profile(name=name, sections=raw, **grid)
    except yaml.YAMLError as error:
        raise ReflectRLError(f"configs/{name}.yaml is not valid YAML: {' '.join(str(error).split())}") from error
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])).removeprefix("sections.")
        wrong = first["msg"].partition(" or instance of")[0].replace("tuple", "list").removeprefix("Value error, ")
        raise ReflectRLError(f"configs/{name}.yaml, {where}: {wrong}; see configs/template.yaml") from error
    for env in found.sections:  # also those that no run of the profile reads: a mistake in them would go unseen
        for place, settings in _layers(found, env).items():
            for key, value in settings.items():
                _checked(place, key, value)
    return found


def _layers(profile: Profile, env: str, variants: Iterable[str] = VARIANTS) -> dict[str, dict[str, Any]]:
    """Dotted settings of an environment's section by the place that gives them: its own, then overrides of variants."""
    section, where = profile.sections.get(env, Section()), f"configs/{profile.name}.yaml"
    own = {f"{part}.{name}": value for part, values in section.model_extra.items() for name, value in values.items()}
    found = {f"{where}, section {env}": own}
    return found | {f"{where}, variant_overrides of {v}": section.variant_overrides.get(v, {}) for v in variants}


def _checked(place: str, key: str, value: Any) -> Any:
    """A dotted setting as its dataclass will hold it; raises, with the place that gives it, where it is none."""
    section, _, name = str(key).partition(".")
    try:
        if section not in SECTIONS:
            raise unknown("settings section", section, SECTIONS)
        if not name:
            raise ReflectRLError(f"{key!r} is a section of settings; name one of them, such as {key}.setting")
        return check(SECTIONS[section], section, name, value)
    except ReflectRLError as error:
        raise ReflectRLError(f"{place}: {error}") from error


def _require_section(profile: Profile, env: str, defaults: Mapping[str, Any]) -> None:
    """Raise where neither a profile's section of an environment nor the environment says how long to train."""
    if not profile.sections.get(env, Section()).model_extra and "rl.env_steps" not in defaults:
        lacking = f"configs/{profile.name}.yaml has no section {env!r} with the settings of that environment"
        raise ReflectRLError(f"{lacking}; write one as in configs/template.yaml, or give it a default for rl.env_steps")


def profile(name: str) -> Profile:
    """The grid of a profile; raises on an unknown name, variant, or environment without a section."""
    found = _read(name)
    for env in found.envs:
        _require_section(found, env, {})
        if "reflect_rl" not in found.variants_of(env):
            raise ReflectRLError(f"configs/{name}.yaml leaves out 'reflect_rl', with which others are compared; add it")
    return found


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
            raise ReflectRLError(f"override {item!r} cannot be read; write lists without spaces: [1,2]") from error
    return sorted(pairs.items(), key=lambda pair: pair[0])


def _merge(layers: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    """Dotted settings by the place that gives them, of which later ones win: the sections, and where each is from."""
    sections: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    places, sources = {}, {}
    for place, settings in layers.items():
        for key, value in settings.items():
            value = _checked(place, key, value)
            section, _, name = key.partition(".")
            before = sections[section].get(name, value)
            sources[key] = place if before == value else f"{place}, instead of {before!r} of {places[key]}"
            places[key], sections[section][name] = place, value
    return {section: SECTIONS[section](**settings) for section, settings in sections.items()}, sources


def load(
    profile: str,
    env: str,
    variant: str = "reflect_rl",
    seed: int = 0,
    overrides: str = "",
    defaults: Mapping[str, Any] | None = None,
    env_code: str = "",
) -> Config:
    """The settings of one run, in layers of which each wins over those before it.

    They are the dataclasses' defaults, the environment's `defaults`, the profile's section of the environment, what the
    variant leaves out, the section's `variant_overrides`, and `overrides`. Raises ReflectRLError on an unknown profile,
    variant or setting, and on a value out of its range.
    """
    variant, _, model = variant.partition(":")
    if variant not in VARIANTS or (model and not VARIANTS[variant].prompted):
        prompted = [f"{name}:<model>" for name, arm in VARIANTS.items() if arm.prompted]
        raise unknown("variant", f"{variant}:{model}".rstrip(":"), [*VARIANTS, *prompted])
    pairs = tuple(parse(f"{overrides} prompted.model={model}" if model else overrides))
    found = _read(profile)
    _require_section(found, env, defaults or {})
    (section, given), *overridden = _layers(found, env, [variant]).items()
    without = {} if VARIANTS[variant].curriculum else {"rl.milestone": False, "rl.stage_shares": ()}
    layers = {
        f"the environment {env}": defaults or {},
        section: given,
        f"the variant {variant}": without,
        **dict(overridden),
        "override": dict(pairs),
    }
    sections, sources = _merge(layers)
    return Config(profile, env, variant, seed, **sections, overrides=pairs, env_code=env_code, sources=sources)


def describe(config: Config) -> list[tuple[str, Any, str]]:
    """What is in force and why: (dotted setting, value, where it comes from) of every setting, in order."""
    settings = {f"{s}.{name}": value for s in SECTIONS for name, value in vars(getattr(config, s)).items()}
    sources = dict.fromkeys(settings, "default")
    sources |= dict.fromkeys(("rl.epochs", "rl.minibatches"), f"default of rl.objective={config.rl.objective}")
    return [(key, value, config.sources.get(key, sources[key])) for key, value in settings.items()]


def tuning(name: str, env: str = "") -> list[tuple[str, str, int, str, str]]:
    """The tuning grids of a profile: (env, variant, seed, overrides, slug) of every run; raises where there is none."""
    found = profile(name)
    grids = {key: grid for key, grid in found.tuning.items() if key in chosen(found, env)}
    if not grids:
        where = f"profile {name!r}" + (f" and environment {env!r}" if env else "")
        raise ReflectRLError(f"{where}: no tuning grid; add one below `tuning:` in configs/{name}.yaml")
    jobs = []
    for env, of in grids.items():
        for variant, seed, point in itertools.product(of.variants, of.seeds, itertools.product(*of.grid.values())):
            settings = [f"{key}={str(value).replace(' ', '')}" for key, value in zip(of.grid, point, strict=True)]
            slug = ",".join(settings).replace("/", "-")  # it names a folder
            jobs.append((env, variant, seed, " ".join(settings), slug))
    return jobs
