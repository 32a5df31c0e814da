import gzip
import io
import json
import tarfile
from collections import Counter
from dataclasses import replace
from hashlib import sha256

import pytest

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.autoexplore import build, corpus
from reflect_rl.envs.autoexplore.cards import LETTERS, Statement, card
from reflect_rl.envs.autoexplore.questions import PER_FILE, asked, leak, questions, stems, third

MODULE = '''# Copyright 2020
import os
"""not a docstring"""


class Queue:
    """A queue that keeps the order of jobs.

    More of it.
    """

    def pop(self):
        """Take the next one."""


def sort_rows(rows):
    """Return the rows in the order of their dates."""
'''
PAGE = """Reading dates
=============

.. note:: skipped

This page explains how dates are read. It has more.

    an indented block

Finding lost rows again
-----------------------

Text with ``markup`` and `a link <somewhere>`_ of two words.
"""


def test_a_card_shows_what_a_file_says_of_itself():
    assert card("a.py", MODULE) == (
        "class Queue: A queue that keeps the order of jobs.\ndef sort_rows: Return the rows in the order of their dates."
    )
    assert card("a.rst", PAGE) == (
        "# Reading dates\nThis page explains how dates are read.\n# Finding lost rows again\nText with markup and a link of two words."
    )
    assert card("a.csv", "name,age,town\nAnn,3,Ash\n") == "name,age,town\nAnn,3,Ash"
    assert card("a.py", "import os\n# only a comment\nx = 1\n") == "x = 1"
    assert card("broken.py", "def f(:\n") == "def f(:"
    assert len(card("long.md", "word " * 500)) <= LETTERS


@pytest.mark.parametrize(
    ("of", "text", "question"),
    [
        ("function", "Return the rows in the order of their dates", "returns the rows in the order of their dates?"),
        ("function", "Match a row and return its number", "matches a row and returns its number?"),
        ("class", "A queue that keeps the order of jobs", "Which file defines a queue that keeps the order of jobs?"),
        ("class", "Holds all open files", "Where is the class that holds all open files?"),
        ("class", "A queue is full", None),  # a sentence
        ("function", "The rows", None),
        ("module", "Helper functions for dates", "Where are the helper functions for dates?"),
        ("heading", "Finding Lost Rows", "Which page has a section on finding lost rows?"),
        ("heading", "Version 2.1", None),
        ("text", "This page explains how dates are read", "Which page explains how dates are read?"),
    ],
)
def test_a_statement_becomes_a_question_where_its_grammar_allows(of, text, question):
    made = asked(Statement(of, "", text))
    assert made is None if question is None else made.endswith(question)


def test_verbs_and_stems():
    assert [third(verb) for verb in ("match", "apply", "play", "pass", "do", "write")] == [
        *("matches", "applies", "plays", "passes", "does", "writes")
    ]
    assert stems("Which function parses the CSVFile of queries?") == ["pars", "csvfil", "query"]
    assert stems("parse parsing runs running tables applies applied") == [
        "pars",
        "pars",
        "run",
        "run",
        "tabl",
        "apply",
        "apply",
    ]


def test_a_question_that_two_files_answer_is_not_asked():
    files = {"a/dates.py": MODULE, "b.py": "def f():\n    '''Return the number of jobs that wait for a machine.'''\n"}
    found = questions(files)
    assert {(a.path, a.leak) for a in found} == {("a/dates.py", "stem"), ("a/dates.py", "nothing"), ("b.py", "nothing")}
    assert {a.path for a in questions(files | {"c.py": MODULE})} == {"b.py"}


def test_leaks():
    assert leak("Where is the code that sorts rows?", "sort_rows.py") == "stem"
    assert leak("Where is the code that sorts rows?", "sort_columns.py") == "part"
    assert leak("Where is the code that sorts rows?", "rows/util.py") == "folder"
    assert leak("Where is the code that sorts rows?", "a/b.py") == "nothing"


