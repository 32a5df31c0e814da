"""Profiles: settings in YAML, merged in layers of which the later one wins and says what it replaces."""

import contextlib
import functools
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

import pydantic
import yaml

from reflect_rl.core import paths
from reflect_rl.core.config import SECTIONS, Config
from reflect_rl.core.errors import ReflectRLError, unknown
from reflect_rl.core.ranges import Seed, check
from reflect_rl.core.variants import VARIANTS


def _each_once(values: tuple) -> tuple:
    if not 0 < len(values) == len(set(values)):
        raise ValueError("list at least one, and each once")
    return values


VariantName = Literal[tuple(VARIANTS)]
Variants = Annotated[tuple[VariantName, ...], pydantic.AfterValidator(_each_once)]
Seeds = Annotated[tuple[Seed, ...], pydantic.AfterValidator(_each_once)]
Values = Annotated[dict[str, Annotated[list, pydantic.Field(min_length=1)]], pydantic.Field(min_length=1)]
RegimeName = Annotated[str, pydantic.Field(pattern=r"^[A-Za-z][\w.-]*$")]  # it names files


class Regime(pydantic.BaseModel, extra="forbid"):
    """A named set of dotted settings of an environment; a `grid` of values makes it one regime for each point."""

    settings: dict[str, Any] = {}
    grid: Values | None = None
    variants: Variants | None = None
    seeds: Seeds | None = None
    variant_overrides: dict[VariantName, dict[str, Any]] = {}

    def points(self, name: str) -> Iterator[tuple[str, "Regime"]]:
        """The regime itself or those of its grid, with their names: of `a` with the values 5 and 6 `a-5` and `a-6`."""
        grid = self.grid or {}
        if twice := sorted(self.settings.keys() & grid.keys()):
            raise ValueError(f"regime {name} has {twice[0]} in its settings and in its grid")
        for values in itertools.product(*grid.values()):
            point = dict(zip(grid, values, strict=True))
            full = "-".join([name, *(re.sub(r"[^\w.]+", "-", str(value)).strip("-") for value in values)])
            yield full, self.model_copy(update={"settings": self.settings | point, "grid": None})


class Section(pydantic.BaseModel, extra="allow"):
    """What a profile sets for an environment: a mapping for each section of `Config`, and what is named here."""

    __pydantic_extra__: dict[str, dict[str, Any]]
    variants: Variants | None = None
    variant_overrides: dict[VariantName, dict[str, Any]] = {}
    regimes: Annotated[dict[RegimeName, Regime], pydantic.Field(min_length=1)] = {"": Regime()}

    @pydantic.field_validator("regimes")
    @classmethod
    def _expanded(cls, regimes: dict[str, Regime]) -> dict[str, Regime]:
        found = [point for name, regime in regimes.items() for point in regime.points(name)]
        names = [name for name, _ in found]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two regimes have the name {twice[0]}")
        return dict(found)


class Grid(pydantic.BaseModel, extra="forbid"):
    """What tuning tries for an environment in a regime: `grid` lists the values of dotted settings."""

    variants: Variants
    seeds: Seeds
    grid: Values
    regime: str = ""


Grids = Annotated[
    tuple[Grid, ...], pydantic.BeforeValidator(lambda given: [given] if isinstance(given, dict) else given)
]


