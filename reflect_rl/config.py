"""Settings: one dataclass a stage, profiles in YAML, variants by name, overrides such as `rl.learning_rate=1e-3`."""

import dataclasses
import itertools
import json
import re
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import yaml

from reflect_rl import paths
from reflect_rl.errors import ReflectRLError, unknown

ENVS = ("taxi", "alfworld")


def _at_least_one(section: str, name: str, value: int) -> None:
    if value < 1:
        raise ReflectRLError(f"setting {section}.{name}={value} should be 1 or more")


@dataclass(frozen=True)
class DataConfig:
    """Stage 0: trajectories and negative examples.

    Attributes:
        trajectories: episodes of the oracle mixed with random actions.
        random_action_probability: the `p` of that mixture (the authors' code: 0.9 for the taxi).
        negatives: wrong actions planted, one a trajectory (paper, "negative examples").
        horizon: steps after which a trajectory is cut.
        sft_examples: size of each SFT set, drawn so that rare situations are not drowned (`data.balanced`).
        tasks: training and validation use so many tasks of each panel; 0 is all.
    """

    trajectories: int = 2000
    random_action_probability: float = 0.5
    negatives: int = 1000
    horizon: int = 40
    sft_examples: int = 20000
    tasks: int = 0


@dataclass(frozen=True)
class Lora:
    """Settings of a LoRA adapter (Hu et al. 2021): its update is scaled by alpha / rank."""

    rank: int
    alpha: int
    dropout: float


#: `paper` is what a summary of the paper says, `authors` what their code defaults to.
LORA = {"paper": Lora(16, 8, 0.0), "authors": Lora(64, 16, 0.1)}


def lora(settings: str) -> Lora:
    """A name in `LORA`, or `rank/alpha/dropout`."""
    if settings in LORA:
        return LORA[settings]
    try:
        rank, alpha, dropout = settings.split("/")
        return Lora(int(rank), int(alpha), float(dropout))
    except ValueError as error:
        raise unknown("model.lora", settings, (*LORA, "rank/alpha/dropout such as 32/64/0.05")) from error


DTYPES = ("auto", "float32", "bfloat16")
QUANTIZATIONS = ("none", "8bit", "4bit")


@dataclass(frozen=True)
class ModelConfig:
    """The language model of a player.

    Attributes:
        base: empty for a model from scratch; else a pretrained causal LM on which each player is a LoRA adapter: a
            name in `pretrained.PACKAGED` (`smollm2-135m`), a folder, a GGUF file, or a hub id.
        revision: of a hub id: a branch, tag or commit.
        dtype: of a base: `float32`, `bfloat16`, or `auto`, which is bfloat16 where the hardware computes in it.
        quantization: of a base: `none`, or `8bit` or `4bit` by bitsandbytes on a GPU.
        lora: a name in `LORA`, or rank, alpha and dropout such as `32/64/0.05`.
        lora_targets: which modules are adapted: `all-linear`, names with commas, or empty for peft's choice.
        n_conv: 0 makes a GPT-2 from scratch; else an LFM2 with so many short convolutions below its attention layers.
            A convolution lets a token see the few before it, so a small model learns sooner to look things up.
        n_layer, n_head, d_model, context: number of attention layers, their heads, their width, and the longest
            prompt with its answer in tokens.
        max_new_tokens: longest reflection in tokens (paper: at most 100).
        init_std: standard deviation of its fresh weights (GPT-2's own is that of a large model).
        vocab_size: largest vocabulary of the tokenizer that is trained for it.
    """

    base: str = ""
    revision: str = ""
    dtype: str = "auto"
    quantization: str = "none"
    lora: str = "paper"
    lora_targets: str = ""
    n_conv: int = 0
    n_layer: int = 2
    n_head: int = 4
    d_model: int = 64
    context: int = 96
    max_new_tokens: int = 24
    init_std: float = 0.02
    vocab_size: int = 1024

    def __post_init__(self):
        for name, choices in (("dtype", DTYPES), ("quantization", QUANTIZATIONS)):
            if getattr(self, name) not in choices:
                raise unknown(f"model.{name}", getattr(self, name), choices)
        lora(self.lora)
        for name in ("n_layer", "n_head", "d_model", "context", "max_new_tokens", "vocab_size"):
            _at_least_one("model", name, getattr(self, name))
        if self.n_conv < 0:
            raise ReflectRLError(f"setting model.n_conv={self.n_conv} should be 0 or more")

    @property
    def name(self) -> str:
        """What stands in tables: a base without its folders, or the architecture from scratch."""
        is_path = self.base and (self.base.lower().endswith(".gguf") or Path(self.base).is_absolute())
        return Path(self.base).name if is_path else self.base or self.architecture

    @property
    def architecture(self) -> str:
        """Of the model from scratch, in a word: `gpt2-scratch-2x64`, `lfm2-scratch-1+1x64`."""
        if self.n_conv:
            return f"lfm2-scratch-{self.n_conv}+{self.n_layer}x{self.d_model}"
        return f"gpt2-scratch-{self.n_layer}x{self.d_model}"