def test_the_corpus_is_what_its_card_says():
    found = corpus.packages()
    assert [*found] == [source.name for source in corpus.SOURCES] and len(found) == 14
    by_split = Counter()
    for package in found.values():
        files = package.repository.files
        assert "ermi" in package.licence and len(files) >= 15
        assert all(len(text) <= LETTERS and path.count("/") <= build.DEPTH for path, text in files.items())
        assert all(
            len(held.files) <= build.FILES and len(held.folders) <= build.FOLDERS
            for held in package.repository.folders.values()
        )
        assert len({asked.text for asked in package.questions}) == len(package.questions)
        assert max(Counter(asked.path for asked in package.questions).values()) <= PER_FILE
        for question in package.questions:
            assert question.path in files and question.leak == leak(question.text, question.path)
            assert {*stems(question.text)} <= {*stems(files[question.path])}  # what is asked can be seen
            others = [path for path, text in files.items() if {*stems(question.text)} <= {*stems(text)}]
            assert others == [question.path]
        by_split[package.source.split] += len(package.questions)
    assert by_split["test"] >= 60 and by_split["validation"] >= 30 and by_split["train"] >= 250


def test_a_missing_or_damaged_corpus_says_the_way_out(tmp_path):
    file = tmp_path / "repositories.json.gz"
    with pytest.raises(ReflectRLError, match="is missing; restore it"):
        corpus.packages(file)
    file.write_bytes(b"no gzip")
    with pytest.raises(ReflectRLError, match="is damaged"):
        corpus.packages(file, "x")
    file.write_bytes(gzip.compress(b"{}"))
    with pytest.raises(ReflectRLError, match="its checksum differs.*autoexplore.build"):
        corpus.packages(file, "y")


def archive(path, files):
    with tarfile.open(path, "w:gz") as made:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            made.addfile(member, io.BytesIO(text.encode()))
    return corpus.Source("tiny", "1.0", sha256(path.read_bytes()).hexdigest(), "MIT", "train")


def test_building_keeps_what_it_should(tmp_path):
    many = {f"tiny-1.0/src/tiny/deep/{i:02}.py": f"'''Count the lines of kind {i}.'''" for i in range(20)}
    files = many | {
        "tiny-1.0/LICENSE": "Permission is granted.",
        "tiny-1.0/dates.py": MODULE,
        "tiny-1.0/tests/test_dates.py": "x = 1",
        "tiny-1.0/a/b/c/d/deep.py": "x = 1",
        "tiny-1.0/large.txt": "x" * 200_000,
        "tiny-1.0/../../escape.py": "x = 1",
    }
    path = tmp_path / "tiny-1.0.tar.gz"
    source = archive(path, files)
    content = build.packed(
        [source], {"tiny": path}, frozenset(["Which file defines a queue that keeps the order of jobs?"])
    )
    assert content == build.packed(
        [source], {"tiny": path}, frozenset(["Which file defines a queue that keeps the order of jobs?"])
    )
    made = json.loads(content)["tiny"]
    assert made["licence"] == "Permission is granted."
    assert {*made["files"]} == {"dates.py", *(f"tiny/deep/{i:02}.py" for i in range(build.FILES))}
    assert [a["path"] for a in made["questions"]] == ["dates.py"]  # the other one was rejected


def test_a_wrong_archive_is_refused(tmp_path):
    path = tmp_path / "tiny-1.0.tar.gz"
    source = archive(path, {"tiny-1.0/LICENSE": "Permission.", "tiny-1.0/a.bin": "x"})
    with pytest.raises(ReflectRLError, match="has no text files"):
        build.read(source, path)
    with pytest.raises(ReflectRLError, match="is not the pinned"):
        build.read(replace(source, sha256="0" * 64), path)
    with pytest.raises(ReflectRLError, match="has no licence"):
        build.read(archive(path, {"tiny-1.0/a.py": "x = 1"}), path)
