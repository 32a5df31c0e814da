"""Settings: one dataclass a section, every field with its meaning and its range."""

import dataclasses
import inspect
import os
import re
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from reflect_rl.core.errors import ReflectRLError, unknown
from reflect_rl.core.ranges import (
    Count,
    Counts,
    Flag,
    Fraction,
    LearningRate,
    Mixture,
    Natural,
    Seed,
    Settings,
    Shares,
    Text,
    real,
    whole,
)
from reflect_rl.core.variants import VARIANTS, Variant


class DataConfig(Settings, section="data"):
    """Stage 0: trajectories and negative examples."""

    trajectories: Count = 2000  #: episodes of the expert mixed with random actions
    #: the `p` of that mixture (the authors' code: 0.9); of several each trajectory takes the next one
    random_action_probability: Mixture = (0.5,)
    illegal_action_probability: Fraction = 0.0  #: share of steps with an action that is not legal, which change nothing
    #: whether what trajectories see after wrong actions of their own is a negative example, too (the authors' code)
    wrong_steps: Flag = False
    negatives: Natural = 1000  #: wrong actions planted, one a trajectory (paper, "negative examples")
    #: what the policy imitates: the expert's action, or the one that was executed, often random (the authors' code)
    target: Literal["oracle", "executed"] = "oracle"
    #: of the policy's SFT sets: rare situations more often, or every visit alike (docs/method.md says when)
    policy_draw: Literal["balanced", "visits"] = "balanced"
    #: distinct reflections of an arm, a third of them negative while there are enough; 0: one on every situation
    reflections: Natural = 0
    horizon: Count = 40  #: steps after which a trajectory is cut
    sft_examples: Count = 20000  #: size of each SFT set
    policy_examples: Natural = 0  #: that of the policy's; 0: the same
    tasks: Natural = 0  #: of each training and validation panel; 0 for all
    validation_tasks: Natural = 0  #: of each validation panel; 0: as `tasks`


class Lora(Settings, section="model.lora"):
    """Settings of a LoRA adapter (Hu et al. 2021): its update is scaled by alpha / rank."""

    rank: Count
    alpha: Count
    dropout: real(0, 1, below=True)


LORA = {"paper": "16/8/0", "authors": "64/16/0.1"}  # what a summary of the paper says, and their code's default


def lora(text: str) -> Lora:
    """A name in `LORA`, or `rank/alpha/dropout`."""
    try:
        rank, alpha, dropout = LORA.get(text, text).split("/")
        return Lora(int(rank), int(alpha), float(dropout))
    except ValueError as error:
        raise unknown("model.lora", text, (*LORA, "rank/alpha/dropout such as 32/64/0.05")) from error


class ModelConfig(Settings, section="model"):
    """The language model of a player: from scratch, or a LoRA adapter on a pretrained base."""

    #: empty: from scratch; else a pretrained causal LM: a name in `pretrained.PACKAGED`, folder, GGUF file or hub id
    base: Text = ""
    revision: Text = ""  #: of a hub id: a branch, tag or commit
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  #: of a base; auto: bfloat16 where the hardware has it
    quantization: Literal["none", "8bit", "4bit"] = "none"  #: of a base, by bitsandbytes on a GPU
    lora: Text = "paper"  #: a name in `LORA`, or rank, alpha and dropout such as `32/64/0.05`
    lora_targets: Text = ""  #: which modules are adapted: `all-linear`, names with commas, or empty for peft's choice
    layers: Natural = 0  #: of a base: only its lowest ones, which is quicker; 0: all
    n_conv: whole(0, 1000) = 0  #: 0: a GPT-2; else an LFM2 with so many short convolutions first, which looks up sooner
    n_layer: whole(1, 1000) = 2  #: attention layers
    n_head: whole(1, 1000) = 4  #: their heads
    d_model: whole(1, 100_000) = 64  #: their width
    context: whole(2, 10_000_000) = 96  #: longest prompt with its answer, in tokens
    max_new_tokens: Count = 24  #: longest reflection, or action that is scored, in tokens (paper: at most 100)
    init_std: real(0, 1, above=True) = 0.02  #: standard deviation of fresh weights (0.02: GPT-2's, for a large model)
    start: Literal["random", "lookup"] = "random"  #: `lookup`: an LFM2's attention begins by finding what is alike
    vocab_size: whole(258, 10_000_000) = 1024  #: at most; 256 bytes and two special tokens at least
    #: of an action's likelihood where its text is scored: `sum` is the distribution that SFT trains, others flatten it
    normalisation: Literal["sum", "token", "word"] = "sum"
    micro_batch: Natural = 0  #: prompts that go through a base at a time in training; 0: by device and memory
    reflection_rows: Natural = 0  #: prompts that a reflector answers at a time; 0: by device and size

    def __post_init__(self):
        super().__post_init__()
        lora(self.lora)
        width, rest = divmod(self.d_model, self.n_head)
        if rest or (self.n_conv and width % 2):
            multiple = f"{'an even' if self.n_conv else 'a'} multiple of model.n_head={self.n_head}"
            raise ReflectRLError(f"setting model.d_model={self.d_model} should be {multiple}")
        if self.max_new_tokens >= self.context:
            raise ReflectRLError(f"setting model.max_new_tokens should be below model.context={self.context}")

    @property
    def name(self) -> str:
        """What stands in tables: a base without its folders, or `gpt2-scratch-2x64`, `lfm2-scratch-1+1x64`."""
        if not self.base:
            return f"{f'lfm2-scratch-{self.n_conv}+' if self.n_conv else 'gpt2-scratch-'}{self.n_layer}x{self.d_model}"
        is_path = self.base.lower().endswith(".gguf") or Path(self.base).is_absolute()
        name = Path(self.base).name if is_path else self.base
        return f"{name}, {self.layers} layers" if self.layers else name


