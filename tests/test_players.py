import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from peft import PeftModel
from transformers import GPT2Config, GPT2LMHeadModel

from reflect_rl import config, models, rl, sft
from reflect_rl.config import ModelConfig, SFTConfig
from reflect_rl.envs import taxi
from reflect_rl.envs.labels import IN_ORDER, by_name
from reflect_rl.errors import ReflectRLError
from reflect_rl.players import Encoder, Policy, Reflector, pad
from reflect_rl.prompts import policy_prompt, reflection_prompt

SIZE = ModelConfig(n_layer=2, n_head=4, d_model=32, context=96, vocab_size=400)
GRIDS = [taxi.grid(taxi.parse_task(task)[1], False) for task in taxi.tasks("full", "train")[:40]]
ACTIONS = [taxi.ACTIONS, taxi.ACTIONS[:3], taxi.ACTIONS[:1], taxi.ACTIONS[:5]]
PROMPTS = [  # of different lengths, with 6, 3, 1 and 5 legal actions
    policy_prompt(grid, "move east" if i % 3 else "", ACTIONS[i % 4], "Go on. " * (i % 5) if i % 2 else None)
    for i, grid in enumerate(GRIDS[:12])
]
LEGAL = [tuple(range(len(ACTIONS[i % 4]))) for i in range(12)]
ASKED = [reflection_prompt(grid, ["", "move east", "drop off"][i % 3]) for i, grid in enumerate(GRIDS)]


@pytest.fixture(scope="module")
def tokenizer():
    return models.train_tokenizer(PROMPTS + ASKED, IN_ORDER.names, SIZE)


@pytest.fixture(scope="module", params=[0, 1], ids=["gpt2", "lfm2"])
def model(tokenizer, request):
    """Weights large enough that distributions and greedy choices differ from prompt to prompt."""
    model = models.from_scratch(replace(SIZE, n_conv=request.param), tokenizer, seed=0).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "lm_head" not in name:
                weight.mul_(6)
    return model


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


def test_labels_by_name_are_kept_from_state_to_state_and_differ_within_one():
    labels = by_name(lambda action: action.split(" ")[0], 5)
    alone = labels.of(("go east",))
    assert labels.of(("go east", "eat", "sleep"))[:1] == labels.of(("go west",)) == alone
    crowded = labels.of(("go a", "go b", "go c", "go d", "go e"))
    assert sorted(crowded) == [0, 1, 2, 3, 4] and crowded[:1] == alone
    assert IN_ORDER.of(("go east", "eat")) == (0, 1)


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
    split = models.train_tokenizer(PROMPTS, [], SIZE)
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
    texts = reflector.reflect(ASKED[:16])
    assert texts == [greedy(model, tokenizer, prompt, 12) for prompt in ASKED[:16]]
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


def test_reflection_ends_at_the_end_of_text(model, tokenizer):
    with torch.no_grad():
        ids = tokenizer(ASKED[0])["input_ids"]
        for _ in range(12):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    words = ids[-12:]
    end = next(i for i in range(2, 12) if words[i] not in words[:i])
    ending = Reflector(model, Ends(tokenizer, words[end]), 96, max_new_tokens=12)
    expected = " ".join(tokenizer.decode(words[: end + 1]).split())
    assert ending.reflect(ASKED[:1]) == [expected]
    assert expected != greedy(model, tokenizer, ASKED[0], 12)


def test_reflection_does_not_depend_on_its_neighbours(model, tokenizer):
    def fresh():
        return Reflector(model, tokenizer, 96, max_new_tokens=12)

    together = fresh().reflect(ASKED)
    assert fresh().reflect(ASKED[::-1]) == together[::-1]
    assert [fresh().reflect([prompt])[0] for prompt in ASKED[:5]] == together[:5]
    full = fresh()
    full.rows = 5  # many blocks instead of one
    assert full.reflect(ASKED) == together


def test_reflection_is_memoised(reflector, monkeypatch):
    first = reflector.reflect(ASKED[:3])
    monkeypatch.setattr(reflector.model, "generate", None)  # any call would fail
    assert reflector.reflect([ASKED[2], ASKED[0], ASKED[2]]) == [first[2], first[0], first[2]]


