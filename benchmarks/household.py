"""Environment steps per second and memory of household games, beside the raw engine, in one run.

    python benchmarks/household.py [--games 4] [--steps 400] [--resets 1000]

Random legal commands in kitchens (the paper's task). `raw` is TextWorld's own environment behind ALFWorld's wrapper,
`engine` is this project's in the same process, `environment` is what rollouts use: notes and a process of its own
included; `rollout` is many of those side by side, in one engine process and in two. Translating a game is timed apart,
since it happens once in a machine's life. Writes household.csv and household.md beside this file.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from reflect_rl.core.files import write_csv, write_text
from reflect_rl.core.runtime import hardware
from reflect_rl.envs.household import games, store
from reflect_rl.envs.household.engine import workers
from reflect_rl.envs.household.engine.engine import Engine
from reflect_rl.envs.household.env import Household
from reflect_rl.envs.household.spec import SPEC
from reflect_rl.train.agents import Random
from reflect_rl.train.rollout import play

WAYS = {
    "raw": "TextWorld's PddlEnv behind ALFWorld's AlfredDemangler",
    "engine": "the project's engine",
    "environment": "Household in an engine process, with notes",
    "rollout": "32 episodes side by side, one engine process",
    "rollout, 2 engines": "32 episodes side by side, two engine processes",
}
SIDE_BY_SIDE = 32


def rss_mb(process: int | str = "self") -> float:
    """Resident memory of a process in MB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def raw_steps(paths: list[Path], steps: int) -> dict:
    textworld = games.package("textworld")
    env = games.package("textworld.envs.pddl.pddl").PddlEnv(textworld.EnvInfos())
    env = games.package("alfworld.agents.environment.alfred_tw_env").AlfredDemangler(env)
    rng, reset, played = np.random.default_rng(0), [], 0.0
    for path in paths:
        env.load(str(path))
        start = time.perf_counter()
        state = env.reset()
        reset.append(time.perf_counter() - start)
        start = time.perf_counter()
        for _ in range(steps // len(paths)):
            state, _, _ = env.step(str(rng.choice(state["admissible_commands"])))
        played += time.perf_counter() - start
    return {"steps_per_second": steps / played, "reset_ms": 1000 * np.mean(reset), "memory_mb": rss_mb()}


def engine_steps(paths: list[Path], steps: int) -> dict:
    engine, rng, reset, played = Engine(), np.random.default_rng(0), [], 0.0
    for path in paths:
        engine.reset(path)
    for path in paths:
        start = time.perf_counter()
        engine.reset(path)
        reset.append(time.perf_counter() - start)
        start = time.perf_counter()
        for _ in range(steps // len(paths)):
            engine.step(str(rng.choice(engine.commands)))
        played += time.perf_counter() - start
    return {"steps_per_second": steps / played, "reset_ms": 1000 * np.mean(reset), "memory_mb": rss_mb()}


def environment_steps(tasks: list[str], steps: int) -> dict:
    env, rng, reset, played = Household(horizon=10**6), np.random.default_rng(0), [], 0.0
    for task in tasks:
        env.reset(options={"task": task})
    for task in tasks:
        start = time.perf_counter()
        env.reset(options={"task": task})
        reset.append(time.perf_counter() - start)
        start = time.perf_counter()
        for _ in range(steps // len(tasks)):
            *_, terminated, _, _ = env.step(int(rng.integers(len(env.actions))))
            if terminated:
                env.reset(options={"task": task})
        played += time.perf_counter() - start
    memory = rss_mb(workers.worker().process.pid)
    return {"steps_per_second": steps / played, "reset_ms": 1000 * np.mean(reset), "memory_mb": memory}


def rollout_steps(tasks: list[str], steps: int, engines: int) -> dict:
    os.environ["REFLECT_RL_ENGINES"] = str(engines)
    tasks = [tasks[i % len(tasks)] for i in range(SIDE_BY_SIDE)]

    def rollout(horizon: int) -> tuple[float, int]:
        rngs, start = [np.random.default_rng(i) for i in range(len(tasks))], time.perf_counter()
        episodes = play(SPEC, Random(), tasks, rngs, horizon)
        return time.perf_counter() - start, sum(map(len, episodes))

    rollout(1)  # games are read
    begun, first = rollout(1)
    seconds, taken = rollout(1 + steps // len(tasks))
    memory = max(rss_mb(workers.worker(slot).process.pid) for slot in range(engines))
    speed = (taken - first) / (seconds - begun)
    return {"steps_per_second": speed, "reset_ms": 1000 * begun / len(tasks), "memory_mb": memory}


def growth(tasks: list[str], resets: int) -> pd.DataFrame:
    """Memory of the engine process after so many resets, each with five random steps."""
    env, rng, rows = Household(horizon=10**6), np.random.default_rng(1), []
    for index in range(resets + 1):
        env.reset(options={"task": tasks[index % len(tasks)]})
        for _ in range(5):
            env.step(int(rng.integers(len(env.actions))))
        if index % (resets // 10) == 0:
            rows.append({"resets": index, "memory_mb": rss_mb(workers.worker().process.pid)})
    return pd.DataFrame(rows).round(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", type=int, default=4)
    parser.add_argument("--steps", type=int, default=400, help="in all, the same for every way")
    parser.add_argument("--resets", type=int, default=1000)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    tasks = list(store.tasks("paper", "train")[: arguments.games])
    paths = [store.path_of(store.parse_task(task).game) for task in tasks]
    if arguments.way:
        measured = {
            "raw": lambda: raw_steps(paths, arguments.steps),
            "engine": lambda: engine_steps(paths, arguments.steps),
            "environment": lambda: environment_steps(tasks, arguments.steps),
            "rollout": lambda: rollout_steps(tasks, arguments.steps, 1),
            "rollout, 2 engines": lambda: rollout_steps(tasks, arguments.steps, 2),
        }[arguments.way]()
        print(json.dumps(measured), file=sys.stderr)
        return
    for path, task in zip(paths, tasks, strict=True):
        if not path.is_file():
            workers.worker().request("make", store.parse_task(task).game)
    rows = []
    for way, what in WAYS.items():
        command = [
            sys.executable,
            __file__,
            "--way",
            way,
            "--games",
            str(arguments.games),
            "--steps",
            str(arguments.steps),
        ]
        done = subprocess.run(command, check=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        rows.append({"way": way} | json.loads(done.stderr.splitlines()[-1]) | {"what": what})
        print(rows[-1])
    table = pd.DataFrame(rows).round(1)
    table.insert(2, "ratio", (table.steps_per_second / table.steps_per_second[0]).round(1))
    memory = growth(tasks, arguments.resets)
    print(memory.to_string(index=False))
    here = Path(__file__).parent
    write_csv(here / "household.csv", table)
    write_csv(here / "household_memory.csv", memory)
    write_text(
        here / "household.md",
        f"{table.to_markdown(index=False)}\n\nMemory of the engine process over resets of {len(tasks)} games:\n\n"
        f"{memory.to_markdown(index=False)}\n\nOne core a process; {hardware()}\n",
    )


if __name__ == "__main__":
    main()
