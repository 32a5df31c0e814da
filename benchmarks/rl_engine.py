"""Online RL before and after the engine was rebuilt for thousands of updates: seconds, memory and success, side by side.

    python benchmarks/rl_engine.py [--steps 100000] [--seed 100]

Each row is a process of its own on one thread: warm-up of Reflect-RL on the taxi, all reflections and the expert's actions,
then online RL, of which alone the time and the memory are measured. Those before are of the project's own history
(`BEFORE`, checked out beside it), with their model and settings; the rows between change one thing at a time. `speed` is
against the same PPO before.
Success is sampled, on validation tasks. Writes rl_engine.csv and rl_engine.md beside this file.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from reflect_rl.core import paths
from reflect_rl.core.files import write_csv, write_text

BEFORE = "48c855d"
PPO = "rl.objective=ppo rl.epochs=2 rl.minibatches=4 rl.clip=0.2 rl.entropy=0.03 rl.learning_rate=0.0003"
ALIKE = "rl.episodes_per_update=128 rl.stage_shares=[] policy.steps=400 evaluation.repeats=1"
ROWS = {  # way: (code, regime, overrides)
    "before": ("before", "", f"{ALIKE} rl.learning_rate=0.0003"),
    "before, PPO with a critic": ("before", "", f"{ALIKE} {PPO} rl.baseline=critic"),
    "now, the former model": ("now", "plentiful", f"{ALIKE} {PPO} rl.replay=0 model.n_conv=0 model.n_layer=2"),
    "now": ("now", "plentiful", f"{ALIKE} {PPO} rl.replay=0"),
    "now, with replay": ("now", "plentiful", f"{ALIKE} {PPO}"),
}
RUN = """
import json, sys
import pandas as pd
from reflect_rl.core.identity import stage_dir
from reflect_rl.core.runtime import peak_memory_mb
from reflect_rl.envs import settings
from reflect_rl.train import rl, warmup
given = json.loads(sys.argv[1])
config = settings.load("laptop", "taxi", "reflect_rl", **given)
warmup.warm_up(config)
before = peak_memory_mb()
rl.train(config)
folder = stage_dir(config, "rl")
metrics = pd.read_csv(folder / "metrics.csv")
success = metrics["val_success"].dropna()
seconds = json.loads((folder / "status.json").read_text())["seconds"]
row = {"updates": len(metrics) - 1, "gradient_steps": (len(metrics) - 1) * config.rl.epochs * config.rl.minibatches}
row |= {"success_before": success.iloc[0], "success_after": success.iloc[-1], "seconds": seconds}
print(json.dumps(row | {"steps_per_second": round(metrics["env_steps"].iloc[-1] / seconds), "peak_memory_mb": round(peak_memory_mb())}))
"""


def run(tree: Path, home: str, given: dict) -> dict:
    """One row, measured in a process of its own with the library of a source tree."""
    env = os.environ | {"PYTHONPATH": str(tree), "REFLECT_RL_HOME": home, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    command = [sys.executable, "-P", "-c", RUN, json.dumps(given)]
    done = subprocess.run(command, cwd=tree, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps of each row")
    parser.add_argument("--seed", type=int, default=100, help="one that no result uses")
    asked = parser.parse_args()
    root, rows = paths.project(), []
    with tempfile.TemporaryDirectory() as folder:
        former = Path(folder) / "before"
        subprocess.run(["git", "-C", str(root), "worktree", "add", "--detach", str(former), BEFORE], check=True)
        try:
            for way, (code, regime, overrides) in ROWS.items():
                given = {"seed": asked.seed, "overrides": f"{overrides} rl.env_steps={asked.steps}"}
                given |= {"regime": regime} if regime else {}
                rows.append({"way": way} | run(former if code == "before" else root, folder, given))
                print(rows[-1], flush=True)
        finally:
            subprocess.run(["git", "-C", str(root), "worktree", "remove", "--force", str(former)], check=True)
    table = pd.DataFrame(rows)
    table["speed"] = (table["seconds"].iloc[1] / table["seconds"]).round(2)  # against the same PPO before
    here = Path(__file__).parent
    write_csv(here / "rl_engine.csv", table)
    write_text(here / "rl_engine.md", f"{__doc__.splitlines()[0]}\n\n{table.to_markdown(index=False)}\n")


if __name__ == "__main__":
    main()