@dataclass(frozen=True)
class SFTConfig:
    """Stage 1: supervised warm-up of one player (token-level cross-entropy on the completion).

    Attributes:
        steps: gradient steps (at most, for the reflector).
        warmup_fraction: share of `steps` with a rising learning rate; it falls linearly afterwards.
        bucket: batches among which examples are sorted by length, so that less is padded; 0 leaves them unsorted.
        evaluate_every: reflector only: steps between two measurements of follow success.
        good_enough: reflector only: follow success on validation tasks at which training stops.
    """

    steps: int = 200
    batch_size: int = 64
    learning_rate: float = 5e-3
    warmup_fraction: float = 0.05
    bucket: int = 0
    evaluate_every: int = 200
    good_enough: float = 1.0

    def __post_init__(self):
        for name in ("steps", "batch_size", "evaluate_every"):
            _at_least_one("reflector or policy", name, getattr(self, name))
        if self.bucket < 0:
            raise ReflectRLError(f"setting bucket={self.bucket} of reflector or policy should be 0 or more")


@dataclass(frozen=True)
class RLConfig:
    """Stage 2: online RL of the policy.

    Attributes:
        env_steps: budget of environment steps, the same for every variant.
        episodes_per_update: episodes rolled out side by side before each update.
        objective: `pg` (policy gradient on the return-to-go) or `ppo` (clipped ratio).
        baseline: `none`, `mean` (of the returns-to-go at the same step of the batch) or `critic`.
        epochs, minibatches: passes over a batch and parts of a pass (1 and 1 for `pg`).
        clip: PPO's clipping range (the authors' code: 0.1).
        entropy, entropy_end: coefficient of the entropy bonus at the start and at the end (linear between).
        learning_rate_end: learning rate at the end as a share of `learning_rate` (linear between).
        replay: number of past successful episodes that are mixed into each update; 0 is off. The authors'
            code replays 50 of them without off-policy correction; here by an importance weight truncated at 1.
        max_grad_norm: gradient clipping (paper: 0.3).
        milestone: whether the first pickup is rewarded in training (evaluation always counts it).
        pickup, dropoff: shares of the budget for these easier stages; the rest trains the full task.
        evaluate_every, evaluation_repeats: updates between two measurements on validation tasks, and
            sampled episodes a task in each.
        checkpoint_every: updates between two checkpoints.
    """

    env_steps: int = 100_000
    episodes_per_update: int = 128
    objective: str = "pg"
    baseline: str = "mean"
    epochs: int = 1
    minibatches: int = 1
    clip: float = 0.1
    learning_rate: float = 1e-3
    learning_rate_end: float = 0.1
    entropy: float = 0.01
    entropy_end: float = 0.0
    replay: int = 0
    max_grad_norm: float = 0.3
    milestone: bool = True
    pickup: float = 0.2
    dropoff: float = 0.1
    horizon: int = 20
    evaluate_every: int = 10
    evaluation_repeats: int = 1
    checkpoint_every: int = 10

    def __post_init__(self):
        if self.objective not in ("pg", "ppo"):
            raise unknown("objective", self.objective, ("pg", "ppo"))
        if self.baseline not in ("none", "mean", "critic"):
            raise unknown("baseline", self.baseline, ("none", "mean", "critic"))
        for name in ("env_steps", "episodes_per_update", "epochs", "minibatches", "horizon", "evaluate_every"):
            _at_least_one("rl", name, getattr(self, name))
        _at_least_one("rl", "checkpoint_every", self.checkpoint_every)
        if self.objective == "pg" and self.epochs * self.minibatches > 1:
            raise ReflectRLError("objective 'pg' makes one pass over a batch; for more epochs take rl.objective=ppo")
        if self.pickup + self.dropoff > 1:
            raise ReflectRLError(f"rl.pickup + rl.dropoff = {self.pickup + self.dropoff} exceeds 1; lower one of them")


