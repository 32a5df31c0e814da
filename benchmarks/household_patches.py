"""What each change to TextWorld, and the translations that are kept, are worth on a whole run of the household.

    python benchmarks/household_patches.py [--games 18]

A row is a process and a home of its own, where games are made, an engine process starts with 32 copies of the planner,
and each game is played three times, about as often as an engine process of a run plays it: 32 episodes side by side, half
of the actions the expert's and half random. In each row but the first, one change is undone: from here, in the engine process, since the library has no switch
for it. Processor time of player and engine together is measured; they take turns, so on an idle machine it is wall time.

`run_s` is what the household takes of a whole run (`RUN`), `share` how much longer that run would be, networks and all.
`memory_mb` is the engine process at its largest, `temporary_mb` what its copies of the planner's library take on disk (or
in memory, where temporary files are kept there). Writes household_patches.csv and household_patches.md beside this file.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil

from reflect_rl.core.files import write_csv, write_text
from reflect_rl.envs.household import store
from reflect_rl.envs.household.engine import engine, patches, workers
from reflect_rl.envs.household.games import package

WAYS = {  # what is undone -> what is then done instead
    "nothing": "as the library is",
    "planner": "every game under way loads the planner's library with its debugging symbols",
    "quick texts": "TextWorld parses conditions anew, and copies deeply, at every text",
    "translations": "every engine process translates a game anew",
    "garbage collector": "Python collects garbage while a game is translated",
}
RUN = {"make": 902, "start": 60, "step": 500_000}  # games, engine processes and steps of the laptop profile, five seeds
RUN_SECONDS = 2 * 1598  # it takes 26:38 on two cores
EPISODES, SIDE_BY_SIDE, HORIZON = 3, 32, 15
REPEATS = 2  # engine processes a row; the quickest counts, since what else runs on a machine only slows


def undo(way: str) -> None:
    """Undo one of `WAYS` in this process."""
    match way:
        case "planner":
            patches.planner = lambda: package("fast_downward.interface")
        case "quick texts":
            patches.quick_texts = lambda: None
        case "translations":
            engine.files = SimpleNamespace(write_bytes=lambda *_: None)
        case "garbage collector":
            names = ("disable", "enable", "isenabled")
            engine.gc = SimpleNamespace(**dict.fromkeys(names, lambda *_: None))


def undone(way: str) -> None:
    """Have the engine processes that start from now on undo one of `WAYS` first."""

    def start(command: list[str], env: dict, **options) -> subprocess.Popen:
        before = f"import household_patches as b; b.undo({way!r}); "
        env = env | {"PYTHONPATH": os.pathsep.join((str(Path(__file__).parent), env.get("PYTHONPATH", "")))}
        return subprocess.Popen([*command[:-1], before + command[-1]], env=env, **options)

    workers.subprocess = SimpleNamespace(Popen=start, DEVNULL=subprocess.DEVNULL)


def cpu_seconds() -> float:
    """Processor time so far of this process and its engine process."""
    used = [psutil.Process(pid).cpu_times() for pid in (os.getpid(), workers.worker().process.pid)]
    return sum(times.user + times.system for times in used)


def timed(work: Callable[[], object]) -> float:
    """Processor time of something, in seconds."""
    before = cpu_seconds()
    work()
    return cpu_seconds() - before


def new_engine() -> None:
    workers.worker().close()
    workers._worker.cache_clear()


def step_seconds(tasks: Sequence[str], seed: int) -> float:
    """Processor time of a step, resets included, where each task is played `EPISODES` times in turn with others."""
    from reflect_rl.envs.household.spec import SPEC
    from reflect_rl.train.agents import PerturbedAgent, Scripted
    from reflect_rl.train.rollout import play

    episodes = []

    def rollouts() -> None:
        order = np.random.default_rng(seed).permutation(list(tasks) * EPISODES).tolist()
        for first in range(0, len(order), SIDE_BY_SIDE):
            part = order[first : first + SIDE_BY_SIDE]
            rngs = [np.random.default_rng([seed, first, i]) for i in range(len(part))]
            episodes.extend(play(SPEC, PerturbedAgent(SPEC, Scripted(SPEC, "expert"), 0.5), part, rngs, HORIZON))

    return timed(rollouts) / sum(map(len, episodes))


def measure(way: str, games: int) -> dict:
    """One row, to be called with a fresh home."""
    from reflect_rl.envs.household.spec import SPEC

    undone(way)
    new_engine()
    tasks = store.tasks("full", "train", games // 3)
    first, *others = [store.parse_task(task).game for task in tasks]
    workers.worker().request("make", first)
    make = timed(lambda: [workers.worker().request("make", game) for game in others]) / len(others)
    starts, steps = [], []
    for number in range(REPEATS):
        new_engine()
        envs = [SPEC.make(horizon=HORIZON) for _ in range(SIDE_BY_SIDE)]
        starts.append(timed(lambda envs=envs: [env.reset(options={"task": tasks[0]}) for env in envs]))
        del envs
        steps.append(step_seconds(tasks, number))
    start, step = min(starts), min(steps)
    process = Path(f"/proc/{workers.worker().process.pid}")
    peak = re.search(r"VmHWM:\s+(\d+)", (process / "status").read_text())
    copies = set(re.findall(r"\d+ (\d+) +\S+libdownward\.so", (process / "maps").read_text()))
    undo(way)
    size = Path(patches.planner().DOWNWARD_LIB_PATH).stat().st_size / 2**20
    return {
        "undone": way,
        "make_ms": round(1000 * make),
        "start_ms": round(1000 * start),
        "step_ms": round(1000 * step, 2),
        "run_s": round(make * RUN["make"] + start * RUN["start"] + step * RUN["step"]),
        "memory_mb": round(int(peak[1]) / 1024),
        "temporary_mb": round(size * len(copies)),
        "instead": WAYS[way],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", type=int, default=18)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measure(arguments.way, arguments.games)))
        return
    rows = []
    for way in WAYS:
        with tempfile.TemporaryDirectory() as home:
            done = subprocess.run(
                [sys.executable, __file__, "--way", way, "--games", str(arguments.games)],
                env=os.environ | {"REFLECT_RL_HOME": home},
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    table.insert(5, "ratio", (table.run_s / table.run_s[0]).round(2))
    table.insert(6, "share", ((table.run_s - table.run_s[0]) / RUN_SECONDS).round(2))
    from reflect_rl.core.runtime import hardware  # here: engine processes import this file and need no torch

    here = Path(__file__).parent
    write_csv(here / "household_patches.csv", table)
    write_text(here / "household_patches.md", f"{table.to_markdown(index=False)}\n\n{hardware()}\n")


if __name__ == "__main__":
    main()
