"""Tokenizers that are trained here: nothing is lost, labels and whatever the pattern names are one token."""

import pytest
from grid_game import GRIDS, MOVES, PROMPTS, QUESTIONS, SIZE

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.labels import IN_ORDER
from reflect_rl.lm.prompts import MOST, labels_for, policy_prompt
from reflect_rl.lm.tokenizers import load_tokenizer, train_tokenizer


def test_every_label_is_one_token_of_its_own(tokenizer):
    ids = tokenizer([f" {name}" for name in IN_ORDER.names])["input_ids"]
    assert all(len(x) == 1 for x in ids)
    assert len({x[0] for x in ids}) == len(IN_ORDER.names) == MOST
    assert labels_for(tokenizer, IN_ORDER) is IN_ORDER


def test_label_is_the_same_token_in_a_prompt_and_as_an_answer(tokenizer):
    inside = tokenizer(policy_prompt(GRIDS[0], "", MOVES, None))["input_ids"]
    assert [inside.count(tokenizer(f" {IN_ORDER.names[i]}")["input_ids"][0]) for i in range(7)] == [1] * 6 + [0]


def test_nothing_is_lost(tokenizer):
    for text in [*PROMPTS, *QUESTIONS, "  two spaces, a tab\t, Zürich\n\n|never seen|"]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_pattern_makes_one_token_of_what_it_matches():
    texts = ["You see a cabinet 12 and a sink 3.\n"] * 5
    one, two = (
        len(train_tokenizer(texts, [], SIZE, pattern).tokenize(" cabinet 12")) for pattern in (r" ?[a-z]+ \d+", "")
    )
    assert (one, two) == (1, 2)


def test_a_tokenizer_is_loaded_as_it_was_trained(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizer.backend_tokenizer.save(str(path))
    loaded = load_tokenizer(SIZE, path)
    assert loaded(PROMPTS)["input_ids"] == tokenizer(PROMPTS)["input_ids"]
    assert (loaded.pad_token_id, loaded.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    path.write_text(path.read_text()[:100])
    with pytest.raises(ReflectRLError, match="cannot be read .*delete .* to make the data anew"):
        load_tokenizer(SIZE, path)
