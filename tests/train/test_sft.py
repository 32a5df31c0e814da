import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from train_helpers import Killed, equal
from transformers import TrainerState

from reflect_rl.core.config import ModelConfig, SFTConfig
from reflect_rl.envs.labels import IN_ORDER
from reflect_rl.lm.players import Encoder
from reflect_rl.lm.scratch import from_scratch
from reflect_rl.lm.tokenizers import train_tokenizer
from reflect_rl.train import sft

SIZE = ModelConfig(n_layer=1, n_head=2, d_model=16, context=32, vocab_size=300)
LINES = [
    {"prompt": f"go {word} {'very ' * (i % 3)}far", "completion": f" {IN_ORDER.names[i % 4]} {word}"}
    for i, word in enumerate(["north", "south", "east", "west"] * 10)
]
TRAINING = SFTConfig(steps=12, batch_size=8, learning_rate=1e-2, evaluate_every=4)  # five steps an epoch


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([x["prompt"] + x["completion"] for x in LINES], IN_ORDER.names, SIZE, "")


@pytest.fixture(scope="module")
def pairs(tokenizer):
    return sft.Pairs(LINES, Encoder(tokenizer, 24), 8, [tokenizer.eos_token_id])


def trained(tokenizer, pairs, folder, seed=0, training=TRAINING, measure=None, rows=0):
    """Weights and log of a fresh model after its training."""
    model = from_scratch(SIZE, tokenizer, seed=0)
    log = sft.fit(model, pairs, training, folder, seed, "test", measure, rows)
    return {k: v.clone() for k, v in model.state_dict().items()}, log


@pytest.fixture
def fit(tokenizer, pairs, tmp_path):
    return lambda folder="fit", **options: trained(tokenizer, pairs, tmp_path / folder, **options)


@pytest.fixture(scope="module")
def uninterrupted(tokenizer, pairs, tmp_path_factory):
    return trained(tokenizer, pairs, tmp_path_factory.mktemp("uninterrupted"))


# --- a batch in parts ---


