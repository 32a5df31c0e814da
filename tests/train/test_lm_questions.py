"""A language model as the writer of questions: what it is told, which lines are taken, which questions are kept."""

import pytest
from test_endpoint import server

from reflect_rl.core.config import TeacherConfig
from reflect_rl.envs.autoexplore.questions import questions
from reflect_rl.train.lm_questions import LanguageModelWriter

FILES = {
    "dates.py": 'def order: """Sort the invoices of a customer by their dates."""\n',
    "rows.py": '"""Sort the invoices of a supplier by their amounts."""\n',
    "empty.py": "",
}
SAYS = """1. Where does one learn how the invoices of customers are sorted by dates?
Which file sorts invoices?
- Which of all modules here puts the invoices of a customer in the order of their dates?
Here are three questions.
Which file defines order_rows(key=None) for the dates of a customer's invoices?"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_it_is_shown_what_a_player_sees_and_its_questions_are_taken_without_numbers():
    with server(text=SAYS) as (url, asked):
        writer = LanguageModelWriter(TeacherConfig(model="m", endpoint=url))
        made = [*writer("dates.py", "the whole text", "its card")]
        assert [*writer("empty.py", "", "")] == []
    assert len(asked) == 1 and "the whole text" not in str(asked[0][1])
    assert asked[0][1]["messages"][1]["content"] == "File: dates.py\nits card"
    assert [question.split()[0] for _, question in made] == ["Where", "Which", "Which", "Which"]
    assert {of for of, _ in made} == {"model"}


def test_kept_are_questions_that_one_file_answers_also_in_other_words():
    files = {
        "dates.md": "Sort the invoices of customers by their dates",
        "rows.md": "Sort the invoices of suppliers by amounts",
    }
    with server(text=SAYS) as (url, _):
        writer = LanguageModelWriter(TeacherConfig(model="m", endpoint=url))
        kept = questions(files, writer, least=0.5)
        strict = questions(files, writer)
    assert {asked.path for asked in kept} == {"dates.md"}
    texts = [asked.text for asked in kept]
    assert "Where does one learn how the invoices of customers are sorted by dates?" in texts
    assert not any("order_rows" in text or text == "Which file sorts invoices?" for text in texts)
    assert len(strict) < len(kept)  # "learn" and "puts" are not on the card
