"""Hostile actions and tasks against every environment: no part of `make test`.

    python tests/campaigns/actions.py [--actions 100000] [--tasks 10000] [--seed 0]

Three of ten actions are none: far beyond the legal ones, negative, no number at all. Of every step is checked what the
environment promises: an index beyond the legal actions changes nothing that is legal, is named, and ends nothing; what is no whole
number is a TypeError; rewards are finite; no file is opened, no process started and no connection made (Python's audit; the
household's engine, a process of its own, is asked through a pipe). Then tasks that are none: paths, commands, numbers, and names of tasks with a piece of such put into them; each is refused
with an error of one line. Writes actions.csv and actions.md beside this file.
"""

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from reflect_rl import envs
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.files import write_csv, write_text
from reflect_rl.core.runtime import hardware

HERE = Path(__file__).parent
WATCHED = ("open", "os", "subprocess", "socket", "shutil", "glob", "pathlib", "exec", "ctypes")
NO_ACTIONS = (
    -1,
    -(2**63),
    2**31,
    10**30,
    "cat /etc/passwd",
    "0",
    None,
    math.nan,
    0.5,
    [0],
    b"\0",
    True,
    np.float32(1),
    "; rm -rf /",
)
NO_TASKS = ("", "../../etc/passwd", "/etc/passwd", "a\0b", "$(id)", "-1", "x" * 100_000, "\u202eksat", "no-such-task")
PIECES = (
    "../",
    "/",
    "\\",
    "\0",
    "\n",
    " ",
    "$(id)",
    "`id`",
    ";",
    "%2e%2e",
    "~",
    "*",
    "\u202e",
    "\ud800",
    "-",
    "--",
    "1e9",
    "x" * 5000,
)


class Audit:
    """Which of Python's audited events happen while it watches; there is no way to take a hook away."""

    def __init__(self):
        self.watching, self.seen = False, []
        sys.addaudithook(self._hook)

    def _hook(self, event, arguments):
        if self.watching and event.split(".")[0] in WATCHED:
            self.seen.append((event, arguments))


def spoilt(task: str, rng: np.random.Generator) -> str:
    """A task's name with one of `PIECES` in it."""
    at = int(rng.integers(len(task) + 1))
    return task[:at] + PIECES[rng.integers(len(PIECES))] + task[at:]


def attack(name: str, actions: int, tasks: int, rng: np.random.Generator, audit: Audit) -> dict:
    """Play at random, wildly; raises AssertionError where a promise is broken."""
    spec = envs.get(name)
    env, panel = spec.make(), spec.panel(spec.training_setting, "train", 50)
    observation, info = env.reset(options={"task": str(panel[0])})
    counts = dict.fromkeys(("legal", "not_legal", "refused", "episodes"), 0)
    for _ in tqdm(range(actions), name, unit="action"):
        legal = info["actions"]
        hostile = rng.random() < 0.3
        action = NO_ACTIONS[rng.integers(len(NO_ACTIONS))] if hostile else int(rng.integers(len(legal)))
        is_number = isinstance(action, int)
        kind = "refused" if not is_number else "legal" if 0 <= action < len(legal) else "not_legal"
        counts[kind] += 1
        audit.watching = True
        try:
            after, reward, terminated, truncated, info = env.step(action)
        except TypeError:
            assert not is_number, f"{name} refuses {action!r}"
            continue
        finally:
            audit.watching = False
        assert is_number, f"{name} takes {action!r} for an action"
        assert math.isfinite(reward) and info["actions"], (name, action)
        assert info.get("invalid_action") == (action if kind == "not_legal" else None), (name, action)
        if kind == "not_legal":
            assert not terminated and (after, info["actions"]) == (observation, legal), f"{action!r} changed {name}"
        observation = after
        if terminated or truncated:
            counts["episodes"] += 1
            observation, info = env.reset(options={"task": str(panel[rng.integers(len(panel))])})
    for task in (*NO_TASKS, *(spoilt(str(panel[rng.integers(len(panel))]), rng) for _ in range(tasks))):
        audit.watching = True
        try:
            env.reset(options={"task": task})
        except ReflectRLError as error:
            assert "\n" not in str(error), f"{name}: an answer of several lines to {task[:20]!r}"
        else:
            raise AssertionError(f"{name} takes {task!r} for a task")
        finally:
            audit.watching = False
    assert not audit.seen, f"{name} reached outside: {audit.seen[:3]}"
    return {"environment": name, "actions": actions} | counts | {"tasks_refused": len(NO_TASKS) + tasks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actions", type=int, default=100_000, help="for each environment")
    parser.add_argument(
        "--tasks", type=int, default=10_000, help="names of tasks that are spoilt, for each environment"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--envs", nargs="+", default=[*envs.names()])
    given = parser.parse_args()
    audit, rows = Audit(), []
    for name in given.envs:
        began = time.monotonic()
        rows.append(attack(name, given.actions, given.tasks, np.random.default_rng(given.seed), audit))
        rows[-1]["seconds"] = round(time.monotonic() - began)
    table = pd.DataFrame(rows)
    write_csv(HERE / "actions.csv", table)
    write_text(HERE / "actions.md", f"{table.to_markdown(index=False)}\n\nSeed {given.seed}; {hardware()}\n")


if __name__ == "__main__":
    main()
