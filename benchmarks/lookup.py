"""How a policy finds the advised action among dozens: ways to label actions, side by side on AutoExplore's companies.

    python benchmarks/lookup.py [--profile laptop] [--seed 100] [--steps 2000]

Each way trains the same policy from scratch on the same situations with the teacher's reflections; `accuracy` is how often its
most likely answer is the expert's action, in situations of companies that it has not seen, `gradient_seconds` the processor time of
its training. `its text` answers with the action itself instead of a label, and scores every legal action by the likelihood of
its text. Writes lookup.csv and lookup.md beside this file; the data is made below $REFLECT_RL_HOME where that was not done
before.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from reflect_rl.core.config import Config
from reflect_rl.core.files import write_csv, write_text
from reflect_rl.core.runtime import provenance
from reflect_rl.envs.labels import IN_ORDER, Labels, by_name
from reflect_rl.envs.registry import get
from reflect_rl.envs.settings import load, profile
from reflect_rl.lm import models
from reflect_rl.lm.models import pad
from reflect_rl.lm.players import Encoder
from reflect_rl.lm.tokenizers import train_tokenizer
from reflect_rl.train import data
from reflect_rl.train.data import Example
from reflect_rl.train.sft import Pairs, fit

HERE = Path(__file__).parent
ENV, TRAINED, TESTED, AT_A_TIME = "autoexplore", 20_000, 500, 40
WAYS: dict[str, Labels | None] = {
    "by name, before the action": by_name(lambda action: action, 64),
    "in order, before the action": IN_ORDER,
    "in order, behind the action, advice last": replace(IN_ORDER, advice_last=True),
    "its text": None,
}


def pair(example: Example, labels: Labels | None) -> dict:
    """(prompt, answer) of an example; without labels the answer is the action's text, and the prompt ends in the advice."""
    prompt, answer = example.policy_pair(True, labels or replace(IN_ORDER, advice_last=True))
    if labels is None:
        listed = ", ".join(example.situation.actions)
        prompt = (
            f"{prompt.partition(chr(10) + 'Actions:')[0]}\nActions: {listed}\nReflection: {example.reflection}\nAnswer:"
        )
        answer = f" {example.situation.expert_action}"
    return {"prompt": prompt, "completion": answer}


def candidates(example: Example, labels: Labels | None) -> list[str]:
    """The possible answers, in the order of the legal actions."""
    actions = example.situation.actions
    return [f" {text}" for text in (actions if labels is None else labels.texts(labels.of(actions)))]


@torch.inference_mode()
def likelihoods(model, encode: Encoder, prompt: str, answers: Sequence[str]) -> torch.Tensor:
    """Log-probability of each answer after a prompt."""
    (start,) = encode([prompt])
    ends = encode.tokenizer([*answers], add_special_tokens=False)["input_ids"]
    if all(len(end) == 1 for end in ends):
        logits = model(input_ids=torch.tensor([start])).logits[0, -1]
        return torch.log_softmax(logits.float(), 0)[[end[0] for end in ends]]
    found = []
    for first in range(0, len(ends), AT_A_TIME):
        part = ends[first : first + AT_A_TIME]
        rows = pad([start + end for end in part], encode.tokenizer.pad_token_id)
        log_probs = torch.log_softmax(model(input_ids=rows).logits[:, len(start) - 1 : -1].float(), -1)
        found += [sum(row[i, token] for i, token in enumerate(end)) for row, end in zip(log_probs, part, strict=True)]
    return torch.stack(found)


def measure(config: Config, train: Sequence[Example], test: Sequence[Example], labels: Labels | None) -> dict:
    """Train a policy and see how often it answers as the expert."""
    spec, pairs = get(ENV), [pair(example, labels) for example in train]
    names = (labels or IN_ORDER).names
    texts = [line["prompt"] + line["completion"] for line in pairs[:8000]]
    tokenizer = train_tokenizer(texts, names, config.model, spec.tokenizer_pattern)
    model = models.build(config.model, tokenizer, 0)["policy"]
    room = 1 if labels else 16
    encode = Encoder(tokenizer, config.model.context - room)
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        fit(model, Pairs(pairs, encode, room, []), config.policy, Path(folder), 0, "policy", None)
    seconds = time.process_time() - start
    model.eval()
    right = []
    for example in test:
        scores = likelihoods(model, encode, pair(example, labels)["prompt"], candidates(example, labels))
        right.append(example.situation.actions[int(scores.argmax())] == example.situation.expert_action)
    return {"accuracy": round(float(np.mean(right)), 3), "gradient_seconds": round(seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--seed", type=int, default=100, help="one that the results do not use")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--overrides", default="", help="settings, such as data.trajectories=100")
    given = parser.parse_args()
    overrides = f"policy.steps={given.steps} {given.overrides}".rstrip()
    config = load(given.profile, ENV, "reflect_rl", given.seed, overrides, profile(given.profile).regimes_of(ENV)[0])
    data.make(config)
    examples, rng = data.read_examples(config), np.random.default_rng(0)
    companies = sorted({company(example) for example in examples})
    held_out = {*rng.choice(companies, len(companies) // 20, replace=False)}
    train, test = ([e for e in examples if (company(e) in held_out) == is_test] for is_test in (False, True))
    train, test = ([of[i] for i in rng.permutation(len(of))[:n]] for of, n in ((train, TRAINED), (test, TESTED)))
    rows = []
    for way, labels in WAYS.items():
        rows.append({"way": way, "steps": given.steps} | measure(config, train, test, labels))
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    write_csv(HERE / "lookup.csv", table)
    hardware = {key: provenance()[key] for key in ("machine", "cpu_cores", "threads", "python")}
    most = f"on average {np.mean([len(e.situation.actions) for e in test]):.0f} legal actions, {len(test)} situations"
    write_text(HERE / "lookup.md", f"{table.to_markdown(index=False)}\n\nSeed {given.seed}; {most}; {hardware}\n")


def company(example: Example) -> str:
    """The company that an example is about."""
    return example.situation.task.split("-")[1]


if __name__ == "__main__":
    main()
