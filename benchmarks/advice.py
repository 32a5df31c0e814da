"""Does AutoExplore's policy do what its reflector advises? Before and after RL, sampled and greedily, by what it does instead.

    python benchmarks/advice.py [--profile laptop] [--seeds 0 1 2 3 4]

The players of each seed, trained below $REFLECT_RL_HOME where that was not done before, play validation questions of the first
panel. Shares of steps: `as advised`; `names it unread`, where the advice was to read that file; `another of its kind`, which
reads, names or enters something else than it was told; `another kind` of action; `no legal advice`. Shares of episodes, by the
first step at which they strayed from the advice: success among those that never did, among those that first named a file
unread, and among the others. Writes advice.csv and advice.md beside this file.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from reflect_rl.core.files import write_csv, write_text
from reflect_rl.core.runtime import hardware
from reflect_rl.core.variants import VARIANTS
from reflect_rl.envs.autoexplore.marks import ADVISED, RESPONSES, UNREAD, response
from reflect_rl.envs.registry import get
from reflect_rl.envs.settings import load, profile
from reflect_rl.evaluate.panels import agents
from reflect_rl.train.rollout import Episode, play

HERE = Path(__file__).parent
ENV, TASKS = "autoexplore", 160


def measured(episodes: Sequence[Episode]) -> dict[str, float]:
    """Shares of steps, and of success by the first step that was not as advised; NaN where there is none."""
    did = [
        [response(step.decision.reflection, step.actions, step.decision.action) for step in episode.transitions]
        for episode in episodes
    ]
    steps = pd.Series([what for episode in did for what in episode])
    first = pd.Series([next((what for what in episode if what != ADVISED), ADVISED) for episode in did])
    success = pd.Series([episode.success for episode in episodes])
    groups = {
        "never strays": first == ADVISED,
        UNREAD: first == UNREAD,
        "strays otherwise": ~first.isin([ADVISED, UNREAD]),
    }
    row = {f"steps: {what}": float((steps == what).mean()) for what in RESPONSES}
    for group, among in groups.items():
        row |= {f"episodes: {group}": float(among.mean()), f"success: {group}": float(success[among].mean())}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    given = parser.parse_args()
    spec, rows = get(ENV), []
    regime, panel = profile(given.profile).regimes_of(ENV)[0], spec.panel(spec.headline, "validation", TASKS)
    for variant in ("reflect_sft", "reflect_rl"):
        for seed in given.seeds:
            for decoding, agent in agents(load(given.profile, ENV, variant, seed, regime=regime)).items():
                rngs = [np.random.default_rng([seed, i]) for i in range(len(panel))]
                episodes = play(spec, agent, panel, rngs, spec.horizon)
                rows.append({"variant": variant, "decoding": decoding, "seed": seed} | measured(episodes))
                print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    write_csv(HERE / "advice.csv", table)
    words = f"Profile {given.profile}, regime {regime}, {len(panel)} validation questions of {spec.headline}, means of the seeds"
    words = f"{words} {', '.join(map(str, given.seeds))}, of success over all their episodes; {hardware()}, {torch.get_num_threads()} threads"
    write_text(HERE / "advice.md", f"{over_seeds(table).to_markdown(index=False)}\n\n{words}\n")


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """A row a share, a column a variant and decoding: means over seeds, and success over the episodes of all seeds."""
    table = table.copy()
    for column in [column for column in table if column.startswith("success: ")]:
        among = table[column.replace("success", "episodes")]
        table[column] = table[column].fillna(0) * among
    means = table.groupby(["decoding", "variant"], sort=False).mean().drop(columns="seed").T
    for row in [row for row in means.index if row.startswith("success: ")]:
        means.loc[row] /= means.loc[row.replace("success", "episodes")]
    means.columns = [f"{VARIANTS[variant].label}, {decoding}" for decoding, variant in means.columns]
    return means.round(3).rename_axis("share").reset_index()


if __name__ == "__main__":
    main()