@pydantic.dataclasses.dataclass(frozen=True)
class Profile:
    """What a profile runs: environments x regimes x variants x seeds.

    An environment's section may name its variants, and a regime its variants and seeds; the regime `""` is the first one.
    """

    name: str
    envs: Annotated[tuple[str, ...], pydantic.AfterValidator(_each_once)]
    variants: Variants
    seeds: Seeds
    own_variants: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    sections: dict[str, Section] = field(default_factory=dict)
    tuning: dict[str, Grids] = field(default_factory=dict)

    def section(self, env: str) -> Section:
        return self.sections.get(env, Section())

    def regimes_of(self, env: str) -> tuple[str, ...]:
        """The regimes of an environment, of which the first is the default; a single unnamed one where it has none."""
        return tuple(self.section(env).regimes)

    def regime(self, env: str, name: str = "") -> tuple[str, Regime]:
        """A regime and its name, by default the first; raises where the environment has none of this name."""
        known = self.section(env).regimes
        if name and name not in known:
            raise unknown(f"regime of {env}", name, [each or "(it has none: leave it out)" for each in known])
        name = name or next(iter(known))
        return name, known[name]

    def variants_of(self, env: str, regime: str = "") -> tuple[str, ...]:
        """The variants that a regime runs: those of the call, its own, its environment's or the profile's."""
        name, own = self.regime(env, regime)
        return self.own_variants.get((env, name), own.variants or self.section(env).variants or self.variants)

    def seeds_of(self, variant: str, env: str = "", regime: str = "") -> tuple[int, ...]:
        """The seeds of a variant; a model that is prompted and not trained has one."""
        seeds = self.regime(env, regime)[1].seeds or self.seeds
        return seeds[:1] if VARIANTS[variant].prompted else seeds

    def runs_of(self, env: str) -> Iterator[tuple[str, str, int]]:
        """(regime, variant, seed) of every run of an environment."""
        for regime in self.regimes_of(env):
            for variant in self.variants_of(env, regime):
                for seed in self.seeds_of(variant, env, regime):
                    yield regime, variant, seed

    def stem(self, env: str, regime: str) -> str:
        """What the files of a regime's results begin with: the environment, and the regime where there are several."""
        return f"{env}_{regime}" if len(self.regimes_of(env)) > 1 else env


def chosen(profile: Profile, env: str) -> tuple[str, ...]:
    """The environments of a profile, or the one of them that is asked for; raises where the profile lacks it."""
    if env and env not in profile.envs:
        raise unknown("environment", env, profile.envs)
    return (env,) if env else profile.envs


class Loader(yaml.SafeLoader):
    def construct_mapping(self, node, deep=False):
        """Refuse a key that stands twice, of which YAML would take the later one without a word."""
        keys = [key.value for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.YAMLError(f"{twice[0]} twice in the mapping of line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


@contextlib.contextmanager
def errors_in_one_line(file: str, way_out: str = "") -> Iterator[None]:
    """Raises what is wrong with a file's YAML or its content as one ReflectRLError that names the file and the place."""
    try:
        yield
    except yaml.YAMLError as error:
        raise ReflectRLError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])).removeprefix("sections.")
        wrong = first["msg"].partition(" or instance of")[0].replace("tuple", "list").removeprefix("Value error, ")
        if "regimes" in first["loc"] and first["type"] == "extra_forbidden":
            wrong += "; a regime's settings stand below `settings`"
        raise ReflectRLError(f"{', '.join(filter(None, (file, where)))}: {wrong}{way_out}") from error


def _read(name: str) -> Profile:
    known = {path.stem: path for path in sorted(paths.configs().glob("*.yaml")) if path != paths.claims()}
    if name not in known:
        way_out = (
            ""
            if name == paths.claims().stem
            else f"; for one of your own copy configs/template.yaml to configs/{name}.yaml"
        )
        raise ReflectRLError(f"{unknown('profile', name, [other for other in known if other != 'template'])}{way_out}")
    return _parsed(name, known[name].read_bytes())


@functools.cache
def _parsed(name: str, content: bytes) -> Profile:
    with errors_in_one_line(f"configs/{name}.yaml", "; see configs/template.yaml"):
        raw = yaml.load(content, Loader)
        raw = raw if isinstance(raw, dict) else {}
        grid = {key: raw.pop(key) for key in ("envs", "variants", "seeds", "tuning") if key in raw}
        found = Profile(name=name, sections=raw, **grid)
    places: dict[str, dict[str, Any]] = {}
    for env in found.sections:  # also those that no run of the profile reads: a mistake in them would go unseen
        for regime, variant in itertools.product(found.regimes_of(env), VARIANTS):
            own, overridden = _layers(found, env, regime, variant)
            places |= own | overridden
    for place, settings in places.items():
        for key, value in settings.items():
            _checked(place, key, value)
    for env, grids in found.tuning.items():
        for grid in grids:
            found.regime(env, grid.regime)
    return found


