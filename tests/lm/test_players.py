"""The two players: distributions over the legal labels, and reflections."""

import math

import pytest
import torch
from grid_game import LEGAL, PROMPTS, QUESTIONS, SIZE

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.labels import IN_ORDER
from reflect_rl.lm.models import pad
from reflect_rl.lm.players import Policy, Reflector
from reflect_rl.lm.tokenizers import train_tokenizer


@pytest.fixture
def policy(model, tokenizer):
    return Policy(model, tokenizer, 96)


@pytest.fixture
def reflector(model, tokenizer):
    return Reflector(model, tokenizer, 96, max_new_tokens=12)


# --- policy ---


@torch.no_grad()
def test_log_probs_are_those_of_the_full_head_restricted_to_the_legal_labels(policy, model, tokenizer):
    found = policy.log_probs(PROMPTS, LEGAL)
    assert found.shape == (12, 6)
    for prompt, legal, row in zip(PROMPTS, LEGAL, found, strict=True):
        logits = model(torch.tensor([tokenizer(prompt)["input_ids"]])).logits[0, -1]
        ids = [tokenizer(f" {IN_ORDER.names[i]}")["input_ids"][0] for i in legal]
        torch.testing.assert_close(row[: len(legal)], logits[ids].log_softmax(-1), rtol=0, atol=1e-5)
        assert row[len(legal) :].tolist() == [-math.inf] * (6 - len(legal))
    assert found[0].max() - found[0].min() > 0.01  # not simply uniform


@torch.no_grad()
def test_probabilities_sum_to_one_and_a_sole_action_is_certain(policy):
    found = policy.log_probs(PROMPTS, LEGAL)
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(12), rtol=0, atol=1e-6)
    assert found[2].tolist() == [0.0] + [-math.inf] * 5


@torch.no_grad()
def test_padding_does_not_matter(policy):
    assert len({len(row) for row in policy.encode(PROMPTS)}) > 3
    together = policy.log_probs(PROMPTS, LEGAL)
    for i in range(12):
        alone = policy.log_probs([PROMPTS[i]], [LEGAL[i]])
        assert alone.shape == (1, len(LEGAL[i]))
        torch.testing.assert_close(alone[0], together[i, : len(LEGAL[i])], rtol=0, atol=1e-5)


@torch.no_grad()
def test_labels_in_any_order_have_their_own_probabilities(policy):
    straight = policy.log_probs(PROMPTS[:1], [(0, 1, 2, 3, 4, 5)])[0]
    turned = policy.log_probs(PROMPTS[:1], [(4, 0, 5)])[0]
    torch.testing.assert_close(turned, straight[[4, 0, 5]].log_softmax(-1), rtol=0, atol=1e-6)


@torch.no_grad()
def test_prompts_sorted_into_parts_have_the_same_distributions(policy, monkeypatch):
    whole = policy.log_probs(PROMPTS, LEGAL)
    monkeypatch.setattr(Policy, "PADDING", 1.0)
    monkeypatch.setattr(Policy, "ROWS", 5)
    torch.testing.assert_close(policy.log_probs(PROMPTS, LEGAL), whole, rtol=0, atol=1e-5)


def test_gradient_is_finite_with_illegal_actions(policy, model):
    model.zero_grad()
    policy.log_probs(PROMPTS, LEGAL)[:, 0].sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert model.get_input_embeddings().weight.grad.abs().sum() > 0


def test_label_of_several_tokens_is_refused(model):
    split = train_tokenizer(PROMPTS, [], SIZE)
    with pytest.raises(ReflectRLError, match="label of this tokenizer is more than one token"):
        Policy(model, split, 96)


def test_a_prompt_beyond_the_context_loses_its_middle_and_is_counted(policy, reflector, tokenizer):
    long = "|" + " no" * 60 + " go" * 60
    ids = tokenizer(long)["input_ids"]
    for player, limit in ((policy, 95), (reflector, 84)):
        (kept,) = player.encode([long])
        assert kept == ids[: limit // 4] + ids[limit // 4 - limit :] and len(kept) == limit
        player.encode([long, PROMPTS[0]])  # each text counts once
        assert player.encode.counts() == {"prompts": 2, "longest": len(ids), "limit": limit, "shortened": 1}
        player.encode.forget()
        assert player.encode.counts() == {"prompts": 0, "longest": 0, "limit": limit, "shortened": 0}
    assert torch.isfinite(policy.log_probs([long], [(0, 1)])).all() and reflector.reflect([long])


def test_a_context_without_room_for_a_prompt(model, tokenizer):
    with pytest.raises(ReflectRLError, match="-2 tokens are left for a prompt; raise model.context"):
        Reflector(model, tokenizer, 10, max_new_tokens=12)


def test_pad_fills_on_the_right():
    assert pad([[1, 2, 3], [4]], 9).tolist() == [[1, 2, 3], [4, 9, 9]]


# --- reflector ---


@torch.no_grad()
def greedy(model, tokenizer, prompt, count):
    """Plain decoding: the whole text through the model for every token."""
    ids = tokenizer(prompt)["input_ids"]
    words = []
    while len(words) < count:
        token = int(model(torch.tensor([ids + words]), use_cache=False).logits[0, -1].argmax())
        if token == tokenizer.eos_token_id:
            break
        words.append(token)
    return " ".join(tokenizer.decode(words, skip_special_tokens=True).split())


def test_reflections_are_plain_greedy_decoding(reflector, model, tokenizer):
    texts = reflector.reflect(QUESTIONS[:16])
    assert texts == [greedy(model, tokenizer, prompt, 12) for prompt in QUESTIONS[:16]]
    assert len(set(texts)) > 3
    assert not any("\n" in text for text in texts)


class Ends:
    """A tokenizer with another end of text."""

    def __init__(self, tokenizer, eos_token_id):
        self.tokenizer, self.eos_token_id = tokenizer, eos_token_id

    def __call__(self, texts):
        return self.tokenizer(texts)

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)


