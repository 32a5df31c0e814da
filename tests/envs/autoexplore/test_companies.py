import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from reflect_rl.envs.autoexplore import panels, reading
from reflect_rl.envs.autoexplore.companies import FILES, LETTERS, QUESTIONS, company
from reflect_rl.envs.autoexplore.repository import Repository, view
from reflect_rl.envs.autoexplore.spec import SPEC
from reflect_rl.envs.autoexplore.teacher import facts
from reflect_rl.envs.autoexplore.words import HELD_OUT, KINDS, TRADES
from reflect_rl.envs.play import act, begin

SOME = [company(number) for number in range(150)] + [company(number, True) for number in range(4000, 4040)]


def test_a_company_is_its_number():
    again = company.__wrapped__(17)
    assert again.repository.files == company(17).repository.files and again.questions == company(17).questions
    assert again.repository.files != company(18).repository.files


def test_every_question_has_one_file_that_answers_it():
    for made in SOME:
        assert FILES[0] < len(made.repository.files) <= FILES[1] and len(made.questions) == QUESTIONS
        for text, target in made.questions:
            views = {path: view(content, LETTERS) for path, content in made.repository.files.items()}
            assert [path for path, seen in views.items() if reading.answers(text, seen)] == [target]


def test_the_english_reads_well():
    texts = [text for made in SOME for text, _ in made.questions] + [
        t for made in SOME for t in made.repository.files.values()
    ]
    for text in texts:
        assert not re.search(
            r"\ba [aeiou]|\ban [^aeiou\W]|\{|\}\}|\b(\w+) \1\b", text.replace("{\n", "").replace("\n}", "")
        ), text
        assert text[0].isupper() or text[0] in '#"{'


def test_names_tell_or_are_vague_or_mislead_in_their_shares():
    kinds = Counter()
    for made in SOME:
        for path, fact in made.facts.items():
            stem = re.sub(r" ([bc]|\d+)$", "", path.rpartition("/")[2].rpartition(".")[0])
            of_fact = {fact.aspect[0], fact.topic.word[0], fact.site}
            parts = {*stem.split(" ")}
            kinds["vague" if stem in KINDS[fact.kind].vague else "tells" if parts <= of_fact else "misleads"] += 1
    shares = {kind: n / kinds.total() for kind, n in kinds.items()}
    assert shares["tells"] == pytest.approx(0.45, abs=0.03) and shares["vague"] == pytest.approx(0.5, abs=0.03)
    assert 0.02 < shares["misleads"] < 0.07


def test_half_of_the_words_that_can_be_are_paraphrased():
    other = []
    for made in SOME:
        for text, target in made.questions:
            said = {*reading.words(made.repository.files[target])}
            other += [asked not in said for asked, says in reading.telling(text).items() if _has_another(says)]
    assert np.mean(other) == pytest.approx(0.5, abs=0.05)


def _has_another(said):
    return sum(says == said for says in reading.SAID.values()) > 1


def test_panels_are_of_companies_that_no_other_has():
    names = {}
    for setting, splits in panels.COMPANIES.items():
        for split in splits:
            tasks = panels.tasks(setting, split)
            assert len({*tasks}) == len(tasks)
            names[setting, split] = {task.split("-")[1] for task in tasks}
    numbers = [number for found in names.values() for number in found]
    assert len({*numbers}) == len(numbers)
    held_out = {word for trade in HELD_OUT for topic in TRADES[trade] for word in topic.word}
    for setting, split in names:
        for task in panels.tasks(setting, split)[:200]:
            trade = panels.question(task).repository.name.split(" ")[1]
            assert (trade in HELD_OUT) == (setting == "trades")
            assert setting == "trades" or held_out.isdisjoint(reading.words(panels.question(task).text))


@pytest.mark.parametrize("setting", SPEC.settings)
def test_a_test_panel_has_questions_of_every_depth(setting):
    depths = Counter(panels.question(task).target.count("/") for task in panels.tasks(setting, "test"))
    assert set(depths) == {0, 1, 2} and min(depths.values()) >= 60 and depths.total() >= 300, depths


def test_training_leaves_files_out_but_never_the_target_and_shuffles():
    tasks = [f"companies-0-{i}-{variant}" for i in range(QUESTIONS) for variant in range(panels.VARIANTS)]
    assert {*tasks} <= {*panels.tasks("companies", "train")}
    found = [panels.question(task) for task in tasks]
    whole = company(0).repository.files
    sizes = [len(question.repository.files) / len(whole) for question in found]
    assert all(question.target in question.repository.files for question in found)
    assert {*sizes[:: panels.VARIANTS]} == {1.0}
    others = [size for i, size in enumerate(sizes) if i % panels.VARIANTS]
    assert np.mean(others) == pytest.approx(0.5, abs=0.06) and len({*others}) > 8
    assert found[0].shuffle is not None and panels.question(panels.tasks("companies", "test")[0]).shuffle is None