@dataclass(frozen=True)
class EvaluationConfig:
    """Stage 3: fixed panels. Greedy decoding plays each task once, sampled decoding `repeats` times.

    `split` is `test` for results and `validation` for every choice. `tasks` is the number of tasks of each panel that
    are played, 0 for all.
    """

    split: str = "test"
    horizons: tuple[int, ...] = (15, 20)
    repeats: int = 10
    tasks: int = 0

    def __post_init__(self):
        if self.split not in ("train", "validation", "test"):
            raise unknown("split", self.split, ("train", "validation", "test"))
        if not self.horizons:
            raise ReflectRLError("evaluation.horizons is empty; give at least one, such as [15,20]")
        _at_least_one("evaluation", "repeats", self.repeats)


def without_secrets(url: str) -> None:
    """Raise ReflectRLError where the address of an endpoint holds more than host and path: it is stored with results."""
    parts = urlparse(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ReflectRLError(
            f"the endpoint's address at {parts.hostname} has a user, a password or a query, which would be stored with "
            "the results; give host and path alone, and the key in an environment variable"
        )


@dataclass(frozen=True)
class TeacherConfig:
    """Who writes the reflections of the data: the environment's teacher of rules, or a language model.

    Attributes:
        model: empty for rules; else the name that the endpoint knows.
        endpoint: base URL of an OpenAI-compatible server (`AskingConfig` says how it is asked).
        max_new_tokens: longest reflection (paper: 100).
        advice: whether `Next: <action>.` is added in the game's own words, so that a reflection can be followed.
    """

    model: str = ""
    endpoint: str = ""
    max_new_tokens: int = 100
    advice: bool = True

    def __post_init__(self):
        if bool(self.model) != bool(self.endpoint):
            raise ReflectRLError("a teacher needs both teacher.model and teacher.endpoint; the rules need neither")
        without_secrets(self.endpoint)


@dataclass(frozen=True)
class AskingConfig:
    """How an endpoint is asked, as a teacher or as a prompted model. No result depends on it, and no folder's name.

    Attributes:
        key: environment variable that holds the key; a server on this machine needs none.
        per_minute: requests a minute at most, 0 for no limit; side_by_side: requests at a time.
        prompt_price, completion_price: of a million tokens, to count the cost.
    """

    key: str = "OPENAI_API_KEY"
    per_minute: float = 0.0
    side_by_side: int = 4
    prompt_price: float = 0.0
    completion_price: float = 0.0

    def __post_init__(self):
        _at_least_one("asking", "side_by_side", self.side_by_side)
        for name in ("per_minute", "prompt_price", "completion_price"):
            if getattr(self, name) < 0:
                raise ReflectRLError(f"setting asking.{name}={getattr(self, name)} should be 0 or more")


@dataclass(frozen=True)
class PromptedConfig:
    """Baselines that are prompted and not trained.

    Attributes:
        model: what `model.base` takes; behind an endpoint the name that it knows. revision, dtype: as of `model.base`.
        endpoint: base URL of an OpenAI-compatible server; empty for a model on this machine.
        examples: worked examples in the prompts of the few-shot variants, from training tasks.
        context, max_new_tokens: longest prompt with its answer, and longest thought, in tokens.
    """

    model: str = "smollm2-135m"
    revision: str = ""
    dtype: str = "auto"
    endpoint: str = ""
    examples: int = 3
    context: int = 4096
    max_new_tokens: int = 48

    def __post_init__(self):
        without_secrets(self.endpoint)


@dataclass(frozen=True)
class Variant:
    """What distinguishes the arms of the comparison.

    Attributes:
        warmup: the variant whose warmed-up players it starts from; None where there is no warm-up.
        reflection: whether the policy reads reflections.
        negatives: whether negative examples enter the SFT sets.
        rl: whether the policy is trained online.
        curriculum: whether RL has milestone rewards and easier stages first.
        prompted: whether it is a language model that is prompted and not trained; few_shot: with worked examples.
    """

    warmup: str | None = None
    reflection: bool = False
    negatives: bool = True
    rl: bool = False
    curriculum: bool = True
    prompted: bool = False
    few_shot: bool = False


VARIANTS = {
    "random": Variant(),
    "oracle": Variant(),
    "expert": Variant(),
    "follow": Variant(warmup="reflect_rl", reflection=True),
    "sft_only": Variant(warmup="sft_only"),
    "rl_only": Variant(rl=True),
    "sft_rl": Variant(warmup="sft_only", rl=True),
    "reflect_rl": Variant(warmup="reflect_rl", reflection=True, rl=True),
    "reflect_rl_no_negatives": Variant("reflect_rl_no_negatives", reflection=True, negatives=False, rl=True),
    "reflect_rl_no_curriculum": Variant("reflect_rl", reflection=True, rl=True, curriculum=False),
    "prompted": Variant(prompted=True),
    "prompted_few_shot": Variant(prompted=True, few_shot=True),
    "prompted_reflection": Variant(prompted=True, reflection=True),
    "prompted_few_shot_reflection": Variant(prompted=True, few_shot=True, reflection=True),
}


def warmup_of(variant: str) -> str | None:
    """The variant whose warm-up a variant starts from, None where it has none."""
    return VARIANTS[variant].warmup


@dataclass(frozen=True)
class Config:
    """Everything that determines the numbers of one run."""

    profile: str
    env: str
    variant: str
    seed: int
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    reflector: SFTConfig = field(default_factory=SFTConfig)
    policy: SFTConfig = field(default_factory=SFTConfig)
    rl: RLConfig = field(default_factory=RLConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    prompted: PromptedConfig = field(default_factory=PromptedConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    asking: AskingConfig = field(default_factory=AskingConfig)
    overrides: tuple[tuple[str, Any], ...] = ()

    @property
    def arm(self) -> Variant:
        return VARIANTS[self.variant]

    def stage_profile(self, *sections: str) -> str:
        """The profile's name, with the overrides that touch these sections: other settings, other folder."""
        touched = [f"{key}={value}" for key, value in self.overrides if key.split(".")[0] in sections]
        if not touched:
            return self.profile
        slug = re.sub(r"[^\w.=,+-]", "_", ",".join(touched))
        return f"{self.profile}~{slug if len(slug) < 100 else sha256(slug.encode()).hexdigest()[:12]}"

    @property
    def data_dir(self) -> Path:
        return paths.data(self.stage_profile("data", "model", "teacher"), self.env, self.seed)

    def player_dir(self, player: str) -> Path:
        """Where a warmed-up player (`reflector` or `policy`) is; variants whose settings for it agree share it."""
        if self.arm.warmup is None:
            raise ReflectRLError(f"variant {self.variant!r} has no warm-up; choose one that has, such as 'reflect_rl'")
        settings = json.dumps(self.sections("data", "model", player), sort_keys=True)
        name = f"{player}-{sha256(settings.encode()).hexdigest()[:8]}"
        return paths.run(self.profile, self.env, self.arm.warmup, self.seed) / "warmup" / name

    @property
    def run_dir(self) -> Path:
        profile = self.stage_profile(*DECIDING)
        return paths.run(profile, self.env, self.variant, self.seed)

    @property
    def model_name(self) -> str:
        """What stands in the `model` column; empty for variants without a language model."""
        if self.variant in ("random", "oracle", "expert"):
            return ""
        return self.prompted_model.name if self.arm.prompted else self.model.name

    @property
    def prompted_model(self) -> ModelConfig:
        """The model of a prompted variant."""
        asked = self.prompted
        return ModelConfig(
            asked.model, asked.revision, asked.dtype, context=asked.context, max_new_tokens=asked.max_new_tokens
        )

    def sections(self, *names: str) -> dict:
        """The named sections as plain JSON, with environment and seed; with `data` its teacher, where it is an LM."""
        if "data" in names and self.teacher.model:
            names = (*dict.fromkeys((*names, "teacher")),)
        return {"env": self.env, "seed": self.seed} | {n: dataclasses.asdict(getattr(self, n)) for n in names}


@dataclass(frozen=True)
class Profile:
    """What a profile runs: environments x variants x seeds. An environment's section may name `variants` of its own."""

    name: str
    envs: tuple[str, ...]
    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    own: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def variants_of(self, env: str) -> tuple[str, ...]:
        return self.own.get(env, self.variants)

    def seeds_of(self, variant: str) -> tuple[int, ...]:
        """The seeds of a variant; a model that is prompted and not trained has one."""
        return self.seeds[:1] if VARIANTS[variant].prompted else self.seeds


def chosen(profile: Profile, env: str) -> tuple[str, ...]:
    """The environments of a profile, or the one of them that is asked for; raises where the profile lacks it."""
    if env and env not in profile.envs:
        raise unknown("environment", env, profile.envs)
    return (env,) if env else profile.envs


SECTIONS = {f.name: f.type for f in dataclasses.fields(Config) if dataclasses.is_dataclass(f.type)}
DECIDING = tuple(name for name in SECTIONS if name != "asking")  # those that results depend on

BY_VARIANT = ("variants", "own", "tuned")  # keys of an environment's settings that are no sections


def profiles() -> list[str]:
    return sorted(path.stem for path in paths.configs().glob("*.yaml"))


def _read(name: str) -> dict:
    path = paths.configs() / f"{name}.yaml"
    if not path.is_file():
        raise unknown("profile", name, profiles())
    try:
        raw = yaml.safe_load(path.read_text()) or {}
        missing = [key for key in ("envs", "variants", "seeds") if key not in raw]
        if missing:
            raise ReflectRLError(f"configs/{name}.yaml lacks {', '.join(missing)}; see configs/smoke.yaml")
        return raw
    except yaml.YAMLError as error:
        raise ReflectRLError(f"configs/{name}.yaml is not valid YAML: {' '.join(str(error).split())}") from error


def profile(name: str) -> Profile:
    """The grid of a profile; raises on an unknown name, environment or variant."""
    raw = _read(name)
    for env in raw["envs"]:
        if env not in ENVS:
            raise unknown("environment", env, ENVS)
    chosen = {env: raw.get(env) or {} for env in raw["envs"]}
    own = {env: tuple(section["variants"]) for env, section in chosen.items() if "variants" in section}
    named = [section.get(key, {}) for section in chosen.values() for key in ("own", "tuned")]
    for variant in itertools.chain(raw["variants"], *own.values(), *named):
        if variant not in VARIANTS:
            raise unknown("variant", variant, VARIANTS)
    if any("reflect_rl" not in variants for variants in (raw["variants"], *own.values())):
        raise ReflectRLError(f"configs/{name}.yaml leaves out 'reflect_rl', which all others are compared with; add it")
    return Profile(name, tuple(raw["envs"]), tuple(raw["variants"]), tuple(raw["seeds"]), own)


def _set(sections: dict[str, dict], key: str, value: Any) -> None:
    """Put one dotted setting into the sections; raises where the project has no such setting."""
    section, _, name = key.partition(".")
    if section not in SECTIONS:
        raise unknown("settings section", section, SECTIONS)
    fields = {f.name: f for f in dataclasses.fields(SECTIONS[section])}
    if name not in fields:
        raise unknown(f"setting of {section}", name, fields)
    default = fields[name].default
    if isinstance(default, tuple) and isinstance(value, list):
        value = tuple(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(default, float) and isinstance(value, str):
        try:  # YAML 1.1 reads 3e-3 as text
            value = float(value)
        except ValueError:
            pass
    if type(value) is not type(default):
        raise ReflectRLError(f"setting {key}={value!r} should be a {type(default).__name__}, such as {default!r}")
    sections.setdefault(section, {})[name] = value


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


def load(profile: str = "smoke", env: str = "taxi", variant: str = "reflect_rl", seed: int = 0, overrides: str = ""):
    """The settings of one run: the dataclasses' defaults, then the profile's, then `overrides`.

    Raises:
        ReflectRLError: an unknown profile, environment, variant or setting, or a value of the wrong type.
    """
    raw = _read(profile)
    if env not in ENVS:
        raise unknown("environment", env, ENVS)
    variant, _, model = variant.partition(":")
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    if model and not VARIANTS[variant].prompted:
        prompted = [name for name, arm in VARIANTS.items() if arm.prompted]
        raise unknown("variant", f"{variant}:{model}", [f"{name}:<model>" for name in prompted])
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ReflectRLError(f"seed {seed!r} is not a whole number from 0 on")
    sections: dict[str, dict] = {}
    chosen = raw.get(env, {})
    settings = [(f"{s}.{name}", value) for s in chosen if s not in BY_VARIANT for name, value in chosen[s].items()]
    if not VARIANTS[variant].curriculum:
        settings += [("rl.milestone", False), ("rl.pickup", 0.0), ("rl.dropoff", 0.0)]
    for key in ("own", "tuned"):
        settings += chosen.get(key, {}).get(variant, {}).items()
    pairs = parse(f"{overrides} prompted.model={model}" if model else overrides)
    for key, value in settings + pairs:
        _set(sections, key, value)
    built = {name: SECTIONS[name](**values) for name, values in sections.items()}
    return Config(profile, env, variant, seed, **built, overrides=tuple(pairs))


def tuning(name: str, env: str = "") -> list[tuple[str, str, int, str, str]]:
    """The tuning grids of a profile: (env, variant, seed, overrides, slug), in an environment the same for each variant.

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
        grid = raw["grid"]
        points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
        for variant, seed, point in itertools.product(raw["variants"], raw["seeds"], points):
            overrides = " ".join(f"{key}={value}" for key, value in point.items())
            jobs.append((env, variant, seed, overrides, overrides.replace(" ", ",")))
    return jobs