def test_only_new_prompts_are_decoded(reflector, monkeypatch):
    reflector.reflect(ASKED[:3])
    decoded = []
    generate = reflector._generate
    monkeypatch.setattr(
        reflector, "_generate", lambda b, *shape: decoded.extend(p for p, _ in b) or generate(b, *shape)
    )
    reflector.reflect([*ASKED[:5], ASKED[4]])
    assert sorted(decoded) == sorted(ASKED[3:5])


def test_positions_that_are_asked_for_are_those_of_the_whole(model, tokenizer):
    """States and gradients, whether or not the uppermost layer leaves the others out."""
    rows = Encoder(tokenizer, 96)(ASKED[:5])
    ids, ends = pad(rows, tokenizer.pad_token_id), torch.tensor([len(row) - 1 for row in rows])
    asked = torch.stack([ends - 4, ends - 3, ends, ends], dim=1)  # one twice, as where completions differ in length
    weight = torch.randn(5, 4, 32, generator=torch.Generator().manual_seed(0))

    def gradients(states):
        model.zero_grad()
        (states * weight).sum().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    whole = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[torch.arange(5)[:, None], asked]
    found = models.hidden_states(model, ids, asked, use_cache=False)
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)
    expected, measured = gradients(whole), gradients(found)
    assert expected.keys() == measured.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(measured[name], gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max().item())
    model.zero_grad()


# --- two adapters on one base ---


def make_base(folder):
    """A folder as `save_pretrained` makes it: a random GPT-2 and its tokenizer."""
    tokenizer = models.train_tokenizer(PROMPTS + ASKED, IN_ORDER.names, SIZE)
    with models.seeded(0):
        settings = GPT2Config(vocab_size=len(tokenizer), n_positions=176, n_embd=32, n_layer=2, n_head=4)
        GPT2LMHeadModel(settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def run(base, tmp_path, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path / "home"))
    return config.load(
        "smoke",
        overrides=f"model.base={base} model.context=176 model.max_new_tokens=64 model.lora=4/8/0 data.trajectories=40 data.negatives=20 "
        "data.sft_examples=64 reflector.steps=4 reflector.evaluate_every=2 policy.steps=4 policy.evaluate_every=2 "
        "rl.env_steps=30 rl.episodes_per_update=8 rl.evaluate_every=100",
    )


def adapters(model, player):
    return {k: v.detach().clone() for k, v in models.weights(model, player).items()}


