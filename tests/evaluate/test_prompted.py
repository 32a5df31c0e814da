"""Models that are prompted and not trained: what they read, how they choose, what becomes of nonsense."""

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from reflect_rl.core.config import ClientConfig, ModelConfig
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.identity import stage_dir
from reflect_rl.core.variants import VARIANTS
from reflect_rl.envs import settings
from reflect_rl.envs.labels import in_order
from reflect_rl.envs.registry import get
from reflect_rl.evaluate import panels, prompted
from reflect_rl.lm.arithmetic import seeded
from reflect_rl.lm.players import Prefix
from reflect_rl.lm.prompts import LETTERS, labels_for
from reflect_rl.lm.tokenizers import load_tokenizer, train_tokenizer
from reflect_rl.train.rollout import play

TAXI = get("taxi")
ACTIONS = ("move south", "move north", "pick up")
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder as `save_pretrained` makes it: a random GPT-2, its tokenizer and a chat template."""
    folder = tmp_path_factory.mktemp("base")
    talk = prompted.Conversation(TAXI, prompted.worked_examples(TAXI, 3), in_order(LETTERS))
    texts = [m["content"] for m in talk.action("grid", "", ACTIONS, "So.", LETTERS[:3])]
    tokenizer = train_tokenizer(texts, LETTERS[:64], ModelConfig(vocab_size=600), "")
    tokenizer.chat_template = TEMPLATE
    with seeded(0):
        size = GPT2Config(vocab_size=len(tokenizer), n_positions=1536, n_embd=32, n_layer=2, n_head=4)
        GPT2LMHeadModel(size).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load(base, variant="prompted", more=""):
    small = "prompted.context=1536 prompted.max_new_tokens=8 evaluation.tasks=4 evaluation.repeats=1"
    return settings.load("smoke", "taxi", f"{variant}:{base}", 0, f"{small} evaluation.horizons=[3] {more}")


def test_a_variant_names_its_model():
    run = settings.load("smoke", variant="prompted:gpt2-xl")
    assert run.variant == "prompted" and run.prompted.model == run.model_name == "gpt2-xl"
    assert stage_dir(run, "evaluation") != stage_dir(settings.load("smoke", variant="prompted"), "evaluation")
    with pytest.raises(ReflectRLError, match="unknown variant 'sft_rl:gpt2'; choose one of: .*prompted:<model>"):
        settings.load("smoke", variant="sft_rl:gpt2")


def test_a_model_that_is_not_trained_has_one_seed():
    grid = settings.profile("laptop")
    assert grid.seeds_of("prompted") == grid.seeds[:1] and grid.seeds_of("sft_rl") == grid.seeds


def test_worked_examples_are_of_training_tasks_and_always_the_same():
    shown = prompted.worked_examples(TAXI, 3)
    assert shown == prompted.worked_examples(TAXI, 3)
    situations = [situation for situation, _ in shown]
    assert len({s.task for s in situations}) == 3 and {s.task for s in situations} <= set(TAXI.panel("full", "train"))
    assert situations[0].action_feedback == "start" and situations[2].index > situations[1].index > 0
    assert all(s.expert_action in reflection for s, reflection in shown)


def test_a_conversation_tells_all_that_a_player_needs():
    talk = prompted.Conversation(TAXI, prompted.worked_examples(TAXI, 2), in_order(LETTERS))
    asked = talk.action("GRID", "move east", ACTIONS, "So it is.", LETTERS[:3])
    assert [m["role"] for m in asked] == ["system", *["user", "assistant"] * 2, "user"]
    assert TAXI.goal in asked[0]["content"] and TAXI.legend in asked[0]["content"]
    assert asked[-1]["content"] == (
        "GRID\nLast action: move east\nThought: So it is.\nActions:\nA move south\nB move north\nC pick up"
    )
    assert "Thought: " in asked[1]["content"] and asked[2]["content"].startswith("Answer: ")
    without = talk.action("GRID", "", ACTIONS, None, LETTERS[:3])
    assert not any("Thought" in m["content"] for m in without)
    assert talk.thought("GRID", "")[-1]["content"] == "GRID\nLast action: none"
    assert len(prompted.Conversation(TAXI, [], in_order(LETTERS)).thought("GRID", "")) == 2


def test_labels_of_a_tokenizer_without_brackets_are_letters(base):
    tokenizer = load_tokenizer(ModelConfig(base=str(base)))
    found = labels_for(tokenizer, get("alfworld").labels)
    assert found.names[:3] == ("A", "B", "C") and len(found.names) == 64
    assert found.of(ACTIONS) == (0, 1, 2)
    assert not found.advice_last and labels_for(tokenizer, get("autoexplore").labels).advice_last


@pytest.mark.parametrize(
    "answer, chosen",
    [
        ("B", 1),
        ("Answer: C", 2),
        (" B move north", 1),
        ("answer: b", None),
        ("I would pick up the passenger, so pick up.", 2),
        ("A good idea is to move north", 1),
        ("A move to the north", None),
        ("The answer is B.", 1),
        ("**C**", 2),
        ("A: move south", 0),
        ("B move", 1),  # cut short
        ("Move North.", 1),
        ("C'est la vie", None),
        ("Z", None),
        ("", None),
    ],
)
def test_an_answer_in_words_is_read(answer, chosen):
    assert prompted.choice(answer, ACTIONS, LETTERS[:3]) == chosen


@torch.no_grad()
def test_a_prefix_that_is_encoded_once_changes_nothing(base):
    run = load(base, "prompted_few_shot_reflection")
    agent = prompted.agents(run)["greedy"]
    talk, policy, reflector = agent.prompts, agent.policy, agent.reflector
    assert len(policy.prefix.ids) > 100 and len(reflector.prefix.ids) > 100
    states = [(f"+{'ab:' * i}+", "move south") for i in range(7)]
    prompts = [talk.policy(*state, ACTIONS, "Well." * (i % 3), LETTERS[:3]) for i, state in enumerate(states)]
    asked = [talk.reflection(*state) for state in states]
    assert policy.prefix.begins(policy.encode(prompts)) and reflector.prefix.begins(reflector.encode(asked))
    shared, said = policy.log_probs(prompts, [(0, 1, 2)] * 7), reflector.reflect(asked)
    reflector.memory.clear()
    assert [reflector.reflect([prompt])[0] for prompt in asked] == said  # whoever is beside it
    policy.prefix = reflector.prefix = None
    reflector.memory.clear()
    torch.testing.assert_close(policy.log_probs(prompts, [(0, 1, 2)] * 7), shared, rtol=0, atol=1e-5)
    assert reflector.reflect(asked) == said


def test_a_prefix_begins_only_what_goes_on_after_it():
    prefix = Prefix(None, [1, 2])
    assert prefix.begins([[1, 2, 3], [1, 2, 4, 5]])
    assert not prefix.begins([[1, 2, 3], [1, 2]]) and not prefix.begins([[1, 3, 2]])


@pytest.mark.parametrize("variant", [name for name, arm in VARIANTS.items() if arm.prompted])
def test_every_prompted_variant_is_evaluated_like_the_others(base, variant):
    episodes = panels.evaluate(load(base, variant))
    assert list(episodes) == panels.EPISODE_COLUMNS and set(episodes.variant) == {variant}
    assert set(episodes.model) == {base.name} and set(episodes.decoding) == {"sampled", "greedy"}
    assert len(episodes) == 2 * 2 * 6
    counts = pd.read_csv(stage_dir(load(base, variant), "evaluation") / "prompts.csv")
    assert counts.prompts.item() >= 4 and counts.shortened.item() == 0


def test_a_model_behind_an_endpoint_plays_and_nonsense_wastes_a_step(monkeypatch):
    asked = []

    class Endpoint:
        def __init__(self, url, model, client):
            self.client = client

        def reply(self, messages, max_tokens, temperature, attempt):
            asked.append((temperature, attempt))
            if max_tokens == 16:
                assert "Thought: Hm." in messages[-1]["content"]
                return "D" if temperature == 0 else "I do not know."
            return "Hm."

    monkeypatch.setattr(prompted, "Endpoint", Endpoint)
    run = settings.load("smoke", "taxi", "prompted_reflection:m", 0, "prompted.endpoint=http://localhost:1/v1")
    assert run.client == ClientConfig()
    chosen = prompted.agents(run)
    task = TAXI.panel("full", "validation")[0]
    rngs = [np.random.default_rng(0)]
    (played,) = play(TAXI, chosen["greedy"], [task], rngs, 3)
    assert all(t.actions[t.decision.action] == "move west" for t in played.transitions)
    assert played.transitions[0].decision.reflection == "Hm."
    (played,) = play(TAXI, chosen["sampled"], [task], rngs, 3)
    assert [t.decision.action for t in played.transitions] == [6, 6, 6] and played.ended == "horizon"
    assert {temperature for temperature, _ in asked} == {0, 1}
    assert len({attempt for temperature, attempt in asked if temperature == 1}) == 3  # an attempt of its own each step
