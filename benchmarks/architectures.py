"""What a short convolution is worth to a small model from scratch: reflectors side by side in one run.

    python benchmarks/architectures.py [--profile laptop] [--env alfworld] [--seed 100]

Every row is the same warm-up (data, steps, batches; smaller than the laptop profile's) of another architecture or rate;
`follow_success` is the success rate when following the reflector's advice on validation tasks, from the start and after
slips. Writes
architectures.csv and architectures.md beside this file; the data is made below $REFLECT_RL_HOME where that was not done
before.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

from reflect_rl.core.files import write_csv, write_text
from reflect_rl.core.runtime import hardware, peak_memory_mb
from reflect_rl.envs.settings import load
from reflect_rl.train import data
from reflect_rl.train.warmup import training_log, warm_up

ROWS = [  # (n_conv, n_layer, learning rate)
    (0, 2, 0.003),
    (0, 2, 0.01),
    (1, 1, 0.003),
    (1, 1, 0.01),
]
SMALLER = (  # than the laptop profile, the same for every row
    "data.trajectories=1000 data.negatives=400 data.sft_examples=16000 reflector.steps=500 reflector.evaluate_every=500"
)


def measure(profile: str, env: str, seed: int, n_conv: int, n_layer: int, rate: float) -> dict:
    overrides = f"{SMALLER} model.n_conv={n_conv} model.n_layer={n_layer} reflector.learning_rate={rate}"
    run = load(profile, env, "reflect_rl", seed, overrides)
    data.make(run)
    start = time.perf_counter()
    players = warm_up(run, policy=False)
    seconds = time.perf_counter() - start
    return {
        "model": run.model_name,
        "parameters": sum(p.numel() for p in players.reflector.model.parameters()),
        "learning_rate": rate,
        "steps": run.reflector.steps,
        "seconds": round(seconds, 1),
        "peak_memory_mb": round(peak_memory_mb()),
        "follow_success": round(training_log(run, "reflector")["eval_score"].max(), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--env", default="alfworld")
    parser.add_argument("--seed", type=int, default=100, help="one that the results do not use")
    parser.add_argument("--row", type=int, choices=range(len(ROWS)), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row is not None:
        print(json.dumps(measure(arguments.profile, arguments.env, arguments.seed, *ROWS[arguments.row])))
        return
    rows = []
    for row in range(len(ROWS)):  # a process each, for the sake of its memory
        command = [sys.executable, __file__, "--profile", arguments.profile, "--env", arguments.env]
        command += ["--seed", str(arguments.seed), "--row", str(row)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    here = Path(__file__).parent
    write_csv(here / "architectures.csv", table)
    write_text(here / "architectures.md", f"{table.to_markdown(index=False)}\n\nSeed {arguments.seed}; {hardware()}\n")


if __name__ == "__main__":
    main()
