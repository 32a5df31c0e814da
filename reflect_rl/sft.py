"""Stage 1: supervised warm-up of the two players with transformers' Trainer, and loading them afterwards."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from peft import PeftModel
from torch.utils.data import Dataset, Subset
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from reflect_rl import data, models, ranks
from reflect_rl.baselines import Follow, Stumble
from reflect_rl.config import Config, SFTConfig
from reflect_rl.envs import domain
from reflect_rl.errors import ReflectRLError
from reflect_rl.players import Encoder, Policy, Reflector, pad
from reflect_rl.prompts import labels_for
from reflect_rl.rollout import play
from reflect_rl.runs import claim, progress, read_csv, read_json, write_csv, write_json

IGNORED = -100
CHECKPOINT_EVERY = 100  # steps at most
LOG_COLUMNS = ["step", "epoch", "loss", "grad_norm", "learning_rate", "eval_follow_success"]
SETS = {"reflect_rl": ("reflector", "policy"), "sft_only": (None, "policy_no_reflection")}
SETS["reflect_rl_no_negatives"] = ("reflector_no_negatives", "policy_no_negatives")


class Pairs(Dataset):
    """Tokenised (prompt, completion) pairs; the loss sees the completion only."""

    def __init__(self, lines: Sequence[dict], encode: Encoder, room: int, end: list[int]):
        """`room` tokens are there for a completion with its `end`; raises ReflectRLError where one needs more."""
        prompts = encode([line["prompt"] for line in lines])
        completions = encode.tokenizer([line["completion"] for line in lines], add_special_tokens=False)["input_ids"]
        self.rows = [(p, c + end) for p, c in zip(prompts, completions, strict=True)]
        longest = max(len(c) for _, c in self.rows)
        if longest > room:
            raise ReflectRLError(
                f"a completion of {longest} tokens exceeds the {room} that a player may write; raise model.max_new_tokens"
            )
        self.pad_id = encode.tokenizer.pad_token_id

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]

    def bucketed(self, config: SFTConfig, rng: np.random.Generator) -> "Subset":
        """All batches of a training run one after the other, each of examples of about one length.

        Shuffled examples are taken in windows of `config.bucket` batches, sorted within, and the batches shuffled.
        """
        lengths = np.array([len(p) + len(c) for p, c in self.rows])
        size, window = config.batch_size, config.batch_size * config.bucket
        wanted = -(-config.steps // config.bucket) * window
        order = np.concatenate([rng.permutation(len(self.rows)) for _ in range(-(-wanted // len(self.rows)))])
        batches = []
        for first in range(0, wanted, window):
            part = order[first : first + window]
            batches.append(rng.permutation(part[np.argsort(lengths[part], kind="stable")].reshape(-1, size)))
        return Subset(self, np.concatenate(batches)[: config.steps].ravel().tolist())

    def collate(self, rows) -> dict[str, torch.Tensor]:
        """`(B, T)` input ids and labels, padded on the right."""
        return {
            "input_ids": pad([p + c for p, c in rows], self.pad_id),
            "labels": pad([[IGNORED] * len(p) + c for p, c in rows], IGNORED),
        }


class _Watch(TrainerCallback):
    """Progress bar, the weights of the best measure, and the end of training once it is good enough."""

    def __init__(self, description: str, steps: int, good_enough: float, keep: Callable[[], None]):
        self.description, self.steps, self.good_enough, self.keep = description, steps, good_enough, keep

    def on_train_begin(self, args, state, control, **kwargs):
        self.bar = progress(None, self.description, total=self.steps, initial=state.global_step, unit="step")

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update()

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        *before, now = _measured(state)  # the measure of now is logged already
        if now > max(before, default=-math.inf):
            self.keep()
        if now >= self.good_enough:
            control.should_training_stop = True

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()


class _Trainer(Trainer):
    """A Trainer whose evaluation plays episodes and whose head sees the completion's positions only."""

    measure: Callable[[], float]

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        targets = inputs["labels"][:, 1:]  # of each position, a run of them in each row
        kept = targets != IGNORED
        first, count = kept.int().argmax(1, keepdim=True), kept.sum(1, keepdim=True)
        place = torch.arange(int(count.max()), device=kept.device)
        asked, real = (first + place).clamp(max=targets.shape[1] - 1), place < count
        hidden = models.hidden_states(model, inputs["input_ids"], asked, use_cache=False)
        logits = models.causal_lm(model).get_output_embeddings()(hidden[real])
        return torch.nn.functional.cross_entropy(logits, targets[kept])

    def evaluate(self, *args, metric_key_prefix="eval", **kwargs):
        metrics = {f"{metric_key_prefix}_follow_success": self.measure()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def _measured(state: TrainerState) -> list[float]:
    return [line["eval_follow_success"] for line in state.log_history if "eval_follow_success" in line]


def _whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint of a Trainer that was written to its end (its state file is written last)."""
    for path in sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]), reverse=True):
        try:
            json.loads((path / "trainer_state.json").read_text())
            return str(path)
        except (OSError, ValueError):
            shutil.rmtree(path, ignore_errors=True)
    return None


def fit(
    model: PreTrainedModel,
    pairs: Pairs,
    config: SFTConfig,
    folder: Path,
    seed: int,
    description: str,
    measure: Callable[[], float] | None = None,
) -> list[dict]:
    """Train `model` in place; returns the Trainer's log. Continues from a checkpoint in `folder`.

    With `measure`, the weights kept are those of the step at which it was best, and training stops early once
    it reaches `config.good_enough`.
    """
    resume = _whole_checkpoint(folder)
    player = model.active_adapter if isinstance(model, PeftModel) else ""
    best = folder / "best.safetensors"
    args = TrainingArguments(
        output_dir=str(folder),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        warmup_steps=round(config.warmup_fraction * config.steps),
        optim="adamw_torch_fused",
        max_grad_norm=1.0,
        logging_steps=min(math.gcd(20, config.evaluate_every), config.steps),
        save_steps=min(config.evaluate_every, CHECKPOINT_EVERY),
        save_total_limit=2,
        eval_strategy="steps" if measure else "no",
        eval_steps=config.evaluate_every,
        seed=seed,
        data_seed=seed,
        train_sampling_strategy="sequential" if config.bucket else "random",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        report_to="none",
    )
    args._n_gpu = min(
        args.n_gpu, 1
    )  # of several GPUs Trainer would make one model each, which forgets whose turn it is
    with models.seeded(seed):
        trainer = _Trainer(
            model=model,
            args=args,
            train_dataset=pairs.bucketed(config, np.random.default_rng([seed, 7])) if config.bucket else pairs,
            eval_dataset=pairs if measure else None,
            data_collator=pairs.collate,
            callbacks=[
                _Watch(description, config.steps, config.good_enough, partial(models.save_weights, model, player, best))
            ],
        )
        trainer.measure = measure
        trainer.remove_callback(PrinterCallback)
        done = resume is not None and TrainerState.load_from_json(f"{resume}/trainer_state.json")
        if done and max(_measured(done), default=-math.inf) >= config.good_enough:
            trainer.state = done  # killed after it was good enough: Trainer itself would go on
        else:
            trainer.train(resume_from_checkpoint=resume)
    if measure is not None:
        models.load_weights(model, player, best)
    model.eval()
    return [line for line in trainer.state.log_history if "loss" in line or "eval_follow_success" in line]


@dataclass
class Pair:
    """The two players of a run; `reflector` is None where the variant has none."""

    policy: Policy
    reflector: Reflector | None


def new_players(config: Config) -> Pair:
    """Untrained players: the models, the tokenizer, and nothing learnt."""
    data.make(config)
    tokenizer = models.load_tokenizer(config.model, config.data_dir / "tokenizer.json")
    built = models.build(config.model, tokenizer, config.seed)
    context = config.model.context
    policy = Policy(built["policy"], tokenizer, context, labels_for(tokenizer, domain(config.env).labels))
    if not config.arm.reflection:
        return Pair(policy, None)
    return Pair(policy, Reflector(built["reflector"], tokenizer, context, config.model.max_new_tokens))


def follow_success(config: Config, reflector: Reflector) -> float:
    """How far obedience to this reflector gets on the *validation* tasks of the full setting.

    Mean of two success rates: from the start, and with a slip (a wrong action that survives) forced on one step
    in ten and time to recover. Reflectors are chosen and training is stopped by it.
    """
    reflector.memory.clear()
    env = domain(config.env)
    tasks = env.tasks("full", "validation", config.data.tasks)
    rates = []
    for agent, horizon in ((Follow(reflector), env.horizon), (Stumble(Follow(reflector), 0.1), 2 * env.horizon)):
        rngs = [np.random.default_rng([config.seed, 2, i]) for i in range(len(tasks))]
        episodes = play(env, agent, tasks, rngs, horizon)
        rates.append(sum(e.success for e in episodes) / len(episodes))
    return sum(rates) / len(rates)


def warm_up(config: Config, policy: bool = True) -> Pair:
    """The players of a variant after their warm-up: trained, or loaded where that was done before.

    With `policy=False` only the reflector is warmed up, for those who need no more.

    Files in `config.player_dir(player)`: `weights.safetensors` and `log.csv`. A variant without warm-up gets
    untrained players.
    """
    players = new_players(config)
    if config.arm.warmup is None:
        return players
    reflector_set, policy_set = SETS[config.arm.warmup]
    if players.reflector is not None:
        measure = partial(follow_success, config, players.reflector)
        _ensure(config, "reflector", players.reflector, reflector_set, measure)
        players.reflector.memory = known_reflections(config)
    if policy:
        _ensure(config, "policy", players.policy, policy_set)
    return players


def known_reflections(config: Config) -> dict[str, str]:
    """What this frozen reflector has been asked so far: prompt -> reflection."""
    path = config.player_dir("reflector") / "reflections.json"
    return read_json(path) if path.exists() else {}


def keep_reflections(config: Config, players: Pair) -> None:
    """Remember the reflections of a run for the next ones; a reflection depends on its prompt alone."""
    if players.reflector is not None and config.arm.warmup is not None:
        folder = config.player_dir("reflector")
        with claim(folder, config.sections("data", "model", "reflector")):
            write_json(folder / "reflections.json", known_reflections(config) | players.reflector.memory)


def training_log(config: Config, player: str) -> pd.DataFrame:
    """The log of a player's warm-up: step, loss, ..., and for the reflector its follow success."""
    return read_csv(config.player_dir(player) / "log.csv")


def _ensure(config: Config, name: str, player: Policy | Reflector, set_name: str, measure=None) -> None:
    """Load a player's weights, or train and save them."""
    folder = config.player_dir(name)
    target = folder / "weights.safetensors"
    with claim(folder, config.sections("data", "model", name)):
        if not target.exists() and ranks.several():
            raise ReflectRLError(f"no warmed-up {name} in {folder}; warm up in one process first (notebook 02)")
        if not target.exists():
            models.activate(player.model, name)
            tokenizer = player.encode.tokenizer
            end, limit = [tokenizer.eos_token_id] if name == "reflector" else [], player.encode.limit
            room = config.model.context - limit
            pairs = Pairs(data.read(config, set_name), Encoder(tokenizer, limit), room, end)
            description = f"{config.arm.warmup} seed {config.seed}: {name} warm-up"
            work = folder / "checkpoints"
            log = fit(player.model, pairs, getattr(config, name), work, config.seed, description, measure)
            write_csv(folder / "log.csv", pd.DataFrame(log).reindex(columns=LOG_COLUMNS))
            models.save_weights(player.model, name, target)
            shutil.rmtree(work, ignore_errors=True)
    models.load_weights(player.model, name, target)
    player.model.eval()
