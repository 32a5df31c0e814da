"""A language model as the teacher: its spoiler stays out of the texts, a stopped run goes on; also on a real server."""

import json
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
from corridor import SPEC as CORRIDOR
from test_endpoint import server

from reflect_rl.core.config import ClientConfig, TeacherConfig
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.files import read_json
from reflect_rl.core.identity import stage_dir
from reflect_rl.envs.play import act, begin
from reflect_rl.envs.registry import get
from reflect_rl.envs.settings import load
from reflect_rl.evaluate import prompted
from reflect_rl.lm import pretrained
from reflect_rl.train import data
from reflect_rl.train.lm_teacher import ASKED, LanguageModelTeacher
from reflect_rl.train.rollout import play

TAXI = get("taxi")
SMALL = "data.trajectories=2 data.negatives=2 data.sft_examples=40 data.horizon=8"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return tmp_path


def situations(count=4):
    env = TAXI.make(horizon=100)
    found = [begin(TAXI, env, TAXI.tasks(TAXI.headline, "train")[0])]
    while len(found) < count:
        found.append(act(TAXI, env, found[-1], TAXI.expert_action(env)))
    return found


def teacher_at(url, **more):
    return LanguageModelTeacher(TAXI, TeacherConfig(model="m", endpoint=url, **more))


def test_the_teacher_is_shown_the_spoiler_and_its_words_are_taken():
    now = situations()[1]
    with server(text="That was fine.\nGo on.") as (url, asked):
        assert teacher_at(url).reflect(now) == f"That was fine. Go on. Next: {now.expert_action}."
        assert teacher_at(url, tells="hint").reflect(now) == "That was fine. Go on."
    told = asked[0][1]["messages"]
    assert f"Spoiler: {now.expert_action}" in told[1]["content"] and now.observation in told[1]["content"]
    assert TAXI.goal in told[0]["content"] and asked[0][1]["max_tokens"] == 100
    assert ASKED["action"] in told[0]["content"] and ASKED["hint"] in asked[1][1]["messages"][0]["content"]


def test_a_teacher_of_an_environment_without_goal_and_legend_is_told_less():
    with server(text="Fine.") as (url, asked):
        bare = LanguageModelTeacher(CORRIDOR, TeacherConfig(model="m", endpoint=url))
        assert bare.reflect(begin(CORRIDOR, CORRIDOR.make(), "start-1")) == "Fine. Next: go right."
    told = asked[0][1]["messages"][0]["content"]
    assert told.startswith("You teach a player of a text game.\nSay in one or two")


@pytest.mark.parametrize(
    "text, leaks",
    [
        ("Drive on to the passenger.", False),
        ("The spoiler says so.", True),
        ("I was told to go.", True),
        ("The best next action is clear.", True),
        ("You should MOVE SOUTH now.", True),
        ("You should go down.", False),
        ("You should MOVE SOUTHWARD.", False),
    ],
)
def test_what_gives_the_spoiler_away(text, leaks):
    now = next(s for s in situations(count=6) if s.expert_action.startswith("move"))
    assert LanguageModelTeacher.leaks_spoiler(text.replace("MOVE SOUTH", now.expert_action.upper()), now) == leaks


def test_a_text_that_tells_is_asked_for_again_and_at_last_cut():
    now = situations()[0]
    texts = iter(["The spoiler says so.", "Fine so far."])
    with server(text=lambda body: next(texts)) as (url, asked):
        writer = teacher_at(url, tells="hint")
        assert writer.reflect(now) == "Fine so far." and writer.leaked == 1
        assert [body["temperature"] for _, body, _ in asked] == [0.0, 1.0]
    stubborn = f"Well done. The spoiler is {now.expert_action}. Go on!"
    with server(text=stubborn) as (url, asked):
        writer = teacher_at(url, tells="hint")
        assert writer.reflect(now) == "Well done. Go on!" and writer.leaked == len(asked) == 3


