"""A server that answers well, late, wrongly or not at all, and what becomes of the asking."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from reflect_rl.core import paths
from reflect_rl.core.config import ClientConfig, PromptedConfig, TeacherConfig
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.lm.endpoint import Endpoint

HELLO = [{"role": "user", "content": "hello"}]


@contextmanager
def server(*script, text="fine", refuses=lambda body: None):
    """Answers in turn what `script` says (a status, or a body), then well; yields (url, what was asked).

    `refuses` gives the error for a request that is not to be answered.
    """
    asked, left = [], list(script)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((time.monotonic(), body, self.headers.get("Authorization")))
            step = left.pop(0) if left else 200
            if step == "hang up":
                self.connection.close()
                return
            status, content = (step, None) if isinstance(step, int) else (200, step)
            if content is None:
                answer = text(body) if callable(text) else text
                content = json.dumps(
                    {
                        "id": "1",
                        "object": "chat.completion",
                        "created": 0,
                        "model": body["model"],
                        "choices": [
                            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": answer}}
                        ],
                        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
                    }
                )
            if refusal := refuses(body):
                status, content = 400, json.dumps({"error": refusal})
            elif status != 200:
                content = json.dumps({"error": {"message": f"no, not with {self.headers.get('Authorization')}"}})
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Retry-After", "0.01")
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{running.server_port}/v1", asked
    finally:
        running.shutdown()
        running.server_close()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return tmp_path


def test_replies_are_kept_by_content_and_outlive_the_process():
    with server() as (url, asked):
        priced = ClientConfig(prompt_price=1.0, completion_price=2.0)
        first = Endpoint(url, "m", priced)
        assert first.reply(HELLO, 8) == first.reply(HELLO, 8) == "fine"
        assert first.spent() == {
            **{"requests": 1, "remembered": 1, "at_default_temperature": 0},
            **{"prompt_tokens": 10, "completion_tokens": 5},
            "cost": pytest.approx(20e-6),
        }
        again = Endpoint(url, "m", priced)
        assert again.reply(HELLO, 8) == "fine" and again.usage.requests == 0
        assert again.usage.cost == first.usage.cost  # what a stopped run has paid is not forgotten
        assert len(asked) == 1
        for other in ({"max_tokens": 9}, {"max_tokens": 8, "temperature": 1.0}, {"max_tokens": 8, "attempt": 1}):
            again.reply(HELLO, **other)
        Endpoint(url, "another").reply(HELLO, 8)
        assert len(asked) == 5


def test_a_damaged_reply_is_asked_for_anew():
    with server() as (url, asked):
        Endpoint(url, "m").reply(HELLO, 8)
        (kept,) = paths.cache("replies").glob("*/*.json")
        kept.write_text("{")
        assert Endpoint(url, "m").reply(HELLO, 8) == "fine" and len(asked) == 2


@pytest.mark.parametrize("bad", [429, 500, 503, "hang up", '{"choices": []}', '{"choices": null}', "garbage", "[]"])
def test_what_fails_once_is_repeated(bad):
    with server(bad) as (url, asked):
        assert Endpoint(url, "m", tries=3).reply(HELLO, 8) == "fine"
        assert len(asked) == 2


@pytest.mark.parametrize(
    "bad, says",
    [
        (429, "answered 429"),
        (500, "answered 500"),
        (401, "answered 401"),
        ("hang up", "gave no answer"),
        ('{"choices": []}', "answered, 2 times, what is no chat completion"),
        ("garbage", "answered, 2 times, what is no chat completion"),
    ],
)
def test_what_goes_on_failing_is_one_clear_error(bad, says, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    with server(*[bad] * 4) as (url, asked), pytest.raises(ReflectRLError, match=says) as caught:
        Endpoint(url, "m", tries=2).reply(HELLO, 8)
    assert len(asked) == (1 if bad == 401 else 2)
    assert "run again: the replies so far are kept" in str(caught.value) and url in str(caught.value)
    assert "sk-very-secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_nobody_listens_or_answers_in_time():
    with server() as (url, _):
        pass  # it is gone
    with pytest.raises(ReflectRLError, match="gave no answer"):
        Endpoint(url, "m", tries=1).reply(HELLO, 8)
    with server(text=lambda body: time.sleep(2) or "late") as (url, _):
        with pytest.raises(ReflectRLError, match="gave no answer"):
            Endpoint(url, "m", tries=1, timeout=0.2).reply(HELLO, 8)


def test_the_key_is_sent_and_never_stored(monkeypatch, home):
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    with server() as (url, asked):
        Endpoint(url, "m", ClientConfig(key="MY_KEY")).reply(HELLO, 8)
    assert asked[0][2] == "Bearer sk-very-secret"
    kept = [path for path in home.rglob("*") if path.is_file()]
    assert kept and not any(b"secret" in path.read_bytes() for path in kept)


def test_a_far_server_needs_a_key_and_an_address():
    with pytest.raises(ReflectRLError, match="put it into the environment variable OPENAI_API_KEY"):
        Endpoint("https://example.org/v1", "m")
    for address in ("example.org", "ftp://example.org", ""):
        with pytest.raises(ReflectRLError, match="is no address"):
            Endpoint(address, "m")


def test_requests_keep_their_distance():
    with server() as (url, asked):
        endpoint = Endpoint(url, "m", ClientConfig(per_minute=300))
        _all_at_once([lambda i=i: endpoint.reply(HELLO, 8 + i) for i in range(4)])
    times = sorted(at for at, *_ in asked)
    assert len(times) == 4 and times[-1] - times[0] >= 0.55  # three pauses of 0.2 s, less what sending takes


def test_repeated_requests_keep_their_distance_too():
    with server(429, 429) as (url, asked):
        Endpoint(url, "m", ClientConfig(per_minute=20)).reply(HELLO, 8)
    times = [at for at, *_ in asked]
    assert len(times) == 3 and min(np.diff(times)) > 2.9


def test_equal_requests_at_the_same_time_are_paid_once():
    with server(text=lambda body: time.sleep(0.3) or "fine") as (url, asked):
        endpoint = Endpoint(url, "m")
        _all_at_once([lambda: endpoint.reply(HELLO, 8)] * 5)
        assert len(asked) == 1 and endpoint.usage.requests == 1 and endpoint.usage.remembered == 4
        assert endpoint.usage.prompt_tokens == 10


def _all_at_once(calls):
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_threads_count_together():
    with server() as (url, _):
        endpoint = Endpoint(url, "m")
        _all_at_once([lambda i=i: endpoint.reply(HELLO, 8 + i) for i in range(16)])
        assert endpoint.usage.requests == 16 and endpoint.usage.prompt_tokens == 160


@pytest.mark.parametrize("before", range(150, 206, 5))
def test_a_key_is_hidden_before_a_message_is_cut(before, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    hidden = Endpoint("http://localhost:1/v1", "m")._hidden("x" * before + " sk-very-secret " + "y" * 99)
    assert "sk" not in hidden and len(hidden) <= 200


@pytest.mark.parametrize(
    "address", ["https://u:sk-secret@h/v1", "https://sk-secret@h/v1", "https://h/v1?key=sk-secret"]
)
def test_a_secret_in_an_address_is_refused_and_not_repeated(address):
    for make in (
        lambda: Endpoint(address, "m"),
        lambda: PromptedConfig(endpoint=address),
        lambda: TeacherConfig(model="m", endpoint=address),
    ):
        with pytest.raises(ReflectRLError, match="has a user, a password or a query") as caught:
            make()
        assert "secret" not in str(caught.value)


# --- models that take other settings ---


def refusal(name, message, code="unsupported_parameter"):
    return {"message": message, "type": "invalid_request_error", "param": name, "code": code}


def newer(body):
    """Refuses what newer chat models refuse."""
    if "max_tokens" in body:
        return refusal("max_tokens", "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
    if body.get("temperature", 1) != 1:
        return refusal("temperature", "Only the default (1) value is supported.", "unsupported_value")
    return None


def plain(body):
    """The same in a message alone."""
    return {"message": newer(body)["message"] + " (temperature)"} if newer(body) else None


@pytest.mark.parametrize("refuses", [newer, plain])
def test_a_model_that_refuses_max_tokens_and_temperature_is_asked_in_its_way(refuses):
    with server(refuses=refuses) as (url, asked):
        endpoint = Endpoint(url, "m")
        assert endpoint.reply(HELLO, 8) == "fine"
        bodies = [body for _, body, _ in asked]
        assert [("max_tokens" in b, "temperature" in b) for b in bodies] == [
            (True, True),
            (False, True),
            (False, False),
        ]
        assert bodies[-1]["max_completion_tokens"] == 8
        assert endpoint.reply(HELLO, 9) == "fine" and len(asked) == 4  # it is remembered
        assert endpoint.spent()["at_default_temperature"] == endpoint.spent()["requests"] == 2


def test_a_temperature_that_is_taken_is_sent():
    refuses = lambda body: newer(body) if "max_tokens" in body else None  # noqa: E731
    with server(refuses=refuses) as (url, asked):
        endpoint = Endpoint(url, "m")
        endpoint.reply(HELLO, 8, temperature=0.0)
        assert asked[-1][1]["temperature"] == 0.0 and endpoint.usage.at_default_temperature == 0


def test_replies_are_kept_by_what_was_asked_and_not_by_how():
    refusing = []
    with server(refuses=lambda body: newer(body) if refusing else None) as (url, asked):
        Endpoint(url, "m").reply(HELLO, 8)
        (kept,) = paths.cache("replies").glob("*/*.json")
        kept.unlink()
        refusing.append(True)
        Endpoint(url, "m").reply(HELLO, 8)
        assert list(paths.cache("replies").glob("*/*.json")) == [kept]
        again, before = Endpoint(url, "m"), len(asked)
        again.reply(HELLO, 8)
        assert again.usage.at_default_temperature == 1 and len(asked) == before


@pytest.mark.parametrize(
    "refuses, requests",
    [
        (lambda body: refusal("messages", "too long a context", "context_length_exceeded"), 1),
        (lambda body: refusal("max_tokens", "'max_tokens' or 'max_completion_tokens' is too large"), 2),
    ],
)
def test_what_is_refused_for_good_is_one_clear_error(refuses, requests):
    with server(refuses=refuses) as (url, asked), pytest.raises(ReflectRLError, match="answered 400 .*too l"):
        Endpoint(url, "m").reply(HELLO, 8)
    assert len(asked) == requests
