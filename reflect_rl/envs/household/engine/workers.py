"""Engine processes: each plays many games side by side, is watched, and is replaced where it dies or hangs.

The engine's translator takes over `sys.argv` and standard output and a fault in its C++ library ends the process, so
none of it runs in the process that trains. The state of a game is the list of its commands; a process that takes the
place of another replays them, and nothing is lost.
"""

import atexit
import multiprocessing
import os
import subprocess
import sys
import threading
import traceback
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path

from reflect_rl.core import paths
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.household import store
from reflect_rl.envs.household.engine.engine import Engine
from reflect_rl.envs.household.games import Recipe, constants
from reflect_rl.envs.household.goal import Goal
from reflect_rl.envs.household.oracle import reached, shortest_plan

DEADLINE = 120.0  # seconds for one answer; the slowest, a translation, takes two
ATTEMPTS = 3


@dataclass(frozen=True)
class Scene:
    """What a player gets to see: the text, the admissible commands, and whether the game is won."""

    text: str
    commands: tuple[str, ...]
    won: bool


def serve(handle: int) -> None:
    """The loop of a worker: answers what comes in at a file handle, until the other end is closed."""
    connection, engines, goals = Connection(handle), {}, {}

    def scene(slot: int, text: str) -> Scene:
        engine, goal = engines[slot], goals[slot]
        return Scene(text, engine.commands, engine.won if goal is None else reached(engine, goal))

    def answer(request: str, *arguments):
        if request == "make":
            return store.make(*arguments)
        slot, *arguments = arguments
        if request == "reset":
            if slot not in engines:
                engines[slot] = Engine()
            path, goal = arguments
            goals[slot] = Goal.of(Recipe.parse(goal)) if goal else None
            return scene(slot, engines[slot].reset(Path(path))), engines[slot].game.task
        engine = engines[slot]
        if request == "step":
            return scene(slot, engine.step(arguments[0]))
        if request == "plan":
            return shortest_plan(engine, Goal.of(Recipe.parse(arguments[0])))
        raise ValueError(f"unknown request {request!r}")

    while True:
        try:
            request = connection.recv()
        except (EOFError, OSError, KeyboardInterrupt):
            return
        try:
            connection.send((True, answer(*request)))
        except ReflectRLError as error:
            connection.send((False, str(error)))
        except Exception:
            connection.send((None, traceback.format_exc()))


@dataclass
class Worker:
    """One engine process. Threads may share it: one request at a time.

    Attributes:
        games: those under way in it, slot -> (path, another goal than its own or none, commands so far).
        restarts: how often a process has taken the place of another.
    """

    home: Path
    games: dict[int, tuple[str, str, list[str]]] = field(default_factory=dict)
    restarts: int = 0

    def __post_init__(self):
        self._turn = threading.RLock()
        self._start()

    def _start(self) -> None:
        self._connection, other = multiprocessing.Pipe()
        # not multiprocessing.Process, which would import the caller's own script anew
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"import {__name__} as w; w.serve({other.fileno()})"],
            pass_fds=[other.fileno()],
            env=os.environ | {"REFLECT_RL_HOME": str(self.home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # the engine prints
        )
        other.close()

    def _replace(self) -> None:
        """A fresh process in the state that the lost one was in."""
        self.close()
        self.restarts += 1
        self._start()
        for slot, (path, goal, commands) in self.games.items():
            self._exchange("reset", slot, path, goal)
            for command in commands:
                self._exchange("step", slot, command)

    def _exchange(self, *request):
        self._connection.send(request)
        if not self._connection.poll(DEADLINE):
            raise TimeoutError(f"no answer within {DEADLINE:.0f} s")
        fine, answer = self._connection.recv()
        if fine is None:
            raise RuntimeError(f"in an engine process:\n{answer}")
        if not fine:
            raise ReflectRLError(answer)
        return answer

    def request(self, *request):
        """Send a request and wait for its answer; where the process dies or hangs, from a fresh one.

        Raises:
            ReflectRLError: the request is bad, or ends one process after the other.
        """
        reason: Exception | None = None
        with self._turn:
            for attempt in range(ATTEMPTS):
                try:
                    if attempt:
                        self._replace()
                    return self._exchange(*request)
                except (EOFError, OSError) as error:  # a TimeoutError is an OSError
                    reason = error
        raise ReflectRLError(
            f"the engine process ended {ATTEMPTS} times at {' '.join(map(str, request[:3]))} ({reason or 'no message'}); is memory short?"
        )

    def reset(self, slot: int, path: Path, goal: str = "") -> tuple[Scene, str]:
        """Start a game in a slot; (what is seen first, the sentence that sets the game's own task).

        With `goal`, the name of another task in its room, it is won by that one.
        """
        with self._turn:
            self.games.pop(slot, None)
            answer = self.request("reset", slot, str(path), goal)
            self.games[slot] = (str(path), goal, [])
        return answer

    def step(self, slot: int, command: str) -> Scene:
        with self._turn:
            answer = self.request("step", slot, command)
            self.games[slot][2].append(command)
        return answer

    def close(self) -> None:
        self._connection.close()
        self.process.kill()  # it has nothing to tidy up, and a hanging one would not listen
        self.process.wait()


def engines() -> int:
    """Engine processes beside each process that plays: `$REFLECT_RL_ENGINES`, one where it is not set."""
    text = os.environ.get("REFLECT_RL_ENGINES") or "1"
    if not text.isdecimal() or int(text) < 1:
        raise ReflectRLError(f"REFLECT_RL_ENGINES={text} is not a whole number from 1 on; unset it for one engine")
    if int(text) > 1:
        constants()  # an import changes the environment for a moment, which threads must not see
    return int(text)


_starting = threading.Lock()


@cache
def _worker(home: Path, process: int, number: int) -> Worker:
    worker = Worker(home)
    atexit.register(worker.close)
    return worker


def worker(slot: int = 0) -> Worker:
    """The engine process of a slot; every environment plays in a slot of its own, and slots take turns at engines."""
    with _starting:
        return _worker(paths.home().resolve(), os.getpid(), slot % engines())