def test_data_of_a_language_model_are_made_and_a_stopped_run_goes_on():
    with server(text="All is well.") as (url, asked):
        settings = f"{SMALL} teacher.model=m teacher.endpoint={url} client.prompt_price=1.0 client.side_by_side=2"
        run = load("smoke", overrides=settings)
        manifest = data.make(run)
        count = manifest["teacher"]["requests"]
        assert manifest["teacher"]["model"] == "m" and manifest["teacher"]["leaked"] == 0
        assert count == len(asked) > 8 and manifest["teacher"]["cost"] == pytest.approx(count * 10e-6)
        assert all(e.reflection.startswith("All is well. Next: ") for e in data.read_examples(run))
    rules = load("smoke", overrides=SMALL)
    assert stage_dir(rules, "data") != stage_dir(run, "data")
    assert "teacher" not in data.make(rules)
    again = load("smoke", seed=0, overrides=settings)
    for file in ("manifest.json", "config.json"):
        (stage_dir(again, "data") / file).unlink()  # as if it had been stopped; the server is gone by now
    spent = data.make(again)["teacher"]
    assert spent["requests"] == 0 and spent["cost"] == manifest["teacher"]["cost"]


def test_how_an_endpoint_is_asked_is_no_part_of_what_the_data_are():
    with server(text="Fine.") as (url, asked):
        settings = f"{SMALL} teacher.model=m teacher.endpoint={url}"
        data.make(load("smoke", overrides=settings))
        before = len(asked)
        other = load("smoke", overrides=f"{settings} client.per_minute=1 client.key=OTHER")
        data.make(other)
        assert len(asked) == before and stage_dir(other, "rl") == stage_dir(load("smoke", overrides=settings), "rl")


def test_a_server_that_fails_midway_loses_nothing():
    with server(*[200] * 5, 401) as (url, asked):
        settings = f"{SMALL} teacher.model=m teacher.endpoint={url} client.side_by_side=1"
        run = load("smoke", overrides=settings)
        with pytest.raises(ReflectRLError, match="answered 401.*the replies so far are kept"):
            data.make(run)
        assert len(asked) == 6
        spent = data.make(run)["teacher"]
        conversations = [json.dumps(body["messages"]) for _, body, _ in asked]
        assert spent["requests"] == len(asked) - 6  # the five replies were not asked for again
        assert len(set(conversations)) == len(conversations) - 1


def test_a_teacher_is_named_whole():
    with pytest.raises(ReflectRLError, match="needs both teacher.model and teacher.endpoint"):
        load("smoke", overrides="teacher.model=gpt")


@pytest.mark.slow
def test_a_real_server_teaches_and_plays(home, monkeypatch, tmp_path_factory):
    """`transformers serve` with SmolLM2 on loopback."""
    keep = tmp_path_factory.getbasetemp().parent / "reflect_rl_models"
    monkeypatch.setenv("REFLECT_RL_HOME", str(keep))
    folder = pretrained.find("smollm2-135m")
    monkeypatch.setenv("REFLECT_RL_HOME", str(home))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", folder, "--host", "127.0.0.1"]
    log = (home / "serve.log").open("w")
    running = subprocess.Popen([*command, "--port", str(port), "--device", "cpu"], stdout=log, stderr=log)
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{url}/health", timeout=2).read()
                break
            except OSError:
                assert running.poll() is None and time.monotonic() < deadline, (home / "serve.log").read_text()
                time.sleep(0.5)
        settings = TeacherConfig(model=folder, endpoint=f"{url}/v1", max_new_tokens=24)
        writer = LanguageModelTeacher(TAXI, settings, ClientConfig(prompt_price=1.0))
        found = situations(count=2)
        texts = [writer.reflect(now) for now in found]
        assert all(text.endswith(f"Next: {now.expert_action}.") for text, now in zip(texts, found, strict=True))
        assert not any(
            LanguageModelTeacher.leaks_spoiler(t.rpartition("Next:")[0], s) for t, s in zip(texts, found, strict=True)
        )
        used = writer.endpoint.usage
        assert used.requests >= 2 and used.prompt_tokens > 100 and used.cost > 0
        again = LanguageModelTeacher(TAXI, settings)
        assert [again.reflect(now) for now in found] == texts and again.endpoint.usage.requests == 0
        run = load("smoke", variant="prompted", overrides=f"prompted.model={folder} prompted.endpoint={url}/v1")
        agent = prompted.agents(run)["greedy"]
        (played,) = play(TAXI, agent, TAXI.tasks("full", "validation")[:1], [np.random.default_rng(0)], 2)
        assert 1 <= len(played) <= 2
    finally:
        running.terminate()
        running.wait(timeout=30)
        log.close()


def test_costs_are_written_where_the_data_are():
    with server(text="Fine.") as (url, _):
        run = load("smoke", overrides=f"{SMALL} teacher.model=m teacher.endpoint={url}")
        data.make(run)
        assert set(read_json(stage_dir(run, "data") / "manifest.json")["teacher"]) >= {
            "requests",
            "prompt_tokens",
            "cost",
        }
