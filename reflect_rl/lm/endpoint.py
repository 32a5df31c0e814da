"""A language model behind an OpenAI-compatible endpoint, asked politely and never twice for the same."""

import json
import os
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlparse

from reflect_rl.core import paths
from reflect_rl.core.config import ClientConfig, without_secrets
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.files import write_bytes

Message = dict[str, str]  # {"role": "system", "user" or "assistant", "content": text}


@dataclass
class Usage:
    """What the replies have cost, one that was kept from an earlier run like one of this.

    Attributes:
        requests: that were answered in this run. remembered: replies from the cache.
        at_default_temperature: replies of a model that refused the temperature it was asked for, and gave its own.
        prompt_tokens, completion_tokens: of all different replies. cost: of these, in the unit of the prices.
    """

    requests: int = 0
    remembered: int = 0
    at_default_temperature: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


class Endpoint:
    """Replies of one model; every one is kept on disk by the content of its request.

    So a stopped run goes on without asking anew, and equal requests get equal replies. Requests that fail with 408,
    409, 429 or 5xx, or that get no answer, are repeated by the `openai` library with growing pauses, and as the server
    asks for; replies that are no chat completion are asked for again.

    Some chat models know `max_tokens` as `max_completion_tokens`, or take no temperature but their own: where a server
    says so, the model is asked again in its way, from then on. `usage` counts replies at another temperature.

    Args:
        url: base URL, such as `http://localhost:8000/v1`.
        model: the name that the server knows.
        client: where the key is, which is never written, how often to ask, and what it costs.
        tries: how often a request is made at most. timeout: seconds that one may take.
    """

    def __init__(
        self,
        url: str,
        model: str,
        client: ClientConfig | None = None,
        tries: int = 6,
        timeout: float = 120.0,
    ):
        import openai  # half a second that only those wait who ask an endpoint

        host = urlparse(url).hostname
        if urlparse(url).scheme not in ("http", "https") or not host:
            raise ReflectRLError(f"endpoint {url!r} is no address; give one such as http://localhost:8000/v1")
        without_secrets(url)
        self.client = client or ClientConfig()
        key = self.client.key
        self._secret = os.environ.get(key, "")
        if not self._secret and host not in ("localhost", "127.0.0.1", "::1"):
            raise ReflectRLError(f"no key for {url}; put it into the environment variable {key}")
        self.url, self.model, self.tries = url, model, tries
        self._client = openai.OpenAI(
            base_url=url,
            api_key=self._secret or "none",
            max_retries=tries - 1,
            timeout=timeout,
            http_client=openai.DefaultHttpxClient(event_hooks={"request": [self._wait]}),  # repetitions among them
        )
        self._pause, self._next = 60 / self.client.per_minute if self.client.per_minute else 0.0, 0.0
        self._renamed: dict[str, str] = {}  # what the model refuses -> its own name for it, empty where it has none
        self._turn = threading.Lock()
        self._asked: dict[Path, threading.Lock] = defaultdict(threading.Lock)  # requests so far
        self.usage = Usage()

    def reply(self, messages: Sequence[Message], max_tokens: int, temperature: float = 0.0, attempt: int = 0) -> str:
        """The model's answer to a conversation; another `attempt` is another request.

        Raises:
            ReflectRLError: there was none after all tries, or it was refused. What was answered before is kept.
        """
        request = {
            "model": self.model,
            "messages": list(messages),
            "max_tokens": max_tokens,
            "temperature": temperature,
        }
        path = self._place(request | {"url": self.url, "attempt": attempt})
        with self._turn:
            new, asked = path not in self._asked, self._asked[path]
        with asked:  # who wants the same waits for the reply
            kept = _read(path)
            remembered = kept is not None
            if not remembered:
                kept = self._ask(request)
                write_bytes(path, (json.dumps(kept, indent=1) + "\n").encode())
        self._count(kept, remembered, new)
        return kept["text"]

    def _place(self, content: dict) -> Path:
        name = sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return paths.cache("replies") / name[:2] / f"{name}.json"

    def _ask(self, request: dict) -> dict:
        import openai

        for _ in range(self.tries):
            try:
                return self._complete(request)
            except openai.APIStatusError as error:
                raise self._failure(f"answered {error.status_code} ({self._hidden(error.message)})") from None
            except openai.APIConnectionError as error:  # timeouts among them
                raise self._failure(f"gave no answer ({self._hidden(str(error))})") from None
            except (openai.OpenAIError, AttributeError, IndexError, TypeError, ValueError) as error:
                reason = self._hidden(f"{type(error).__name__}: {error}")
        raise self._failure(f"answered, {self.tries} times, what is no chat completion ({reason})")

    def _complete(self, request: dict) -> dict:
        """One reply, to the request as this model takes it."""
        import openai

        sent = {self._renamed.get(name, name): value for name, value in request.items()}
        sent.pop("", None)
        try:
            answer = self._client.chat.completions.create(**sent)
        except openai.BadRequestError as error:
            if not self._adapt(error, sent):
                raise
            return self._complete(request)
        text, used = answer.choices[0].message.content, answer.usage
        if not isinstance(text, str):
            raise TypeError("a reply without text")
        kept = {
            "text": text,
            "prompt_tokens": used.prompt_tokens if used else 0,
            "completion_tokens": used.completion_tokens if used else 0,
        }
        return kept | ({} if "temperature" in sent else {"at_default_temperature": True})

    def _adapt(self, error, sent: dict) -> bool:
        """Whether the server named a setting of `sent` that it refuses and that can be said otherwise: then it is."""
        for name, own in (("max_tokens", "max_completion_tokens"), ("temperature", "")):
            if name in sent and (error.param == name or name in error.message):
                self._renamed[name] = own
                return True
        return False

    def _hidden(self, text: str) -> str:
        """A message of the server on one line, without the key."""
        line = " ".join(text.split())
        return (line.replace(self._secret, "***") if self._secret else line)[:200]  # a key that is cut is not found

    def _failure(self, what: str) -> ReflectRLError:
        return ReflectRLError(
            f"the endpoint {self.url} ({self.model}) {what}; see to it, or to the key in {self.client.key}, and run again: "
            "the replies so far are kept"
        )

    def _wait(self, _) -> None:
        """Keep to `per_minute`, for all threads together."""
        with self._turn:
            now = time.monotonic()
            at = max(now, self._next)
            self._next = at + self._pause
        time.sleep(at - now)

    def _count(self, kept: dict, remembered: bool, new: bool) -> None:
        usage, client = self.usage, self.client
        with self._turn:
            usage.remembered += remembered
            usage.requests += not remembered
            usage.at_default_temperature += "at_default_temperature" in kept
            if new or not remembered:
                usage.prompt_tokens += kept.get("prompt_tokens", 0)
                usage.completion_tokens += kept.get("completion_tokens", 0)
            cost = usage.prompt_tokens * client.prompt_price + usage.completion_tokens * client.completion_price
            usage.cost = cost / 1e6

    def spent(self) -> dict:
        """`usage` as plain JSON, for manifests."""
        return asdict(self.usage)


def _read(path: Path) -> dict | None:
    """A kept reply; None where there is none, or a damaged one."""
    try:
        kept = json.loads(path.read_text())
        return kept if isinstance(kept["text"], str) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
