"""Decisions per second and peak memory: what each of the project's shortcuts is worth, side by side in one run.

    python benchmarks/decisions.py [--profile smoke] [--env taxi] [--episodes 24]

The same recorded situations are decided on in every row, each row in a process of its own so that memory is its
own. Rows build on each other, but for the last two, a rough comparison at the taxi's six actions: logits of the text of
every legal action after the prompt, as action-prompt normalisation needs them (GLAM, TWOSOME), and one label of the
actions that the prompt lists. `enumeration.py` measures the library's own policies of both (claim 7 of the paper).
Writes decisions.csv and decisions.md beside this file.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from reflect_rl.core.files import write_csv, write_text
from reflect_rl.core.runtime import hardware, peak_memory_mb
from reflect_rl.envs.base import EnvSpec
from reflect_rl.envs.registry import get
from reflect_rl.envs.settings import load
from reflect_rl.lm.models import pad
from reflect_rl.lm.prompts import policy_prompt, reflection_prompt
from reflect_rl.train.agents import PerturbedAgent, Scripted
from reflect_rl.train.rollout import play
from reflect_rl.train.warmup import PlayerPair, warm_up

WAYS = {
    "straightforward": "one decision at a time, a reflection each time, full vocabulary head",
    "batched": "decisions of all episodes in one batch",
    "label rows": "and only the legal labels' rows of the head, at the last position only",
    "remembered": "and equal prompts once: what the library does",
    "action-prompt": "batched, no reflection: every action's text scored after the prompt",
    "single-prompt": "batched, no reflection: one label of the enumerated actions, each prompt anew",
}


def situations(spec: EnvSpec, episodes: int) -> list[list[tuple[str, str, tuple[str, ...]]]]:
    """(observation, last action, legal actions) of every step of recorded episodes, grouped by step."""
    tasks = spec.panel(spec.training_setting, "validation", episodes)
    agent = PerturbedAgent(spec, Scripted(spec, "oracle"), 0.1)
    played = play(spec, agent, tasks, [np.random.default_rng([8, i]) for i in range(len(tasks))], horizon=20)
    steps = []
    for index in range(max(map(len, played))):
        alive = [e for e in played if index < len(e)]
        last = [e.transitions[index - 1] if index else None for e in alive]
        steps.append(
            [
                (t.observation, "" if b is None else b.actions[b.decision.action], t.actions)
                for t, b in zip((e.transitions[index] for e in alive), last, strict=True)
            ]
        )
    return steps


@torch.no_grad()
def decide(way: str, players: PlayerPair, batch: list) -> None:
    policy, reflector = players.policy, players.reflector
    if way in ("action-prompt", "single-prompt"):
        reflections = [None] * len(batch)
    else:
        if way != "remembered":
            reflector.memory.clear()
        reflections = reflector.reflect([reflection_prompt(o, last) for o, last, _ in batch])
    prompts = [policy_prompt(o, last, a, r) for (o, last, a), r in zip(batch, reflections, strict=True)]
    if way in ("label rows", "single-prompt"):
        policy.log_probs(prompts, [tuple(range(len(a))) for _, _, a in batch])
    elif way == "remembered":
        distinct = list(dict.fromkeys(prompts))
        policy.log_probs(distinct, [tuple(range(len(batch[0][2])))] * len(distinct))
    else:
        if way == "action-prompt":
            heads = [prompt.split("\nActions:")[0] + "\nAnswer:" for prompt in prompts]
            prompts = [f"{h} {action}" for h, (_, _, actions) in zip(heads, batch, strict=True) for action in actions]
        policy.model(input_ids=pad(policy.encode(prompts), policy.pad_id), use_cache=False).logits.log_softmax(-1)


def measure(way: str, profile: str, env: str, episodes: int) -> dict:
    players = warm_up(load(profile, env, "reflect_rl", 0))
    players.reflector.memory.clear()
    if way == "straightforward":
        players.reflector.rows = 1  # one prompt at a time
    steps = situations(get(env), episodes)
    decide(way, players, steps[0][:2])  # the first call warms caches up
    players.reflector.memory.clear()
    before = time.perf_counter()
    for batch in steps:
        for part in [[one] for one in batch] if way == "straightforward" else [batch]:
            decide(way, players, part)
    seconds = time.perf_counter() - before
    decisions = sum(map(len, steps))
    return {"way": way, "decisions": decisions, "seconds": seconds, "peak_memory_mb": round(peak_memory_mb())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="smoke", help="whose players decide (trained where missing)")
    parser.add_argument("--env", default="taxi")
    parser.add_argument("--episodes", type=int, default=24)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measure(arguments.way, arguments.profile, arguments.env, arguments.episodes)))
        return
    warm_up(load(arguments.profile, arguments.env, "reflect_rl", 0))
    rows = []
    for way in WAYS:
        command = [sys.executable, __file__, "--way", way, "--profile", arguments.profile, "--env", arguments.env]
        command += ["--episodes", str(arguments.episodes)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1])
    table = pd.DataFrame(rows)
    table["decisions_per_second"] = (table.decisions / table.seconds).round(1)
    table["ratio"] = (table.decisions_per_second / table.decisions_per_second[0]).round(1)
    table["what"] = table.way.map(WAYS)
    here = Path(__file__).parent
    write_csv(here / "decisions.csv", table.round(3))
    write_text(here / "decisions.md", f"{table.round(3).to_markdown(index=False)}\n\nOne thread; {hardware()}\n")


if __name__ == "__main__":
    main()
