"""Two players on a pretrained base: decisions per second and peak memory, the straightforward way and this project's.

    python benchmarks/pretrained.py [--base smollm2-135m] [--env taxi] [--episodes 12] [--slow 6]

Both ways decide on the same recorded situations with the same model, each in a process of its own so that memory is its
own. The straightforward way holds two copies of the model, one a player, each with its LoRA adapter, in float32; plays
one environment after the other in lockstep, one decision at a time; encodes everything anew for every token; and
computes the whole vocabulary at every position of a policy's prompt. It decides on `--slow` situations only, since it
takes seconds for each. The rows between add one thing at a time. `players_to_one_model`: bytes of both players' weights
as a share of one model's without adapters; `switch_ms`: to let the other adapter speak. Writes pretrained.csv and
pretrained.md beside this file.
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
from decisions import situations

from reflect_rl.core.config import ModelConfig
from reflect_rl.core.files import write_csv, write_text
from reflect_rl.core.runtime import hardware, peak_memory_mb
from reflect_rl.envs.registry import get
from reflect_rl.lm import models
from reflect_rl.lm.bases import adapters
from reflect_rl.lm.players import Policy, Reflector
from reflect_rl.lm.prompts import labels_for, policy_prompt, reflection_prompt
from reflect_rl.lm.tokenizers import load_tokenizer
from reflect_rl.train.rollout import ActiveEpisode, PlayersAgent

WAYS = {
    "straightforward": "two copies in float32, one decision at a time, everything encoded anew for every token, full vocabulary",
    "key-value cache": "and what a reflection has so far is not encoded anew for its next token",
    "one base": "one base in float32 with two adapters",
    "batched": "and the decisions of all episodes in one batch, sorted by length; label rows at the last position",
    "half": "and bfloat16",
    "remembered": "and equal prompts once: what the library does",
}
NEW_TOKENS = 24


@torch.no_grad()
def straightforward(policy, reflector, tokenizer, labels, situation, cache: bool) -> None:
    """One decision by the two models; what a first implementation does."""
    observation, last, actions = situation
    ids = tokenizer(reflection_prompt(observation, last), return_tensors="pt")["input_ids"]
    said = reflector.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        use_cache=cache,
        pad_token_id=tokenizer.pad_token_id,
    )
    text = tokenizer.decode(said[0, ids.shape[1] :], skip_special_tokens=True)
    names = labels.texts(labels.of(actions))
    prompt = policy_prompt(observation, last, actions, " ".join(text.split()), names)
    logits = policy(tokenizer(prompt, return_tensors="pt")["input_ids"]).logits
    logits[0, -1].log_softmax(-1)


def measure(way: str, base: str, env: str, episodes: int, slow: int) -> dict:
    dtype = "auto" if way in ("half", "remembered") else "float32"
    settings, spec = ModelConfig(base=base, dtype=dtype, context=512), get(env)
    tokenizer = load_tokenizer(settings)
    labels = labels_for(tokenizer, spec.labels)
    steps = situations(spec, episodes)
    flat = [one for batch in steps for one in batch]
    if way in ("straightforward", "key-value cache", "one base"):
        first = adapters(settings, models.PLAYERS, 0)
        second = first if way == "one base" else adapters(settings, models.PLAYERS, 0)
        held, loaded = [first] if second is first else [first, second], peak_memory_mb()

        def run(one):
            players = Speaker(first, "policy"), Speaker(second, "reflector")
            straightforward(*players, tokenizer, labels, one, way != "straightforward")

        work, decisions = [flat[i] for i in np.random.default_rng(0).permutation(len(flat))[:slow]], slow
    else:
        model = adapters(settings, models.PLAYERS, 0)
        policy = Policy(model, tokenizer, 512, labels)
        reflector = Reflector(model, tokenizer, 512, NEW_TOKENS)
        held, loaded = [model], peak_memory_mb()
        agent = PlayersAgent(policy, reflector)
        rng = np.random.default_rng(0)

        def run(batch):
            if way != "remembered":
                reflector.memory.clear()
                agent._log_probs.clear()
            agent.decide([ActiveEpisode(None, rng, text, actions, last) for text, last, actions in batch])

        work, decisions = steps, len(flat)
    before = time.perf_counter()
    for part in work:
        run(part)
    seconds = time.perf_counter() - before
    named = [pair for model in held for pair in model.named_parameters()]
    of_one = sum(p.nbytes for name, p in held[0].named_parameters() if "lora_" not in name)
    return {
        "way": way,
        "decisions": decisions,
        "seconds": round(seconds, 1),
        "switch_ms": round(switching(held[0]), 2),
        "players_to_one_model": round(sum(p.nbytes for _, p in named) / of_one, 3),
        "loaded_mb": round(loaded),
        "peak_memory_mb": round(peak_memory_mb()),
    }


def switching(model, times: int = 50) -> float:
    """Milliseconds to let the other player speak."""
    before = time.perf_counter()
    for i in range(times):
        models.activate(model, models.PLAYERS[i % 2])
    return (time.perf_counter() - before) / times * 1000


class Speaker:
    """A model that speaks as one player, whether it is shared or not."""

    def __init__(self, model, player):
        self.model, self.player = model, player

    def __call__(self, *arguments):
        models.activate(self.model, self.player)
        return self.model(*arguments)

    def generate(self, **options):
        models.activate(self.model, self.player)
        return self.model.generate(**options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2-135m", help="what model.base takes")
    parser.add_argument("--env", default="taxi")
    parser.add_argument("--episodes", type=int, default=12)
    parser.add_argument("--slow", type=int, default=6, help="decisions of the ways that decide one at a time")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measure(arguments.way, arguments.base, arguments.env, arguments.episodes, arguments.slow)))
        return
    load_tokenizer(ModelConfig(base=arguments.base))  # fetched and converted before anything is measured
    rows = []
    for way in WAYS:
        command = [sys.executable, __file__, "--way", way, "--base", arguments.base, "--env", arguments.env]
        command += ["--episodes", str(arguments.episodes), "--slow", str(arguments.slow)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    rate = table.decisions / table.seconds
    table["decisions_per_second"] = rate.round(2)
    table["ratio"] = (rate / rate[0]).round(1)
    table["ratio_to_cache"] = (rate / rate[1]).round(1)
    table["memory_ratio"] = (table.peak_memory_mb / table.peak_memory_mb[0]).round(2)
    table["what"] = table.way.map(WAYS)
    here = Path(__file__).parent
    write_csv(here / "pretrained.csv", table)
    text = f"{table.to_markdown(index=False)}\n\n{arguments.base}, at most {NEW_TOKENS} tokens a reflection, one thread; {hardware()}\n"
    write_text(here / "pretrained.md", text)


if __name__ == "__main__":
    main()
