"""Does AutoExplore's reflector know an answer when it reads it? Measured before anything is said of success.

    python benchmarks/matching.py [--profile laptop] [--seeds 0 1 2 3 4]

The reflector of each seed, trained below $REFLECT_RL_HOME where that was not done before, goes on from situations along the
expert's way through questions of a panel, one action in seven being random. A row a panel: after a file was read, the share
of the files that answer that it calls so (`recall`), and of the others (`false_positives`); the share of the comparisons
word by word that are as the teacher has them (`evidence`); in all situations, the share of advice that is as good as the
expert's (`advice`). `--splits validation` where something is still to be chosen by it. Writes matching.csv and matching.md
beside this file.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from reflect_rl.core.files import write_csv, write_text
from reflect_rl.core.runtime import hardware
from reflect_rl.envs.autoexplore.marks import recognition
from reflect_rl.envs.base import EnvSpec, Situation
from reflect_rl.envs.play import advised_action
from reflect_rl.envs.registry import get
from reflect_rl.envs.settings import load, profile
from reflect_rl.lm.players import Reflector
from reflect_rl.lm.prompts import reflection_prompt
from reflect_rl.train.data import trajectory
from reflect_rl.train.warmup import warm_up

HERE = Path(__file__).parent
ENV = "autoexplore"
RANDOM, TASKS = 1 / 7, 150


def situations(spec: EnvSpec, setting: str, split: str) -> list[tuple[Situation, set[int]]]:
    """Situations of a panel, each with the indices of the actions that are as good as the expert's."""
    found, env, rng = [], spec.make(horizon=spec.horizon), np.random.default_rng(7)
    for task in spec.panel(setting, split, TASKS):
        for now, _ in trajectory(spec, env, task, RANDOM, rng):
            found.append((now, {*spec.good(env)}))
    return found


def measured(spec: EnvSpec, reflector: Reflector, probed: Sequence[tuple[Situation, set[int]]]) -> dict:
    """What a reflector says in these situations, as shares."""
    texts = reflector.reflect([reflection_prompt(now.observation, now.last_action) for now, _ in probed])
    marks: dict[str, list[bool]] = {"recall": [], "false_positives": [], "evidence": [], "advice": []}
    for (now, good), text in zip(probed, texts, strict=True):
        told, said = spec.facts_of(spec.teacher(now)), spec.facts_of(text)
        marks["advice"].append(advised_action(text, now.actions) in good)
        for name, mark in recognition(told, said).items():
            marks[name].append(mark)
    counts = {"answers": len(marks["recall"]), "others": len(marks["false_positives"]), "situations": len(probed)}
    return counts | {name: float(np.mean(of)) for name, of in marks.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--splits", nargs="+", default=["validation", "test"], choices=("validation", "test"))
    parser.add_argument("--overrides", default="", help="settings, such as reflector.steps=1200")
    given = parser.parse_args()
    spec, rows = get(ENV), []
    panels = [(setting, split) for setting in spec.settings for split in given.splits if spec.tasks(setting, split)]
    probed = {panel: situations(spec, *panel) for panel in panels}
    regime = profile(given.profile).regimes_of(ENV)[0]
    for seed in given.seeds:
        settings = load(given.profile, ENV, "reflect_rl", seed, given.overrides, regime)
        reflector = warm_up(settings, policy=False).reflector
        for panel, of_panel in probed.items():
            rows.append({"panel": ", ".join(panel), "seed": seed} | measured(spec, reflector, of_panel))
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    write_csv(HERE / "matching.csv", table)
    marks = ["recall", "false_positives", "evidence", "advice"]
    means = table.groupby("panel", sort=False)[marks].agg(["mean", "min", "max"]).round(3)
    means.columns = [" ".join(of) for of in means.columns]
    words = (
        f"Profile {given.profile} {given.overrides}".rstrip()
        + f", seeds {', '.join(map(str, given.seeds))}; {hardware()}, {torch.get_num_threads()} threads"
    )
    write_text(HERE / "matching.md", f"{means.reset_index().to_markdown(index=False)}\n\n{words}\n")


if __name__ == "__main__":
    main()