@torch.no_grad()
def test_reflection_ends_at_the_end_of_text(model, tokenizer):
    """The end of text is whatever token a greedy text of twelve has later for the first time."""
    for prompt in QUESTIONS:
        ids = tokenizer(prompt)["input_ids"]
        for _ in range(12):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        words = ids[-12:]
        ends = [i for i in range(2, 11) if words[i] not in words[:i]]
        if ends:
            break
    ending = Reflector(model, Ends(tokenizer, words[ends[0]]), 96, max_new_tokens=12)
    expected = " ".join(tokenizer.decode(words[: ends[0] + 1], skip_special_tokens=True).split())
    assert ending.reflect([prompt]) == [expected]
    assert expected != greedy(model, tokenizer, prompt, 12)


@pytest.fixture
def blocks(monkeypatch, model):
    """Shape and logits of every block that is decoded: {first tokens of a row: its logits}, (B, T)."""
    logits, shapes, generate = {}, [], model.generate

    def kept(input_ids, max_new_tokens, **options):
        if options.pop("return_dict_in_generate", False):  # not a reflection
            return generate(input_ids=input_ids, max_new_tokens=max_new_tokens, return_dict_in_generate=True, **options)
        shapes.append(tuple(input_ids.shape))
        out = generate(
            input_ids=input_ids,
            max_new_tokens=max_new_tokens,
            output_logits=True,
            return_dict_in_generate=True,
            **options,
        )
        logits.update(zip(map(tuple, input_ids.tolist()), torch.stack(out.logits, 1), strict=True))
        return out.sequences

    monkeypatch.setattr(model, "generate", kept)
    return logits, shapes


def test_a_reflection_does_not_depend_on_its_neighbours(model, tokenizer, blocks):
    """To the last digit of its logits, in whatever blocks of prompts it is decoded."""
    logits, shapes = blocks

    def reflect(prompts, rows=0):
        logits.clear()
        texts = Reflector(model, tokenizer, 96, 12, rows).reflect(prompts)
        return texts, dict(logits)

    all_texts, all_logits = reflect(QUESTIONS)
    for prompts in (QUESTIONS[:1], QUESTIONS[3:6], QUESTIONS[5:30], QUESTIONS[::-1]):
        texts, found = reflect(prompts)
        assert texts == [all_texts[QUESTIONS.index(prompt)] for prompt in prompts]
        for row, digits in found.items():
            steps = min(len(digits), len(all_logits[row]))  # a block ends when its last row has
            assert torch.equal(digits[:steps], all_logits[row][:steps])
    assert len({rows for rows, _ in shapes}) == 2  # a small block among them
    assert reflect(QUESTIONS, rows=5)[0] == all_texts  # many blocks instead of few


def test_few_prompts_are_not_padded_to_many(reflector, blocks):
    _, shapes = blocks
    reflector.reflect(QUESTIONS[:3])
    assert sum(rows for rows, _ in shapes) <= 8 * len(shapes)


def test_blocks_have_one_size_where_kernels_differ_in_digits(reflector, blocks, monkeypatch):
    _, shapes = blocks
    monkeypatch.setattr(torch, "equal", lambda *_: False)
    reflector.reflect(QUESTIONS[:3])
    assert {rows for rows, _ in shapes} == {32}


def test_a_large_models_blocks_are_not_padded(model, tokenizer, blocks, monkeypatch):
    """Only to the longest prompt of about as long ones; the texts are the same."""
    _, shapes = blocks
    monkeypatch.setattr(Reflector, "SMALL", 0)
    large = Reflector(model, tokenizer, 96, 12)
    prompts = [*QUESTIONS[:5], *(text + " and so on" * 3 for text in QUESTIONS[5:9])]
    texts = large.reflect(prompts)
    lengths = sorted(map(len, large.encode(prompts)))
    assert shapes == [(8, lengths[7]), (1, lengths[8])]
    assert texts == [greedy(model, tokenizer, prompt, 12) for prompt in prompts]
    assert large.reflect(prompts) == texts and len(shapes) == 2


def test_reflection_is_memoised(reflector, monkeypatch):
    first = reflector.reflect(QUESTIONS[:3])
    monkeypatch.setattr(reflector.model, "generate", None)  # any call would fail
    assert reflector.reflect([QUESTIONS[2], QUESTIONS[0], QUESTIONS[2]]) == [first[2], first[0], first[2]]


def test_only_new_prompts_are_decoded(reflector, monkeypatch):
    reflector.reflect(QUESTIONS[:3])
    decoded = []
    generate = reflector._generate
    monkeypatch.setattr(
        reflector, "_generate", lambda b, *shape: decoded.extend(p for p, _ in b) or generate(b, *shape)
    )
    reflector.reflect([*QUESTIONS[:5], QUESTIONS[4]])
    assert sorted(decoded) == sorted(QUESTIONS[3:5])