def test_words_that_training_lacks_are_a_stratum_of_the_held_out_trades():
    words = {s: [panels.strata(t)["words"] for t in panels.tasks(s, "test")] for s in SPEC.settings}
    assert {*words["companies"]} == {"seen"} and 80 < Counter(words["trades"])["unseen"] < 200
    others = {topic.word[1] for trade in HELD_OUT for topic in TRADES[trade] if topic.word[1] != topic.word[0]}
    for task in panels.tasks("trades", "test"):
        paraphrases = others & {*reading.words(panels.question(task).text)}
        assert (panels.strata(task)["words"] == "unseen paraphrase") == bool(paraphrases)
    assert 10 < Counter(words["trades"])["unseen paraphrase"] < 40


def test_a_rival_is_another_file_of_the_kind_and_shares_some_of_what_is_asked_for():
    rivals = [panels.strata(task)["rival"] for task in panels.tasks("companies", "test")]
    assert {*rivals} == {"shares 0 of 3", "shares 1 of 3", "shares 2 of 3"}
    assert rivals.count("shares 2 of 3") / len(rivals) == pytest.approx(0.3, abs=0.05)
    task = panels.tasks("companies", "test")[0]
    asked, facts = panels.question(task), company(int(task.split("-")[1])).facts
    same = [
        len({*fact.key} & {*facts[asked.target].key})
        for path, fact in facts.items()
        if path != asked.target and fact.kind == facts[asked.target].kind
    ]
    assert panels.strata(task)["rival"] == f"shares {max(same, default=0)} of 3"


def test_stages_go_by_depth():
    for stage, most in zip(panels.DEPTHS, (0, 1), strict=True):
        tasks = panels.tasks(stage, "train")
        assert {panels.question(task).target.count("/") for task in tasks[::97]} <= {*range(most + 1)}
        assert 1000 < len(tasks) < len(panels.tasks("companies", "train"))


def played(task, horizon=30):
    env = SPEC.make(horizon=horizon)
    now, found = begin(SPEC, env, task), []
    while now is not None:
        found.append((now, env.question, set(env.read)))
        now = act(SPEC, env, now, SPEC.expert_action(env))
    return found, env


def test_the_expert_is_honest_and_does_not_loop():
    tasks = panels.tasks("companies", "validation")[:160]
    steps = []
    for task in tasks:
        found, env = played(task)
        assert len({(now.observation, now.last_action) for now, *_ in found}) == len(found)  # never twice at the same
        steps.append(len(found) if env.question.target in env.read else 99)
    assert np.mean(np.array(steps) <= 15) >= 0.93
    assert np.mean(np.array(steps) <= 30) >= 0.98


@pytest.mark.parametrize(
    "player", [SPEC.expert_action, *(SPEC.references[name] for name in ("blind_search", "name_search"))]
)
def test_the_expert_does_not_know_what_it_has_not_read(player):
    """With all texts that it has not read replaced, and another of these asked for, it does the same."""
    for task in panels.tasks("companies", "validation")[:12]:
        env = SPEC.make()
        now = begin(SPEC, env, task)
        while now is not None:
            action, kept = player(env), env.question
            files = {path: text if path in env.read else "?" for path, text in kept.repository.files.items()}
            others = [path for path in files if path not in {*env.read, kept.target}]
            target = kept.target if kept.target in env.read or not others else others[-1]
            env.question = replace(kept, target=target, repository=Repository("?", files))
            assert player(env) == action
            env.question = kept
            now = act(SPEC, env, now, action)


def test_the_expert_remembers_more_than_the_player_sees_in_few_situations():
    """What was read before the last file and answers is named all the same; a player sees what it has read last."""
    remembered, situations, rng = 0, 0, np.random.default_rng(0)
    for task in panels.tasks("companies", "train")[:150]:
        env = SPEC.make()
        now = begin(SPEC, env, task)
        while now is not None:
            situations += 1
            remembered += env.question.target in env.read - {env.last_read}
            now = act(
                SPEC, env, now, rng.integers(len(now.actions)) if rng.random() < 0.15 else SPEC.expert_action(env)
            )
    assert 0 < remembered / situations < 0.02


def test_reflections_say_the_evidence_before_the_verdict_and_then_what_to_do():
    texts = [
        (now, SPEC.teacher(now), read)
        for task in panels.tasks("companies", "validation")[:8]
        for now, _, read in played(task)[0]
    ]
    for now, text, _ in texts:
        said = facts(text)
        assert said["action"] == now.expert_action in now.actions
        assert ("evidence" in said) == now.last_action.startswith("cat ")
        if "match" in said:
            assert text.index("Asked") < text.index(said["match"]) < text.index("Next:")
            pairs = [re.split(" is |, ", part) for part in said["evidence"].removeprefix("Asked ").split("; ")]
            for asked, says, same in pairs:
                assert (same == "yes") == (reading.SAID[asked.lower()] == says.lower())
            assert (said["match"] == "the file") == ({same for *_, same in pairs} == {"yes"})
            assert (said["match"] == "the file") == now.expert_action.startswith("id ")
    for tells in ("hint", "verdict"):
        for now, *_ in texts:
            assert now.expert_action not in SPEC.teacher_of(tells)(now)