def _layers(profile: Profile, env: str, regime: str, variant: str) -> tuple[dict[str, dict[str, Any]], ...]:
    """Dotted settings by the place that gives them: those of a section and its regime, and their overrides of a variant."""
    section, (name, own), where = profile.section(env), profile.regime(env, regime), f"configs/{profile.name}.yaml"
    given = {f"{part}.{key}": value for part, values in section.model_extra.items() for key, value in values.items()}
    of_regime, of_variant = f"{where}, regime {name} of {env}", f"variant_overrides of {variant}"
    return {f"{where}, section {env}": given, of_regime: own.settings}, {
        f"{where}, {of_variant}": section.variant_overrides.get(variant, {}),
        f"{of_regime}, {of_variant}": own.variant_overrides.get(variant, {}),
    }


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
    section = profile.section(env)
    if not (section.model_extra or "" not in section.regimes or "rl.env_steps" in defaults):
        lacking = f"configs/{profile.name}.yaml has no section {env!r} with the settings of that environment"
        raise ReflectRLError(f"{lacking}; write one as in configs/template.yaml, or give it a default for rl.env_steps")


def profile(name: str) -> Profile:
    """The grid of a profile; raises on an unknown name, variant, or environment without a section."""
    found = _read(name)
    for env in found.envs:
        _require_section(found, env, {})
        if any("reflect_rl" not in found.variants_of(env, regime) for regime in found.regimes_of(env)):
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
    regime: str = "",
) -> Config:
    """The settings of one run, in layers of which each wins over those before it.

    They are the dataclasses' defaults, the environment's `defaults`, the profile's section of the environment, those of
    the regime (by default the section's first), what the variant does without, the section's and the regime's
    `variant_overrides`, and `overrides`. Raises ReflectRLError on an unknown profile, regime, variant or setting, and on
    a value out of its range.
    """
    variant, _, model = variant.partition(":")
    if variant not in VARIANTS or (model and not VARIANTS[variant].prompted):
        prompted = [f"{name}:<model>" for name, arm in VARIANTS.items() if arm.prompted]
        raise unknown("variant", f"{variant}:{model}".rstrip(":"), [*VARIANTS, *prompted])
    pairs = tuple(parse(f"{overrides} prompted.model={model}" if model else overrides))
    found = _read(profile)
    _require_section(found, env, defaults or {})
    own, overridden = _layers(found, env, regime, variant)
    arm = VARIANTS[variant]
    without = ({} if arm.milestones else {"rl.milestone": False}) | ({} if arm.stages else {"rl.stage_shares": ()})
    layers = {
        f"the environment {env}": defaults or {},
        **own,
        f"the variant {variant}": without,
        **overridden,
        "override": dict(pairs),
    }
    sections, sources = _merge(layers)
    about = {"overrides": pairs, "env_code": env_code, "regime": found.regime(env, regime)[0], "sources": sources}
    return Config(profile, env, variant, seed, **sections, **about)


def extends() -> bool:  # whether runs that results hold already are taken from there
    return os.environ.get("REFLECT_RL_EXTEND") == "1"


def describe(config: Config) -> list[tuple[str, Any, str]]:
    """What is in force and why: (dotted setting, value, where it comes from) of every setting, in order."""
    settings = {f"{s}.{name}": value for s in SECTIONS for name, value in vars(getattr(config, s)).items()}
    sources = dict.fromkeys(settings, "default")
    sources |= dict.fromkeys(("rl.epochs", "rl.minibatches"), f"default of rl.objective={config.rl.objective}")
    return [(key, value, config.sources.get(key, sources[key])) for key, value in settings.items()]


def tuning(name: str, env: str = "") -> list[tuple[str, str, str, int, str, str]]:
    """The tuning grids of a profile: (env, regime, variant, seed, overrides, slug) of every run; raises without one."""
    found = profile(name)
    grids = {key: grid for key, grid in found.tuning.items() if key in chosen(found, env)}
    if not grids:
        where = f"profile {name!r}" + (f" and environment {env!r}" if env else "")
        raise ReflectRLError(f"{where}: no tuning grid; add one below `tuning:` in configs/{name}.yaml")
    jobs = []
    for env, of in ((env, grid) for env, own in grids.items() for grid in own):
        for variant, seed, point in itertools.product(of.variants, of.seeds, itertools.product(*of.grid.values())):
            settings = [f"{key}={str(value).replace(' ', '')}" for key, value in zip(of.grid, point, strict=True)]
            slug = ",".join(settings).replace("/", "-")  # it names a folder
            jobs.append((env, found.regime(env, of.regime)[0], variant, seed, " ".join(settings), slug))
    return jobs
