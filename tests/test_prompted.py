"""Models that are prompted and not trained: what they read, how they choose, what becomes of nonsense."""

import numpy as np
import pandas as pd
import pytest
import torch
from test_endpoint import server
from transformers import GPT2Config, GPT2LMHeadModel

from reflect_rl import config, evaluate, models, prompted, tables
from reflect_rl.config import ModelConfig
from reflect_rl.envs import domain
from reflect_rl.envs.labels import in_order
from reflect_rl.errors import ReflectRLError
from reflect_rl.players import Prefix
from reflect_rl.prompts import LETTERS, labels_for
from reflect_rl.rollout import play

ACTIONS = ("move south", "move north", "pick up")
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder as `save_pretrained` makes it: a random GPT-2, its tokenizer and a chat template."""
    folder = tmp_path_factory.mktemp("base")
    talk = prompted.Conversation("taxi", prompted.examples("taxi", 3), in_order(LETTERS))
    texts = [m["content"] for m in talk.action("grid", "", ACTIONS, "So.", LETTERS[:3])]
    tokenizer = models.train_tokenizer(texts, LETTERS[:64], ModelConfig(vocab_size=600))
    tokenizer.chat_template = TEMPLATE
    with models.seeded(0):
        settings = GPT2Config(vocab_size=len(tokenizer), n_positions=1536, n_embd=32, n_layer=2, n_head=4)
        GPT2LMHeadModel(settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load(base, variant="prompted", more=""):
    small = "prompted.context=1536 prompted.max_new_tokens=8 evaluation.tasks=4 evaluation.repeats=1"
    return config.load("smoke", "taxi", f"{variant}:{base}", 0, f"{small} evaluation.horizons=[3] {more}")


def test_a_variant_names_its_model():
    run = config.load("smoke", variant="prompted:gpt2-xl")
    assert run.variant == "prompted" and run.prompted.model == run.model_name == "gpt2-xl"
    assert run.run_dir != config.load("smoke", variant="prompted").run_dir
    with pytest.raises(ReflectRLError, match="choose one of: prompted:<model>"):
        config.load("smoke", variant="sft_rl:gpt2")


def test_a_model_that_is_not_trained_has_one_seed():
    grid = config.profile("laptop")
    assert grid.seeds_of("prompted") == grid.seeds[:1] and grid.seeds_of("sft_rl") == grid.seeds


@pytest.mark.parametrize("env", config.ENVS)
def test_worked_examples_are_of_training_tasks_and_always_the_same(env):
    shown = prompted.examples(env, 3)
    assert [e.situation for e in shown] == [e.situation for e in prompted.examples(env, 3)]
    world = domain(env)
    assert {e.situation.task for e in shown} <= set(world.tasks(world.headline, "train"))
    assert len({e.situation.task for e in shown}) == 3
    assert shown[0].situation.verdict == "start" and shown[2].situation.index > shown[1].situation.index > 0
    assert all(e.situation.best_action in e.reflection for e in shown)


def test_a_conversation_tells_all_that_a_player_needs():
    talk = prompted.Conversation("taxi", prompted.examples("taxi", 2), in_order(LETTERS))
    module = domain("taxi").module
    asked = talk.action("GRID", "move east", ACTIONS, "So it is.", LETTERS[:3])
    assert [m["role"] for m in asked] == ["system", *["user", "assistant"] * 2, "user"]
    assert module.GOAL in asked[0]["content"] and module.LEGEND in asked[0]["content"]
    assert asked[-1]["content"] == (
        "GRID\nLast action: move east\nThought: So it is.\nActions:\nA move south\nB move north\nC pick up"
    )
    assert "Thought: " in asked[1]["content"] and asked[2]["content"].startswith("Answer: ")
    without = talk.action("GRID", "", ACTIONS, None, LETTERS[:3])
    assert not any("Thought" in m["content"] for m in without)
    assert talk.thought("GRID", "")[-1]["content"] == "GRID\nLast action: none"
    assert len(prompted.Conversation("taxi", [], in_order(LETTERS)).thought("GRID", "")) == 2


def test_labels_of_a_tokenizer_without_brackets_are_letters(base):
    tokenizer = models.load_tokenizer(ModelConfig(base=str(base)))
    found = labels_for(tokenizer, domain("alfworld").labels)
    assert found.names[:3] == ("A", "B", "C") and len(found.names) == 64
    assert found.of(ACTIONS) == (0, 1, 2)


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


@pytest.mark.parametrize("variant", [name for name, arm in config.VARIANTS.items() if arm.prompted])
def test_every_prompted_variant_is_evaluated_like_the_others(base, variant):
    episodes = evaluate.evaluate(load(base, variant))
    assert list(episodes) == tables.EPISODE_COLUMNS and set(episodes.variant) == {variant}
    assert set(episodes.model) == {base.name} and set(episodes.decoding) == {"sampled", "greedy"}
    assert len(episodes) == 2 * 2 * 4
    counts = pd.read_csv(load(base, variant).run_dir / "evaluation" / "prompts.csv")
    assert counts.prompts.item() >= 4 and counts.shortened.item() == 0


def test_a_model_behind_an_endpoint_plays_and_nonsense_wastes_a_step():
    def answer(body):
        if body["max_tokens"] == 16:
            assert "Thought: Hm." in body["messages"][-1]["content"]
            return "D" if body["temperature"] == 0 else "I do not know."
        return "Hm."

    with server(text=answer) as (url, asked):
        run = config.load("smoke", "taxi", "prompted_reflection:m", 0, f"prompted.endpoint={url}")
        chosen = prompted.agents(run)
        task = domain("taxi").tasks("full", "validation")[0]
        rngs = [np.random.default_rng(0)]
        (played,) = play(domain("taxi"), chosen["greedy"], [task], rngs, 3)
        assert all(t.actions[t.decision.action] == "move west" for t in played.transitions)
        assert played.transitions[0].decision.reflection == "Hm."
        (played,) = play(domain("taxi"), chosen["sampled"], [task], rngs, 3)
        assert [t.decision.action for t in played.transitions] == [6, 6, 6] and played.ended == "horizon"
        assert {body["temperature"] for _, body, _ in asked} == {0, 1}


def test_claim_six_compares_on_the_tasks_that_both_played():
    def rows(variant, seeds, tasks, success):
        fixed = {"env": "taxi", "setting": "full", "split": "test", "horizon": 20, "decoding": "sampled", "model": "m"}
        return [
            fixed | {"variant": variant, "seed": seed, "task": task, "success": success(seed, task)}
            for seed in seeds
            for task in tasks
        ]

    played = rows("reflect_rl", range(5), range(6), lambda seed, task: int(task < 3))
    played += rows("prompted", [0], range(4), lambda seed, task: int(task == 0))
    table = tables.claims_table(pd.DataFrame(played))
    (row,) = table.to_dict("records")
    assert row["claim"] == 6 and row["comparison"] == "reflect_rl vs prompted"
    assert row["effect"] == pytest.approx(3 / 4 - 1 / 4) and row["verdict"] == "reproduced"
