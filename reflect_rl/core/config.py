"""Settings: one dataclass a section, every field with its meaning and its range."""

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from reflect_rl.core import ranges
from reflect_rl.core.errors import ReflectRLError, unknown
from reflect_rl.core.variants import VARIANTS, Variant


@ranges.settings("data")
class DataConfig:
    """Stage 0: trajectories and negative examples.

    Attributes:
        trajectories: episodes of the expert mixed with random actions.
        random_action_probability: the `p` of that mixture (the authors' code: 0.9).
        negatives: wrong actions planted, one a trajectory (paper, "negative examples").
        sft_examples: size of each SFT set, drawn so that rare situations are not drowned (`data.balanced`).
        horizon, tasks: steps after which a trajectory is cut; tasks of each training and validation panel, 0 for all.
    """

    trajectories: ranges.Count = 2000
    random_action_probability: ranges.Fraction = 0.5
    negatives: ranges.Natural = 1000
    horizon: ranges.Count = 40
    sft_examples: ranges.Count = 20000
    tasks: ranges.Natural = 0


@ranges.settings("model.lora")
class Lora:
    """Settings of a LoRA adapter (Hu et al. 2021): its update is scaled by alpha / rank."""

    rank: ranges.Count
    alpha: ranges.Count
    dropout: ranges.real(0, 1, below=True)


#: `paper` is what a summary of the paper says, `authors` what their code defaults to.
LORA = {"paper": Lora(16, 8, 0.0), "authors": Lora(64, 16, 0.1)}


def lora(text: str) -> Lora:
    """A name in `LORA`, or `rank/alpha/dropout`."""
    if text in LORA:
        return LORA[text]
    try:
        rank, alpha, dropout = text.split("/")
        return Lora(int(rank), int(alpha), float(dropout))
    except ValueError as error:
        raise unknown("model.lora", text, (*LORA, "rank/alpha/dropout such as 32/64/0.05")) from error


