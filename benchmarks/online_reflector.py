"""What a reflector's advice is worth before and after it was trained online with the policy that reads it.

    python benchmarks/online_reflector.py [--profile beyond] [--regime online-reflector] [--seeds 0 1 2 3 4]

The players of each seed, trained below $REFLECT_RL_HOME where that was not done before. On validation tasks: `advice alone`, success
of the advice when it is executed without a policy; `names a best action` next, by situation, in the states on the expert's way
and after one wrong action; `judges rightly` whether the last action was right; `facts stated rightly`, the share of those that the
teacher states there; `same words` as before, a share of these situations. Writes online_reflector.csv and online_reflector.md beside this file.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from reflect_rl.core.config import Config
from reflect_rl.core.files import write_csv, write_text
from reflect_rl.core.runtime import hardware
from reflect_rl.envs.registry import get
from reflect_rl.envs.settings import load
from reflect_rl.evaluate.probes import judge_reflector, probes
from reflect_rl.lm.players import Reflector
from reflect_rl.lm.prompts import reflection_prompt
from reflect_rl.train.agents import Follow
from reflect_rl.train.rl import train
from reflect_rl.train.rollout import play
from reflect_rl.train.warmup import PlayerPair, warm_up

HERE = Path(__file__).parent
MADE: dict[str, Callable[[Config], PlayerPair]] = {"after the warm-up": warm_up, "trained online": train}


def measured(run: Config, reflector: Reflector) -> dict[str, float]:
    """What the advice is worth, as the docstring of this file has it."""
    spec, judged = get(run.env), judge_reflector(run, reflector)
    panel = spec.panel(spec.headline, "validation")
    rngs = [np.random.default_rng([run.seed, i]) for i in range(len(panel))]
    played = play(spec, Follow(reflector), panel, rngs, spec.horizon)
    best = judged.groupby("situation")["names_best"].mean()
    row = {"advice alone": np.mean([episode.success for episode in played])}
    row |= {f"names a best action: {situation}": best[situation] for situation in ("start", "right", "wrong")}
    return row | {"judges rightly": judged["judges_right"].mean(), "facts stated rightly": judged["facts_right"].mean()}


def said(run: Config, reflector: Reflector) -> list[str]:
    """What a reflector says in the probed situations."""
    return reflector.reflect([reflection_prompt(now.observation, now.last_action) for now, _, _ in probes(run)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="beyond")
    parser.add_argument("--env", default="taxi")
    parser.add_argument("--regime", default="online-reflector")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--overrides", default="", help='settings, such as "rl.env_steps=2000"')
    given, rows, changed = parser.parse_args(), [], []
    for seed in given.seeds:
        overrides = f"{given.overrides} evaluation.split=validation"
        run = load(given.profile, given.env, "reflect_rl_both", seed, overrides, given.regime)
        texts = {}
        for when, make in MADE.items():
            reflector = make(run).reflector
            texts[when] = said(run, reflector)
            before = texts["after the warm-up"]
            same = np.mean([now == then for now, then in zip(texts[when], before, strict=True)])
            rows.append({"seed": seed, "reflector": when} | measured(run, reflector) | {"same words": same})
            print(pd.Series(rows[-1]).to_frame().T.to_string(index=False), flush=True)
        changed += [(seed, *both) for both in zip(*texts.values(), strict=True) if both[0] != both[1]][:2]
    table = pd.DataFrame(rows)
    write_csv(HERE / "online_reflector.csv", table)
    means = table.drop(columns="seed").groupby("reflector", sort=False).mean().round(3).reset_index()
    examples = "\n".join(f"- seed {seed}: “{then}” became “{now}”" for seed, then, now in changed)
    note = f"Profile {given.profile}, regime {given.regime}, seeds {', '.join(map(str, given.seeds))}; {hardware()}, {torch.get_num_threads()} threads"
    words = f"The first two of each seed that changed:\n\n{examples}\n\n" if examples else ""
    write_text(HERE / "online_reflector.md", f"{means.to_markdown(index=False)}\n\n{words}{note}\n")


if __name__ == "__main__":
    main()