def shake(model, player):
    """LoRA begins at zero (B = 0); give an adapter an effect."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in models.weights(model, player).values():
            weight.add_(0.3 * torch.randn(weight.shape, generator=generator))


def test_both_players_share_one_base(run):
    players = sft.new_players(run)
    assert isinstance(players.policy.model, PeftModel)
    policy, reflector = (models.causal_lm(p.model) for p in (players.policy, players.reflector))
    pointers = [{k: v.data_ptr() for k, v in lm.named_parameters() if "lora" not in k} for lm in (policy, reflector)]
    assert pointers[0] == pointers[1] and len(pointers[0]) > 10
    names = [set(models.weights(players.policy.model, player)) for player in models.PLAYERS]
    assert names[0] and names[1] and not names[0] & names[1]
    assert all("lora" in name for name in names[0] | names[1])


def test_adapters_speak_with_voices_of_their_own(run):
    players = sft.new_players(run)
    with torch.no_grad():
        before = players.policy.log_probs(PROMPTS, LEGAL)
        shake(players.policy.model, "reflector")
        torch.testing.assert_close(players.policy.log_probs(PROMPTS, LEGAL), before, rtol=0, atol=0)
        shake(players.policy.model, "policy")
        assert not torch.allclose(players.policy.log_probs(PROMPTS, LEGAL), before, atol=1e-4)


def test_policy_loss_reaches_the_policy_adapter_only(run):
    players = sft.new_players(run)
    model = players.policy.model
    shake(model, "policy")
    shake(model, "reflector")
    players.reflector.reflect(ASKED[:2])  # leaves the reflector's adapter active
    players.policy.log_probs(PROMPTS, LEGAL)[:, 0].sum().backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert touched == set(models.weights(model, "policy"))


def test_reflector_is_unchanged_by_updates_of_the_policy(run):
    players = sft.new_players(run)
    model = players.policy.model
    shake(model, "reflector")
    texts = players.reflector.reflect(ASKED[:6])
    before = {player: adapters(model, player) for player in models.PLAYERS}
    base_before = {k: v.clone() for k, v in model.named_parameters() if "lora" not in k}
    learner = rl.Learner(run.rl, players, 0)
    for update in range(2):
        _, episodes = rl.rollouts(run, players, update, 0)
        learner.update(episodes, 0.0)
    after = {player: adapters(model, player) for player in models.PLAYERS}
    assert all(torch.equal(after["reflector"][k], v) for k, v in before["reflector"].items())
    assert any(not torch.equal(after["policy"][k], v) for k, v in before["policy"].items())
    assert all(torch.equal(v, base_before[k]) for k, v in model.named_parameters() if "lora" not in k)
    players.reflector.memory.clear()
    assert players.reflector.reflect(ASKED[:6]) == texts


def test_warm_up_and_rl_run_end_to_end_on_a_pretrained_base(run, monkeypatch):
    monkeypatch.setattr(sft, "follow_success", lambda *_: 0.0)
    monkeypatch.setattr(rl, "validation_success", lambda *_: 0.0)
    warmed = sft.warm_up(run)
    fresh = sft.new_players(run)
    for player in models.PLAYERS:
        trained, untrained = (adapters(p.policy.model, player) for p in (warmed, fresh))
        assert any(not torch.equal(trained[k], untrained[k]) for k in trained), player
    players = rl.train(run)
    metrics = pd.read_csv(run.run_dir / "rl" / "metrics.csv")
    assert metrics.env_steps.iloc[-1] >= 30
    after, before = (adapters(p.policy.model, "reflector") for p in (players, warmed))
    assert all(torch.equal(after[k], before[k]) for k in before)
    again = rl.train(run)  # loaded
    with torch.no_grad():
        torch.testing.assert_close(again.policy.log_probs(PROMPTS, LEGAL), players.policy.log_probs(PROMPTS, LEGAL))


class Killed(Exception):
    pass


def fit_reflector(run, folder, scores, die_at=None):
    """Warm up the reflector's adapter; the measure of step n is `scores[n]`. Returns its weights."""
    players = sft.new_players(run)
    model = players.policy.model
    models.activate(model, "reflector")
    tokenizer = players.reflector.tokenizer
    lines = [{"prompt": ASKED[i], "completion": f" {IN_ORDER.names[i % 6]} move"} for i in range(40)]
    pairs = sft.Pairs(lines, Encoder(tokenizer, 120), 8, [tokenizer.eos_token_id])
    steps = []

    class Bar:
        def __init__(self, initial):
            steps.append(initial)

        def update(self):
            steps.append(steps[-1] + 1)
            if steps[-1] == die_at:
                raise Killed

        def close(self):
            pass

    training = SFTConfig(steps=6, batch_size=8, learning_rate=1e-2, evaluate_every=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sft, "progress", lambda *a, initial, **k: Bar(initial))
        sft.fit(model, pairs, training, folder, 0, "test", lambda: scores[steps[-1]])
    return adapters(model, "reflector")


def test_adapter_keeps_the_weights_of_its_best_measure(run, tmp_path):
    first_best = fit_reflector(run, tmp_path / "a", {2: 0.9, 4: 0.1, 6: 0.2})
    last_best = fit_reflector(run, tmp_path / "b", {2: 0.1, 4: 0.2, 6: 0.9})
    assert any(not torch.equal(first_best[k], last_best[k]) for k in first_best)


def test_killed_warm_up_of_an_adapter_ends_with_the_same_weights(run, tmp_path):
    scores = {2: 0.1, 4: 0.2, 6: 0.9}
    whole = fit_reflector(run, tmp_path / "whole", scores)
    with pytest.raises(Killed):
        fit_reflector(run, tmp_path / "killed", scores, die_at=5)
    continued = fit_reflector(run, tmp_path / "killed", scores)
    assert all(torch.equal(continued[k], v) for k, v in whole.items())


def test_missing_base_is_named_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))
    nowhere = tmp_path / "nowhere"
    with pytest.raises(ReflectRLError, match="no pretrained model at model.base=.*nowhere.*give a folder"):
        models.from_pretrained(ModelConfig(base=str(nowhere)), 0)


def test_weights_of_another_model_are_refused(model, tokenizer, tmp_path):
    path = tmp_path / "weights.safetensors"
    models.save_weights(model, "policy", path)
    other = models.from_scratch(ModelConfig(n_layer=1, n_head=4, d_model=32, context=96), tokenizer, 0)
    with pytest.raises(ReflectRLError, match="weights of another model; delete it"):
        models.load_weights(other, "policy", path)