@ranges.settings("model")
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
        micro_batch: prompts that go through a base at a time in RL; 0: by device and memory.
        reflection_rows: prompts that a reflector answers at a time; 0: by device and size.
    """

    base: ranges.Text = ""
    revision: ranges.Text = ""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    quantization: Literal["none", "8bit", "4bit"] = "none"
    lora: ranges.Text = "paper"
    lora_targets: ranges.Text = ""
    n_conv: ranges.whole(0, 1000) = 0
    n_layer: ranges.whole(1, 1000) = 2
    n_head: ranges.whole(1, 1000) = 4
    d_model: ranges.whole(1, 100_000) = 64
    context: ranges.whole(2, 10_000_000) = 96
    max_new_tokens: ranges.Count = 24
    init_std: ranges.real(0, 1, above=True) = 0.02
    vocab_size: ranges.whole(258, 10_000_000) = 1024  # 256 bytes and two special tokens at least
    micro_batch: ranges.Natural = 0
    reflection_rows: ranges.Natural = 0

    def __post_init__(self):
        lora(self.lora)
        width, rest = divmod(self.d_model, self.n_head)
        if rest or (self.n_conv and width % 2):
            times = "an even multiple" if self.n_conv else "a multiple"
            raise ReflectRLError(
                f"setting model.d_model={self.d_model} should be {times} of model.n_head={self.n_head}"
            )
        if self.max_new_tokens >= self.context:
            raise ReflectRLError(
                f"model.max_new_tokens={self.max_new_tokens} should be below model.context={self.context}"
            )

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


@ranges.settings("reflector or policy")
class SFTConfig:
    """Stage 1: supervised warm-up of one player (token-level cross-entropy on the completion).

    Attributes:
        steps: gradient steps (at most, for the reflector).
        warmup_fraction: share of `steps` with a rising learning rate; it falls linearly afterwards.
        bucket: batches among which examples are sorted by length, so that less is padded; 0 leaves them unsorted.
        evaluate_every: reflector only: steps between two measurements of follow success.
        good_enough: reflector only: follow success on validation tasks at which training stops.
    """

    steps: ranges.Count = 200
    batch_size: ranges.Count = 64
    learning_rate: ranges.LearningRate = 5e-3
    warmup_fraction: ranges.Fraction = 0.05
    bucket: ranges.Natural = 0
    evaluate_every: ranges.Count = 200
    good_enough: ranges.real(0, 1, above=True) = 1.0


PASSES = {"pg": (1, 1), "ppo": (4, 2)}  # epochs and minibatches of an objective, unless they are given


@ranges.settings("rl")
class RLConfig:
    """Stage 2: online RL of the policy.

    Attributes:
        env_steps: budget of environment steps, the same for every variant.
        episodes_per_update: episodes that are played as one batch before each update.
        objective: `pg` (policy gradient on the return-to-go) or `ppo` (clipped ratio).
        baseline: `none`, `mean` (of the returns-to-go at the same step of the batch) or `critic`.
        epochs, minibatches: passes over a batch and parts of a pass; 0 becomes the objective's number in `PASSES` (in a
            single pass PPO clips nothing).
        clip: PPO's clipping range (the authors' code: 0.1).
        learning_rate_end: learning rate at the end as a share of `learning_rate` (linear between).
        entropy, entropy_end: coefficient of the entropy bonus at the start and at the end (linear between).
        replay: number of past successful episodes that are mixed into each update; 0 is off. The authors' code replays
            50 of them without off-policy correction; here by an importance weight truncated at 1.
        max_grad_norm: gradient clipping (paper: 0.3).
        milestone: whether the environment's milestone is rewarded in training (evaluation always counts it).
        stage_shares: of the budget, for the environment's easier stages in their order; the full task gets the rest.
        horizon: steps after which an episode of training is cut.
        evaluate_every, evaluation_repeats: updates between two measurements on validation tasks, and sampled episodes
            a task in each.
        checkpoint_every: updates between two checkpoints.
    """

    env_steps: ranges.Count = 100_000
    episodes_per_update: ranges.Count = 128
    objective: Literal["pg", "ppo"] = "pg"
    baseline: Literal["none", "mean", "critic"] = "mean"
    epochs: ranges.whole(0, 1000) = 0
    minibatches: ranges.whole(0, 1000) = 0
    clip: ranges.real(0, 1, above=True, below=True) = 0.1
    learning_rate: ranges.LearningRate = 1e-3
    learning_rate_end: ranges.Fraction = 0.1
    entropy: ranges.real(0, 10) = 0.01
    entropy_end: ranges.real(0, 10) = 0.0
    replay: ranges.whole(0, 1_000_000) = 0
    max_grad_norm: ranges.real(0, 1000, above=True) = 0.3
    milestone: ranges.Flag = True
    stage_shares: ranges.Shares = ()
    horizon: ranges.Count = 20
    evaluate_every: ranges.Count = 10
    evaluation_repeats: ranges.Count = 1
    checkpoint_every: ranges.Count = 10

    def __post_init__(self):
        for name, passes in zip(("epochs", "minibatches"), PASSES[self.objective], strict=True):
            object.__setattr__(self, name, getattr(self, name) or passes)
        if self.objective == "pg" and self.epochs * self.minibatches > 1:
            given = f"rl.epochs={self.epochs} and rl.minibatches={self.minibatches}"
            raise ReflectRLError(f"{given}, but 'pg' makes one pass over a batch; for more take rl.objective=ppo")


@ranges.settings("evaluation")
class EvaluationConfig:
    """Stage 3: fixed panels. Greedy decoding plays each task once, sampled decoding `repeats` times.

    `split` is `test` for results and `validation` for every choice. `tasks` is the number of tasks of each panel that
    are played, 0 for all.
    """

    split: Literal["train", "validation", "test"] = "test"
    horizons: ranges.Counts = (20,)
    repeats: ranges.Count = 10
    tasks: ranges.Natural = 0


def without_secrets(url: str) -> None:
    """Raise ReflectRLError where an endpoint's address holds more than host and path: it is stored with results."""
    parts = urlparse(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ReflectRLError(
            f"the endpoint's address at {parts.hostname} has a user, a password or a query, which results would store; "
            "give host and path alone, and the key in an environment variable"
        )


@ranges.settings("teacher")
class TeacherConfig:
    """Who writes the reflections of the data: the environment's teacher of rules, or a language model.

    Attributes:
        model: empty for rules; else the name that the endpoint knows.
        endpoint: base URL of an OpenAI-compatible server (`ClientConfig` says how it is asked).
        max_new_tokens: longest reflection (paper: 100).
        advice: whether `Next: <action>.` is added in the game's own words, so that a reflection can be followed.
    """

    model: ranges.Text = ""
    endpoint: ranges.Text = ""
    max_new_tokens: ranges.Count = 100
    advice: ranges.Flag = True

    def __post_init__(self):
        if bool(self.model) != bool(self.endpoint):
            raise ReflectRLError("a teacher needs both teacher.model and teacher.endpoint; the rules need neither")
        without_secrets(self.endpoint)


@ranges.settings("client")
class ClientConfig:
    """How an endpoint is asked, as a teacher or as a prompted model. No result depends on it.

    Attributes:
        key: environment variable that holds the key; a server on this machine needs none.
        per_minute: requests a minute at most, 0 for no limit; side_by_side: requests at a time.
        prompt_price, completion_price: of a million tokens, to count the cost.
    """

    key: ranges.Text = "OPENAI_API_KEY"
    per_minute: ranges.real(0, 1e6) = 0.0
    side_by_side: ranges.whole(1, 1000) = 4
    prompt_price: ranges.real(0, 1e6) = 0.0
    completion_price: ranges.real(0, 1e6) = 0.0


@ranges.settings("prompted")
class PromptedConfig:
    """Baselines that are prompted and not trained.

    Attributes:
        model: what `model.base` takes; behind an endpoint the name that it knows. revision, dtype: as of `model.base`.
        endpoint: base URL of an OpenAI-compatible server; empty for a model on this machine.
        examples: worked examples in the prompts of the few-shot variants, from training tasks.
        context, max_new_tokens: longest prompt with its answer, and longest thought, in tokens.
    """

    model: ranges.Text = "smollm2-135m"
    revision: ranges.Text = ""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    endpoint: ranges.Text = ""
    examples: ranges.whole(1, 100) = 3
    context: ranges.whole(2, 10_000_000) = 4096
    max_new_tokens: ranges.Count = 48

    def __post_init__(self):
        if self.max_new_tokens >= self.context:
            raise ReflectRLError(
                f"prompted.max_new_tokens={self.max_new_tokens} should be below prompted.context={self.context}"
            )
        without_secrets(self.endpoint)


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that determines the numbers of one run.

    Attributes:
        overrides: the settings that were given by hand, for display.
        env_code: hash of the environment's code.
        sources: dotted setting -> where its value comes from, for display; those at their default are left out.
    """

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
    client: ClientConfig = field(default_factory=ClientConfig)
    overrides: tuple[tuple[str, Any], ...] = ()
    env_code: str = ""
    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self):
        if self.variant not in VARIANTS:
            raise unknown("variant", self.variant, VARIANTS)
        ranges.in_range("seed", ranges.Seed, self.seed)

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
        """The named sections as plain JSON, with environment and seed; with `data` its teacher, where it is an LM."""
        if "data" in names and self.teacher.model:
            names = (*dict.fromkeys((*names, "teacher")),)
        return {"env": self.env, "seed": self.seed} | {n: dataclasses.asdict(getattr(self, n)) for n in names}


SECTIONS = {f.name: f.type for f in dataclasses.fields(Config) if dataclasses.is_dataclass(f.type)}
DECIDING = tuple(name for name in SECTIONS if name != "client")  # those that results depend on