class SFTConfig(Settings, section="reflector or policy"):
    """Stage 1: supervised warm-up of one player (token-level cross-entropy on the completion)."""

    steps: Count = 200  #: gradient steps (at most, for the reflector)
    batch_size: Count = 64  #: examples a gradient step
    learning_rate: LearningRate = 5e-3  #: of AdamW, the highest
    warmup_fraction: Fraction = 0.05  #: share of `steps` with a rising learning rate; it falls linearly afterwards
    bucket: Natural = 0  #: batches among which examples are sorted by length, so that less is padded; 0: unsorted
    evaluate_every: Count = 200  #: reflector only: steps between two measurements of follow success
    good_enough: real(0, 1, above=True) = 1.0  #: reflector only: follow success on validation tasks that ends training


PASSES = {"pg": (1, 1), "ppo": (2, 4)}  # epochs and minibatches of an objective, unless they are given
GROUPED = ("rloo", "grpo", "gigpo")  # advantages that compare episodes of one task


class RLConfig(Settings, section="rl"):
    """Stage 2: online RL of the policy."""

    env_steps: Count = 100_000  #: budget of environment steps, the same for every variant
    episodes_per_update: Count = 128  #: played as one batch before each update
    steps_per_update: Natural = 0  #: at least; batches are joined until an update has so many
    group: Count = 1  #: episodes of an update that begin with the same task; `rloo`, `grpo` and `gigpo` compare them
    objective: Literal["pg", "ppo"] = "ppo"  #: policy gradient, or PPO's clipped ratio
    #: of the actions (`train.advantages`): return-to-go, minus the others' mean at that step, by a critic, in groups
    advantage: Literal["return", "leave_one_out", "gae", "rloo", "grpo", "gigpo"] = "gae"
    discount: Fraction = 0.95  #: gamma (paper: none, 1)
    gae_lambda: Fraction = 0.9  #: lambda of generalised advantage estimation
    #: whether advantages get their deviation, or a former, larger one, as unit, and mean 0 where they are not of groups
    normalise: Flag = True
    epochs: whole(0, 1000) = 0  #: passes over a batch (in a single one PPO clips nothing); 0: by objective
    minibatches: whole(0, 1000) = 0  #: parts of a pass; 0: by objective
    clip: real(0, 1, above=True, below=True) = 0.2  #: PPO's clipping range (the authors' code: 0.1)
    learning_rate: LearningRate = 3e-4  #: of Adam, for the policy, at the beginning
    learning_rate_end: Fraction = 0.1  #: at the end, as a share of `learning_rate` (linear between)
    critic_learning_rate: LearningRate = 1e-3  #: of the critic, a network of its own on the policy's hidden state
    critic_steps: Natural = 100  #: in which it is fitted to the first batch, before the first update
    entropy: real(0, 10) = 0.03  #: coefficient of the entropy bonus at the start
    entropy_end: real(0, 10) = 0.0  #: and at the end (linear between)
    kl: real(0, 1000) = 0.0  #: coefficient of the KL divergence to the warmed-up policy
    #: last successes that are imitated in each update as far as they beat the critic (the authors' code: 50, as they are)
    replay: whole(0, 1_000_000) = 0
    #: where the reflector learns online, too (`train.online_reflector`); with 0 it samples and learns nothing
    reflector_learning_rate: Fraction = 1e-4
    reflector_kl: real(0, 1000) = 0.1  #: and the coefficient of its KL divergence a token to the warmed-up reflector
    max_grad_norm: real(0, 1000, above=True) = 0.3  #: gradient clipping (paper: 0.3)
    milestone: Flag = True  #: whether the environment's milestone is rewarded in training (evaluation always counts it)
    stage_shares: Shares = ()  #: of the budget for the easier stages in order, where a variant begins with them
    horizon: Count = 20  #: steps after which an episode of training is cut
    evaluate_every: Count = 10  #: updates between two measurements on validation tasks
    evaluation_repeats: Count = 1  #: sampled episodes a task in each measurement
    checkpoint_every: Count = 10  #: updates between two checkpoints

    def __post_init__(self):
        super().__post_init__()
        if sum(self.stage_shares) > 1 + 1e-9:
            raise ReflectRLError(f"setting rl.stage_shares={list(self.stage_shares)} should sum to at most 1")
        for name, passes in zip(("epochs", "minibatches"), PASSES[self.objective], strict=True):
            object.__setattr__(self, name, getattr(self, name) or passes)
        if self.objective == "pg" and self.epochs * self.minibatches > 1:
            given = f"rl.epochs={self.epochs} and rl.minibatches={self.minibatches}"
            raise ReflectRLError(f"{given}, but 'pg' makes one pass over a batch; for more take rl.objective=ppo")
        if self.episodes_per_update % self.group:
            divisor = f"a divisor of rl.episodes_per_update={self.episodes_per_update}"
            raise ReflectRLError(f"setting rl.group={self.group} should be {divisor}")
        if self.replay and self.advantage != "gae":
            raise ReflectRLError(
                f"rl.replay={self.replay} asks a critic what a success was worth; give rl.advantage=gae, or rl.replay=0"
            )
        if self.advantage in GROUPED and self.group == 1:
            raise ReflectRLError(f"rl.advantage={self.advantage} compares episodes of one task; give rl.group as 8")


