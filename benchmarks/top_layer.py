"""What it is worth that the uppermost layer computes query positions only: warm-up steps and a whole run, side by side.

    python benchmarks/top_layer.py [--profile laptop] [--env alfworld] [--steps 60]

Every row is a process of its own. Rows of a player take the same gradient steps on the same batches; those of the whole
run warm up both players of the profile and train the policy online. `ratio` is against all positions. Writes
top_layer.csv and top_layer.md beside this file; the data is made below $REFLECT_RL_HOME where that was not done before.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers.models.lfm2.modeling_lfm2 import Lfm2DecoderLayer

from reflect_rl.core.config import Config
from reflect_rl.core.files import write_csv, write_text
from reflect_rl.core.identity import stage_dir
from reflect_rl.core.runtime import hardware, peak_memory_mb
from reflect_rl.envs.settings import load
from reflect_rl.lm import models, scratch
from reflect_rl.lm.players import Encoder
from reflect_rl.train import data, rl, sft
from reflect_rl.train.warmup import new_players

SMALLER = "data.trajectories=200 data.negatives=100 data.sft_examples=8000"  # than the laptop profile
BEFORE = 10  # steps that are not timed
ROWS = [(what, way) for what in (*models.PLAYERS, "whole run") for way in ("all positions", "query positions")]


def steps_of(player: str, run: Config, steps: int) -> dict:
    """Gradient steps of one player's warm-up."""
    players = new_players(run)
    own, settings = getattr(players, player), getattr(run, player)
    tokenizer, limit = own.encode.tokenizer, own.encode.limit
    end = [tokenizer.eos_token_id] if player == "reflector" else []
    pairs = sft.Pairs(data.read(run, player), Encoder(tokenizer, limit), run.model.context - limit, end)
    order, size = pairs.bucketed(settings, np.random.default_rng(0)), settings.batch_size
    batches = [pairs.collate([order[i] for i in range(k * size, (k + 1) * size)]) for k in range(BEFORE + steps)]
    optimizer = torch.optim.AdamW(own.model.parameters(), lr=1e-3, fused=True)
    for number, batch in enumerate(batches):
        if number == BEFORE:
            start = time.perf_counter()
        loss = sft._Trainer.compute_loss(None, own.model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return {"steps": steps, "seconds": round(time.perf_counter() - start, 1), "last_loss": round(loss.item(), 4)}


def whole_run(run: Config) -> dict:
    """Both warm-ups and online RL, with the measurements in between; nothing is kept."""
    folders = [stage_dir(run, stage) for stage in ("reflector", "policy", "rl")]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    start = time.perf_counter()
    rl.train(run)
    seconds = round(time.perf_counter() - start, 1)
    for folder in folders:
        shutil.rmtree(folder)
    return {"seconds": seconds}


def measure(profile: str, env: str, steps: int, what: str, way: str) -> dict:
    run = load(profile, env, "reflect_rl", 100, SMALLER)
    data.make(run)
    if way == "all positions":
        scratch.TopLayer = Lfm2DecoderLayer
    measured = whole_run(run) if what == "whole run" else steps_of(what, run, steps)
    return {"what": what, "way": way} | measured | {"peak_memory_mb": round(peak_memory_mb())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--env", default="alfworld")
    parser.add_argument("--steps", type=int, default=60, help="timed gradient steps a row")
    parser.add_argument("--row", type=int, choices=range(len(ROWS)), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row is not None:
        print(json.dumps(measure(arguments.profile, arguments.env, arguments.steps, *ROWS[arguments.row])))
        return
    data.make(load(arguments.profile, arguments.env, "reflect_rl", 100, SMALLER))
    rows = []
    for row in range(len(ROWS)):
        command = [sys.executable, __file__, "--profile", arguments.profile, "--env", arguments.env]
        command += ["--steps", str(arguments.steps), "--row", str(row)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    table["ratio"] = (table.groupby("what").seconds.transform("first") / table.seconds).round(2)
    here = Path(__file__).parent
    write_csv(here / "top_layer.csv", table)
    shown = table.astype(object).where(table.notna(), "")
    write_text(here / "top_layer.md", f"{shown.to_markdown(index=False)}\n\n{hardware()}\n")


if __name__ == "__main__":
    main()
