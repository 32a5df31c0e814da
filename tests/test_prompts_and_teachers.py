import pytest

from reflect_rl import config, data, models
from reflect_rl.envs import domain, taxi
from reflect_rl.envs.labels import IN_ORDER
from reflect_rl.errors import ReflectRLError
from reflect_rl.prompts import advised_action, policy_prompt, reflection_prompt
from reflect_rl.teachers import TaxiRules, teacher

ACTIONS = ("move south", "pick up", "look", "look up")


@pytest.mark.parametrize(
    ("reflection", "advised"),
    [
        ("Next: pick up.", 1),
        ("Moving was wrong. Not pick up but move south.", 0),  # the last one named
        ("move south, move south, then pick up", 1),
        ("pick up, then move south", 0),
        ("Wait and see.", None),
        ("", None),
        ("Next: fly.", None),  # not a legal action here
        ("Next: look up.", 3),  # the longer of two names that begin alike
        ("Next: look.", 2),
    ],
)
def test_advice_is_the_legal_action_that_is_named_last(reflection, advised):
    assert advised_action(reflection, ACTIONS) == advised


def test_policy_prompt_by_hand():
    assert policy_prompt("GRID", "", ("a", "b c"), "Go.") == (
        "GRID\nLast: none\nReflection: Go.\nActions: [1] a [2] b c\nAnswer:"
    )
    assert policy_prompt("GRID", "a", ("a", "b c"), None) == "GRID\nLast: a\nActions: [1] a [2] b c\nAnswer:"


def test_reflection_prompt_by_hand():
    assert reflection_prompt("GRID", "") == "GRID\nLast: none\nReflection:"
    assert reflection_prompt("GRID", "move east") == "GRID\nLast: move east\nReflection:"


def test_empty_reflection_differs_from_none():
    assert "Reflection" in policy_prompt("GRID", "", ("a",), "", ("[1]",))
    assert "Reflection" not in policy_prompt("GRID", "", ("a",), None, ("[1]",))


@pytest.mark.parametrize("count", [1, 6, 64])
def test_prompt_holds_every_legal_action_behind_its_label(count):
    actions = tuple(f"go to room {i}" for i in range(count))
    listed = (
        policy_prompt("GRID", "", actions, None, IN_ORDER.names[:count]).split("Actions: ")[1].split("\nAnswer:")[0]
    )
    assert listed == " ".join(f"[{i + 1}] {action}" for i, action in enumerate(actions))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFLECT_RL_HOME", str(tmp_path_factory.mktemp("home")))
        run = config.load("smoke", overrides="data.trajectories=40 data.negatives=20 data.sft_examples=100")
        data.make(run)
        yield models.load_tokenizer(run.model, run.data_dir / "tokenizer.json")


def test_every_label_is_one_token_of_its_own(tokenizer):
    ids = tokenizer([f" {name}" for name in IN_ORDER.names])["input_ids"]
    assert all(len(x) == 1 for x in ids)
    assert len({x[0] for x in ids}) == len(IN_ORDER.names)


def test_label_is_the_same_token_in_a_prompt_and_as_an_answer(tokenizer):
    prompt = policy_prompt(taxi.grid(taxi.starts("test")[0], False), "", taxi.ACTIONS, None, IN_ORDER.names[:6])
    inside = tokenizer(prompt)["input_ids"]
    assert [inside.count(tokenizer(f" {IN_ORDER.names[i]}")["input_ids"][0]) for i in range(7)] == [1] * 6 + [0]


def test_tokenizer_loses_nothing_and_all_texts_fit_the_context(tokenizer):
    run = config.load("smoke")
    for state in taxi.starts("test"):
        grid = taxi.grid(state, False)
        asked = reflection_prompt(grid, "move south")
        answer = policy_prompt(grid, "move south", taxi.ACTIONS, "Moving south was wrong: go. Next: move south.")
        for text in (asked, answer):
            assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
        assert len(tokenizer(asked)["input_ids"]) <= run.model.context - run.model.max_new_tokens
        assert len(tokenizer(answer)["input_ids"]) < run.model.context


# --- the teacher of rules ---


def situations(task):
    """Every situation one or no wrong step away from the oracle's way, with the environment that is in it."""
    env = domain("taxi").make(horizon=1000)

    def now(index, last):
        return data.situation(env, index, last, env._observation(), taxi.ACTIONS)

    env.reset(options={"task": task})
    yield env, now(0, "")
    for index in range(1, taxi.shortest(task)):
        state, was_aboard = env.state, env.was_aboard
        for action in env.safe_actions():
            before = env.distance()
            env.step(action)
            if env.distance():
                assert env.verdict == ("right" if env.distance() == before - 1 else "wrong")
                yield env, now(index, taxi.ACTIONS[action])
            env.state, env.was_aboard = state, was_aboard
        env.step(env.best_action())


@pytest.mark.parametrize("task", taxi.tasks("full", "train")[:8])
def test_teacher_names_the_oracles_action_and_the_right_verdict_everywhere(task):
    seen = set()
    for env, situation in situations(task):
        text = TaxiRules().reflect(situation)
        assert advised_action(text, taxi.ACTIONS) == env.best_action()
        words = {"start": "Starting:", "right": "was right:", "wrong": "was wrong:"}
        assert [word in text for word in words.values()] == [situation.verdict == key for key in words]
        row, col, passenger, goal = taxi._gymnasium_taxi().decode(env.state)
        aboard = passenger == taxi.ABOARD
        fact = f"aboard for {'RGYB'[goal]}" if aboard else f"waits at {'RGYB'[passenger]}"
        assert fact in text and "\n" not in text
        seen.add((situation.verdict, aboard))
    assert seen >= {("start", False), ("right", False), ("right", True), ("wrong", False), ("wrong", True)}


def test_reflection_fits_the_tokens_that_the_reflector_may_write(tokenizer):
    longest = 0
    for task in taxi.tasks("full", "train")[:8]:
        for _, situation in situations(task):
            longest = max(longest, len(tokenizer(" " + TaxiRules().reflect(situation))["input_ids"]))
    assert longest + 1 <= config.load("smoke").model.max_new_tokens  # and the end of text


def test_unknown_teacher_lists_the_choices():
    with pytest.raises(ReflectRLError, match="unknown environment 'chess'; choose one of: taxi"):
        teacher("chess")