class EvaluationConfig(Settings, section="evaluation"):
    """Stage 3: fixed panels. Greedy decoding plays each task once, sampled decoding `repeats` times."""

    split: Literal["train", "validation", "test"] = "test"  #: test for results, validation for every choice
    horizons: Counts = (20,)  #: steps after which an episode is cut; each is a panel of its own
    repeats: Count = 10  #: sampled episodes a task
    tasks: Natural = 0  #: of each panel that are played; 0 for all


def without_secrets(url: str) -> None:
    """Raise ReflectRLError where an endpoint's address holds more than host and path: it is stored with results."""
    parts = urlparse(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        private = f"the endpoint's address at {parts.hostname} has a user, a password or a query, which results store"
        raise ReflectRLError(f"{private}; give host and path alone, and the key in an environment variable")


class TeacherConfig(Settings, section="teacher"):
    """Who writes the reflections of the data: the environment's teacher of rules, or a language model."""

    model: Text = ""  #: empty for rules; else the name that the endpoint knows
    endpoint: Text = ""  #: base URL of an OpenAI-compatible server (`ClientConfig` says how it is asked)
    max_new_tokens: Count = 100  #: longest reflection (paper: 100)
    #: the next action in the game's words (paper, figure 1); verdict, goal, its place and what hinders; or the verdict
    tells: Literal["action", "hint", "verdict"] = "action"

    def __post_init__(self):
        super().__post_init__()
        if bool(self.model) != bool(self.endpoint):
            raise ReflectRLError("a teacher needs both teacher.model and teacher.endpoint; the rules need neither")
        without_secrets(self.endpoint)


class ClientConfig(Settings, section="client"):
    """How an endpoint is asked, as a teacher or as a prompted model. No result depends on it."""

    key: Text = "OPENAI_API_KEY"  #: environment variable that holds the key; a server on this machine needs none
    per_minute: real(0, 1e6) = 0.0  #: requests a minute at most; 0 for no limit
    side_by_side: whole(1, 1000) = 4  #: requests at a time
    prompt_price: real(0, 1e6) = 0.0  #: of a million tokens, to count the cost
    completion_price: real(0, 1e6) = 0.0  #: the same of what it answers


class PromptedConfig(Settings, section="prompted"):
    """Baselines that are prompted and not trained."""

    model: Text = "smollm2-135m"  #: what `model.base` takes; behind an endpoint the name that it knows
    revision: Text = ""  #: as of `model.base`
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  #: as of `model.dtype`
    endpoint: Text = ""  #: base URL of an OpenAI-compatible server; empty for a model on this machine
    examples: whole(1, 100) = 3  #: worked examples in the prompts of the few-shot variants, from training tasks
    context: whole(2, 10_000_000) = 4096  #: longest prompt with its answer, in tokens
    max_new_tokens: Count = 48  #: longest thought, in tokens

    def __post_init__(self):
        super().__post_init__()
        if self.max_new_tokens >= self.context:
            raise ReflectRLError(f"setting prompted.max_new_tokens should be below prompted.context={self.context}")
        without_secrets(self.endpoint)


class Config(Settings, section=""):
    """Everything that determines the numbers of one run."""

    profile: Text
    env: Text
    variant: Literal[tuple(VARIANTS)]
    seed: Seed
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    reflector: SFTConfig = SFTConfig()
    policy: SFTConfig = SFTConfig()
    rl: RLConfig = RLConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    prompted: PromptedConfig = PromptedConfig()
    teacher: TeacherConfig = TeacherConfig()
    client: ClientConfig = ClientConfig()
    overrides: tuple[tuple[str, Any], ...] = ()  #: the settings that were given by hand, for display
    env_code: Text = ""  #: hash of the environment's code
    regime: Text = ""  #: the name of the regime that the settings are of; it decides nothing
    #: dotted setting -> where its value comes from, for display; those at their default are left out
    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def arm(self) -> Variant:
        return VARIANTS[self.variant]

    @property
    def model_name(self) -> str:
        """What stands in the `model` column; empty for variants without a language model."""
        if self.arm.prompted:
            return self.prompted_model.name
        return self.model.name if self.arm.rl or self.arm.warmup else ""

    @property
    def prompted_model(self) -> ModelConfig:
        """The model of a prompted variant."""
        of = self.prompted
        return ModelConfig(of.model, of.revision, of.dtype, context=of.context, max_new_tokens=of.max_new_tokens)

    def sections(self, *names: str) -> dict:
        """The named sections as plain JSON, with environment and seed; with `data` what of its teacher decides."""
        found = {"env": self.env, "seed": self.seed} | {n: dataclasses.asdict(getattr(self, n)) for n in names}
        if "data" in names:
            found["teacher"] = dataclasses.asdict(self.teacher) if self.teacher.model else {"tells": self.teacher.tells}
        return found


SECTIONS = {f.name: f.type for f in dataclasses.fields(Config) if dataclasses.is_dataclass(f.type)}
DECIDING = tuple(name for name in SECTIONS if name != "client")  # those that results depend on


def meanings() -> dict[str, str]:
    """What each dotted setting means: the comment behind it, or the one above it."""
    found = {}
    for section, cls in SECTIONS.items():
        above: list[str] = []
        for line in inspect.getsource(cls).splitlines():
            if setting := re.fullmatch(r"    (\w+): .*?(?:  #: (.*))?", line):
                found[f"{section}.{setting[1]}"] = setting[2] or " ".join(above)
            comment = re.fullmatch(r"    #: (.*)", line)
            above = [*above, comment[1]] if comment else []
    return found


def threads() -> int:
    """Threads that torch computes with: `$REFLECT_RL_THREADS`, else 1. Another number rounds sums differently."""
    text = os.environ.get("REFLECT_RL_THREADS") or "1"
    if not (text.isdecimal() and 1 <= int(text) <= 1024):
        raise ReflectRLError(f"REFLECT_RL_THREADS={text!r} should be a whole number from 1 to 1024")
    return int(text)
