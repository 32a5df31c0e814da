"""Supervised fine-tuning of one player on (prompt, completion) pairs with transformers' Trainer; resumable."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from torch.utils.data import Dataset, Subset
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from reflect_rl.core.config import SFTConfig
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.runtime import progress
from reflect_rl.lm import models
from reflect_rl.lm.arithmetic import seeded
from reflect_rl.lm.models import pad
from reflect_rl.lm.players import Encoder

IGNORED = -100
CHECKPOINT_EVERY = 100  # steps at most


class Pairs(Dataset):
    """Tokenised (prompt, completion) pairs; the loss sees the completion only."""

    def __init__(self, lines: Sequence[dict], encode: Encoder, room: int, end: list[int]):
        """A completion with its `end` may have `room` tokens; raises ReflectRLError where one has more."""
        prompts = encode([line["prompt"] for line in lines])
        completions = encode.tokenizer([line["completion"] for line in lines], add_special_tokens=False)["input_ids"]
        self.rows = [(p, c + end) for p, c in zip(prompts, completions, strict=True)]
        longest = max(len(c) for _, c in self.rows)
        if longest > room:
            raise ReflectRLError(
                f"a completion of {longest} tokens exceeds the {room} that a player may write; raise "
                "model.max_new_tokens"
            )
        self.pad_id = encode.tokenizer.pad_token_id

    def __len__(self):
        return len(self.rows)

    @property
    def longest(self) -> int:
        """Tokens of the longest pair."""
        return max(len(p) + len(c) for p, c in self.rows)

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


def completion_loss(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean cross-entropy of the completions' tokens of a collated batch; logits are computed at their positions only."""
    targets = inputs["labels"][:, 1:]  # of each position, a run of them in each row
    kept = targets != IGNORED
    first, count = kept.int().argmax(1, keepdim=True), kept.sum(1, keepdim=True)
    place = torch.arange(int(count.max()), device=kept.device)
    positions, real = (first + place).clamp(max=targets.shape[1] - 1), place < count
    hidden = models.hidden_states(model, inputs["input_ids"], positions, use_cache=False)
    logits = models.causal_lm(model).get_output_embeddings()(hidden[real])
    return torch.nn.functional.cross_entropy(logits.float(), targets[kept])  # bfloat16 has three digits


class _Watch(TrainerCallback):
    """Progress bar, early stopping, and keeping the weights at which the measure was best."""

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
    """A Trainer whose evaluation is a measure of its own."""

    measure: Callable[[], float]

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = completion_loss(model, inputs)
        if num_items_in_batch is None or self.args.gradient_accumulation_steps == 1:
            return loss
        return loss * ((inputs["labels"][:, 1:] != IGNORED).sum() / num_items_in_batch)  # of all parts the mean

    def evaluate(self, *args, metric_key_prefix="eval", **kwargs):
        metrics = {f"{metric_key_prefix}_score": self.measure()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def _measured(state: TrainerState) -> list[float]:
    return [line["eval_score"] for line in state.log_history if "eval_score" in line]


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
    rows: int = 0,
) -> list[dict]:
    """Train `model` in place; returns the Trainer's log. Continues from a checkpoint in `folder`.

    A batch goes through the model in equal parts of at most `rows` examples (0: an adapter's as `models.rows_that_fit` says, a
    whole model's at once); the gradient is that of the batch. With `measure`, the weights kept are those of the step at which it
    was best, and training stops early once it reaches `config.good_enough`.
    """
    resume = _whole_checkpoint(folder)
    player = model.active_adapter if isinstance(model, PeftModel) else ""
    best = folder / "best.safetensors"
    if not rows and isinstance(model, PeftModel):
        rows = models.rows_that_fit(model, pairs.longest, config.batch_size, backward=True)
    with seeded(seed):
        trainer = _Trainer(
            model=model,
            args=_arguments(config, folder, seed, measure is not None, rows or config.batch_size),
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
    return [line for line in trainer.state.log_history if "loss" in line or "eval_score" in line]


def _arguments(config: SFTConfig, folder: Path, seed: int, measured: bool, most: int) -> TrainingArguments:
    parts = next(
        n for n in range(1, config.batch_size + 1) if config.batch_size % n == 0 and config.batch_size // n <= most
    )
    args = TrainingArguments(
        output_dir=str(folder),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size // parts,
        gradient_accumulation_steps=parts,
        learning_rate=config.learning_rate,
        warmup_steps=round(config.warmup_fraction * config.steps),
        optim="adamw_torch_fused",
        max_grad_norm=1.0,
        logging_steps=min(math.gcd(20, config.evaluate_every), config.steps),
        save_steps=min(config.evaluate_every, CHECKPOINT_EVERY),
        save_total_limit=2,
        eval_strategy="steps" if measured else "no",
        eval_steps=config.evaluate_every,
        seed=seed,
        data_seed=seed,
        train_sampling_strategy="sequential" if config.bucket else "random",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        report_to="none",
    )
    args._n_gpu = min(args.n_gpu, 1)  # on several GPUs Trainer would copy the model, and lose the active adapter
    return args