@pytest.mark.parametrize("bucket", [0, 2])
def test_a_batch_in_parts_gives_the_gradient_of_the_batch(fit, bucket):
    training = replace(TRAINING, bucket=bucket)
    (whole, log), (parts, other) = (fit(f"{rows}", training=training, rows=rows) for rows in (8, 3))
    for name, weight in whole.items():
        torch.testing.assert_close(parts[name], weight, rtol=0, atol=1e-4)
    losses = [[line["loss"] for line in lines if "loss" in line] for lines in (log, other)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    alone, _ = fit("alone", training=replace(training, batch_size=2), rows=2)
    assert any((alone[name] - weight).abs().max() > 1e-3 for name, weight in whole.items())


def test_a_batch_that_fits_goes_through_at_once(fit, uninterrupted):
    weights, log = fit(rows=8)
    assert equal(weights, uninterrupted[0]) and log == uninterrupted[1]


# --- the loss ---


def test_collated_labels_are_the_completion_and_its_end_only(tokenizer, pairs):
    batch = pairs.collate([pairs[0], pairs[2]])
    for i, line in enumerate((LINES[0], LINES[2])):
        prompt, completion = (tokenizer(line[k])["input_ids"] for k in ("prompt", "completion"))
        row = [*prompt, *completion, tokenizer.eos_token_id]
        padding = batch["input_ids"].shape[1] - len(row)
        assert batch["input_ids"][i].tolist() == row + [tokenizer.pad_token_id] * padding
        expected = [-100] * len(prompt) + row[len(prompt) :] + [-100] * padding
        assert batch["labels"][i].tolist() == expected
    assert len(pairs[0][0]) < len(pairs[2][0])  # so one row was padded


def test_buckets_hold_every_example_once_in_turn_and_batches_of_one_length(pairs):
    config = SFTConfig(steps=12, batch_size=4, bucket=3)
    chosen = pairs.bucketed(config, np.random.default_rng(0)).indices
    counts = [chosen.count(i) for i in range(len(pairs))]
    assert len(chosen) == 48 and max(counts) - min(counts) <= 1
    lengths = [len(p) + len(c) for p, c in pairs.rows]

    def spread(order):
        batches = [[lengths[i] for i in order[first : first + 4]] for first in range(0, 48, 4)]
        return sum(max(batch) - min(batch) for batch in batches)

    shuffled = np.concatenate([np.random.default_rng(1).permutation(len(pairs)) for _ in range(48 // len(pairs) + 1)])
    assert spread(chosen) < spread(shuffled[:48].tolist())
    assert pairs.bucketed(config, np.random.default_rng(0)).indices == chosen
    assert pairs.bucketed(config, np.random.default_rng(2)).indices != chosen


def test_loss_is_the_mean_cross_entropy_of_the_completion_tokens(tokenizer, pairs):
    model = from_scratch(SIZE, tokenizer, seed=3).eval()
    rows = [pairs[0], pairs[1], pairs[2]]
    expected = []
    for prompt, completion in rows:  # one row at a time, so without padding
        with torch.no_grad():
            log_probs = model(torch.tensor([prompt + completion])).logits[0].log_softmax(-1)
        for place, token in enumerate(completion, start=len(prompt)):
            expected.append(-log_probs[place - 1, token].item())
    loss = sft._Trainer.compute_loss(None, model, pairs.collate(rows))
    assert loss.item() == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_prompt_tokens_get_no_loss_of_their_own(tokenizer, pairs):
    """Where nothing of a row is completion, nothing is left to average."""
    model = from_scratch(SIZE, tokenizer, seed=3).eval()
    whole = pairs.collate([pairs[0]])
    last = {k: v.clone() for k, v in whole.items()}
    last["labels"][0, :-1] = -100  # keep the end of the text only
    with torch.no_grad():
        logits = model(whole["input_ids"]).logits[0]
    by_hand = -logits[-2].log_softmax(-1)[whole["input_ids"][0, -1]]
    assert sft._Trainer.compute_loss(None, model, last).item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_loss_of_a_bfloat16_model_is_computed_in_float32(tokenizer, pairs):
    model = from_scratch(SIZE, tokenizer, seed=3).to(torch.bfloat16).eval()
    batch = pairs.collate([pairs[0], pairs[1]])
    loss = sft._Trainer.compute_loss(None, model, batch)
    targets = batch["labels"][:, 1:]
    logits = model(batch["input_ids"]).logits[:, :-1][targets != sft.IGNORED]
    expected = torch.nn.functional.cross_entropy(logits.float(), targets[targets != sft.IGNORED])
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_training_lowers_the_loss(fit):
    _, log = fit(training=replace(TRAINING, steps=40, learning_rate=3e-2))
    losses = [line["loss"] for line in log]
    assert losses[-1] < 0.5 * losses[0]


# --- killed and continued ---


def kill(fit, bars, step):
    """Let a warm-up die at a step; the next one lives."""
    bars.die_at = step
    with pytest.raises(Killed):
        fit("killed")
    bars.die_at = None


@pytest.mark.parametrize("step", [3, 7, 11], ids=["before_the_first_checkpoint", "first_epoch", "second_epoch"])
def test_killed_warm_up_ends_with_the_weights_of_an_uninterrupted_one(fit, uninterrupted, bars, step):
    weights, log = uninterrupted
    kill(fit, bars, step)
    continued, continued_log = fit("killed")
    last = len(range(4, step, 4)) * 4
    assert [bar.n for bar in bars] == [step, 12]
    assert equal(continued, weights)
    assert [line for line in continued_log if line["step"] > last] == [line for line in log if line["step"] > last]


def test_killed_warm_up_in_buckets_ends_with_the_same_weights(fit, bars):
    training = replace(TRAINING, bucket=2)
    whole, _ = fit("whole", training=training)
    bars.die_at = 7
    with pytest.raises(Killed):
        fit("killed", training=training)
    bars.die_at = None
    continued, _ = fit("killed", training=training)
    assert all(torch.equal(continued[name], weight) for name, weight in whole.items())
    assert not all(torch.equal(fit("other")[0][name], weight) for name, weight in whole.items())


def test_warm_up_continues_from_its_newest_whole_checkpoint(fit, bars, tmp_path):
    kill(fit, bars, 11)
    kill(fit, bars, 9)  # starts at 8, so that one step is enough
    assert sorted(p.name for p in (tmp_path / "killed").glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-8"]


def test_checkpoint_without_its_state_is_skipped(fit, uninterrupted, bars, monkeypatch, tmp_path):
    weights, _ = uninterrupted
    save = TrainerState.save_to_json

    def dying(self, path):
        if "checkpoint-8" in str(path):
            raise Killed
        save(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(TrainerState, "save_to_json", dying)
        with pytest.raises(Killed):
            fit("killed")
    half = tmp_path / "killed" / "checkpoint-8"
    assert half.is_dir() and not (half / "trainer_state.json").exists()
    continued, _ = fit("killed")
    assert equal(continued, weights)


def test_checkpoint_with_a_truncated_state_is_skipped(fit, uninterrupted, bars, tmp_path):
    weights, _ = uninterrupted
    kill(fit, bars, 11)
    state = tmp_path / "killed" / "checkpoint-8" / "trainer_state.json"
    state.write_text(state.read_text()[:50])
    continued, _ = fit("killed")
    assert equal(continued, weights)


def test_warm_up_killed_after_its_last_step_ends_with_the_same_weights_and_log(fit, uninterrupted, bars):
    weights, log = uninterrupted
    bars.die_at_end = True
    with pytest.raises(Killed):
        fit("killed")
    bars.die_at_end = False
    continued, continued_log = fit("killed")
    assert equal(continued, weights)
    assert continued_log == log


# --- the measure ---


def scores(bars, by_step):
    return lambda: by_step[bars[-1].n]


def test_weights_of_the_best_measure_are_kept(fit, bars):
    at_eight, _ = fit("eight", measure=scores(bars, {4: 0.1, 8: 0.9}), training=replace(TRAINING, good_enough=0.9))
    assert bars[-1].n == 8  # good enough: training stopped there
    weights, log = fit("whole", measure=scores(bars, {4: 0.1, 8: 0.9, 12: 0.5}))
    assert bars[-1].n == 12
    assert equal(weights, at_eight)
    assert [line["eval_score"] for line in log if "eval_score" in line] == [0.1, 0.9, 0.5]


@pytest.mark.parametrize("step", [7, 11])
def test_killed_warm_up_keeps_the_best_weights_of_before(fit, bars, step):
    measure = scores(bars, {4: 0.9, 8: 0.1, 12: 0.5})
    weights, log = fit("whole", measure=measure)
    bars.die_at = step
    with pytest.raises(Killed):
        fit("killed", measure=measure)
    bars.die_at = None
    continued, continued_log = fit("killed", measure=measure)
    assert equal(continued, weights)
    measured = [[x["eval_score"] for x in y if "eval_score" in x] for y in (log, continued_log)]
    assert measured[0] == measured[1] == [0.9, 0.1, 0.5]


def test_warm_up_killed_after_it_was_good_enough_trains_no_further(fit, bars):
    measure = scores(bars, {4: 0.9, 8: 0.95, 12: 0.99})
    training = replace(TRAINING, good_enough=0.9)
    weights, log = fit("whole", measure=measure, training=training)
    bars.die_at_end = True
    with pytest.raises(Killed):
        fit("killed", measure=measure, training=training)
    bars.die_at_end = False
    continued, continued_log = fit("killed", measure=measure, training=training)
    assert equal(continued, weights)
    assert continued_log == log


# --- seeds ---


def test_equal_seeds_give_equal_weights_and_another_seed_others(fit, uninterrupted):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(77)  # the global generators do not matter
        assert equal(fit("again")[0], uninterrupted[0])
    assert not equal(fit("other", seed=1)[0], uninterrupted[0])


def test_global_generators_are_untouched(fit, bars):
    def state():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = state()
    fit("a", measure=scores(bars, {4: 0.1, 8: 0.2, 12: 0.3}))
    assert state() == before
    bars.die_at = 7
    with pytest.raises(Killed):
        fit("b")
    assert state() == before
    bars.die_at = None
    fit("b")  # restores generators from its checkpoint
    assert state() == before
