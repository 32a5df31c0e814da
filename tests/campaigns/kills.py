"""Kill a whole run at random moments, let it go on, and compare what it ends with: no part of `make test`.

    python tests/campaigns/kills.py [--kills 100] [--variant reflect_rl] [--seed 0]

A run makes data, both warm-ups, online RL and the evaluation of a variant on the taxi, small. It is killed (SIGKILL) at
a random moment of the time that is left to it after its imports, started again, and so on until it is through; then another
begins, until there were enough kills. What counts are the files that results are made of, to the last byte: where one differs the
campaign fails. Writes kills.csv and kills.md beside this file.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from reflect_rl.core.files import digest, write_csv, write_text
from reflect_rl.core.runtime import hardware
from reflect_rl.core.variants import VARIANTS

HERE = Path(__file__).parent
IMPORTS = """
import sys
from reflect_rl import envs
from reflect_rl.evaluate.panels import evaluate
"""
RUN = f"""{IMPORTS}
evaluate(envs.load("smoke", "taxi", sys.argv[1], 0, "data.trajectories=400 data.sft_examples=800 reflector.steps=120 "
    "reflector.evaluate_every=40 policy.steps=120 rl.env_steps=3000 rl.checkpoint_every=2 evaluation.tasks=20"))
"""
NUMBERS = (
    "examples",
    "weights.safetensors",
    "policy.safetensors",
    "reflector.safetensors",
    "metrics.csv",
    "log.csv",
    "episodes.csv.gz",
    "prompts.csv",
)
STAGES = ("data", "reflector", "policy", "rl", "evaluation")


def said(home: Path) -> Path:
    """The file of what a run wrote to standard error since it was last started."""
    return home.with_suffix(".err")


def start(home: Path, variant: str) -> subprocess.Popen:
    env = os.environ | {"REFLECT_RL_HOME": str(home), "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    with said(home).open("wb") as errors:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": errors}
        return subprocess.Popen([sys.executable, "-c", RUN, variant], env=env, start_new_session=True, **quiet)


def numbers(home: Path) -> dict[str, str]:
    """Checksums of the files that results are made of, by their place."""
    found = (path for path in home.rglob("*") if path.is_file() and path.name.startswith(NUMBERS))
    return {str(path.relative_to(home)): digest(path) for path in sorted(found) if "checkpoints" not in path.parts}


def stage(home: Path, variant: str) -> str:
    """The stage that a run has come to: the furthest that has a folder.

    The evaluation's is made before all others, and counts once the training is through.
    """
    found = {path.name.rpartition("-")[0] for path in home.rglob("*-*") if path.is_dir()}
    last = "rl-*/status.json" if VARIANTS[variant].rl else "policy-*/weights.safetensors"
    if not any(home.rglob(last)):
        found.discard("evaluation")
    return ["before the first", *(name for name in STAGES if name in found)][-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--variant", default="reflect_rl")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = parser.parse_args()
    rng, rows, runs = random.Random(given.seed), [], 0
    with tempfile.TemporaryDirectory() as folder, tqdm(total=given.kills, unit="kill") as bar:
        whole = Path(folder) / "whole"
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", IMPORTS], check=True)
        imports = time.monotonic() - began
        began = time.monotonic()
        if start(whole, given.variant).wait():
            raise SystemExit(f"the run fails without being killed:\n{said(whole).read_text()}")
        seconds, wanted = time.monotonic() - began, numbers(whole)
        while len(rows) < given.kills:
            runs += 1
            home, of_run, done = Path(folder) / f"run {runs}", [], False
            while not done:
                reached = ["before the first", *STAGES].index(
                    stage(home, given.variant)
                )  # stages take about as long as each other
                left = (seconds - imports) * (1 - max(reached - 1, 0) / len(STAGES))
                process, patience = start(home, given.variant), imports + rng.uniform(0, left)
                try:
                    if process.wait(patience if len(rows) + len(of_run) < given.kills else None):
                        raise SystemExit(f"a resumed run fails:\n{said(home).read_text()}")
                    done = True
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    of_run.append(
                        {"run": runs, "after_seconds": round(patience, 2), "stage": stage(home, given.variant)}
                    )
                    bar.update()
            same = numbers(home) == wanted
            rows += [row | {"same_numbers": same} for row in of_run]
    if not all(row["same_numbers"] for row in rows):
        raise SystemExit(f"other numbers after a kill: {[row for row in rows if not row['same_numbers']]}")
    table = pd.DataFrame(rows, columns=["run", "after_seconds", "stage", "same_numbers"])
    write_csv(HERE / "kills.csv", table)
    told = table.groupby("stage")["same_numbers"].agg(kills="size", ended_with_the_same_numbers="sum").reset_index()
    about = f"{len(table)} kills of {runs} runs, which take {seconds:.0f} s each; compared: {len(wanted)} files; {hardware()}"
    write_text(HERE / "kills.md", f"{told.to_markdown(index=False)}\n\n{about}\n")


if __name__ == "__main__":
    main()
