"""What it is worth that the uppermost layer computes the positions that are asked for: warm-up steps, side by side.

    python benchmarks/top_layer.py [--profile laptop] [--steps 60]

Every row is a process of its own that takes the same gradient steps on the same household batches; `ratio` is against
all positions. Writes top_layer.csv and top_layer.md beside this file; the data is made below $REFLECT_RL_HOME where that
was not done before.
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

from reflect_rl import config, data, models, sft
from reflect_rl.players import Encoder
from reflect_rl.runs import peak_memory_mb, provenance, write_csv, write_text

SMALLER = "data.trajectories=200 data.negatives=100 data.sft_examples=8000"  # than the laptop profile
BEFORE = 10  # steps that are not timed
ROWS = [(player, way) for player in models.PLAYERS for way in ("all positions", "asked positions")]


def all_positions(model, ids, asked, **options) -> torch.Tensor:
    """`models.hidden_states` without the short cut."""
    states = models.causal_lm(model).base_model(input_ids=ids, **options).last_hidden_state
    return states[torch.arange(len(ids))[:, None], asked]


def measure(profile: str, steps: int, player: str, way: str) -> dict:
    run = config.load(profile, "alfworld", "reflect_rl", 100, SMALLER)
    players = sft.new_players(run)
    own, settings = getattr(players, player), getattr(run, player)
    tokenizer, limit = own.encode.tokenizer, own.encode.limit
    end = [tokenizer.eos_token_id] if player == "reflector" else []
    pairs = sft.Pairs(data.read(run, player), Encoder(tokenizer, limit), run.model.context - limit, end)
    order, size = pairs.bucketed(settings, np.random.default_rng(0)), settings.batch_size
    batches = [pairs.collate([order[i] for i in range(k * size, (k + 1) * size)]) for k in range(BEFORE + steps)]
    if way == "all positions":
        models.hidden_states = all_positions
    optimizer = torch.optim.AdamW(own.model.parameters(), lr=1e-3, fused=True)
    for number, batch in enumerate(batches):
        if number == BEFORE:
            start = time.perf_counter()
        loss = sft._Trainer.compute_loss(None, own.model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return {
        "player": player,
        "way": way,
        "batch_size": size,
        "steps": steps,
        "ms_per_step": round((time.perf_counter() - start) / steps * 1000, 1),
        "peak_memory_mb": round(peak_memory_mb()),
        "last_loss": round(loss.item(), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--steps", type=int, default=60, help="timed gradient steps a row")
    parser.add_argument("--row", type=int, choices=range(len(ROWS)), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row is not None:
        print(json.dumps(measure(arguments.profile, arguments.steps, *ROWS[arguments.row])))
        return
    data.make(config.load(arguments.profile, "alfworld", "reflect_rl", 100, SMALLER))
    rows = []
    for row in range(len(ROWS)):
        command = [sys.executable, __file__, "--profile", arguments.profile, "--steps", str(arguments.steps)]
        done = subprocess.run([*command, "--row", str(row)], check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    table.insert(5, "ratio", (table.groupby("player").ms_per_step.transform("first") / table.ms_per_step).round(2))
    here = Path(__file__).parent
    write_csv(here / "top_layer.csv", table)
    hardware = {key: provenance()[key] for key in ("machine", "cpu_cores", "threads", "python")}
    write_text(here / "top_layer.md", f"{table.to_markdown(index=False)}\n\n{hardware}\n")


if __name__ == "__main__":
    main()
