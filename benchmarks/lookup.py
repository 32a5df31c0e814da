"""How a policy finds the advised action among dozens: ways to label actions, side by side on AutoExplore.

    python benchmarks/lookup.py [--profile laptop] [--seed 100] [--steps 2000]
    python benchmarks/lookup.py --profile repositories --env autoexplore_real --tested 100 --steps 0

Each way trains the same policy on the same situations with the teacher's reflections; `accuracy` is how often its most likely answer
is the expert's action, in situations of companies that it has not seen, whose lists are shuffled as in training, `sorted` the same
with lists in the order of names; `success` is that on validation tasks, on which it gives its most likely answer and the teacher
writes the reflections; `gradient_seconds` is the processor time of its training. The last way is trained on lists in the order of
names, so that a label says something of its action without being read. `its text` answers with the action itself instead of a label,
and scores every legal action by the likelihood of its text. A pretrained base (the second line: real repositories) has
letters for labels, in order.

Writes lookup.csv and lookup.md beside this file, of a base lookup_pretrained.csv and .md; the data is made below
$REFLECT_RL_HOME where that was not done before.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from reflect_rl.core.config import Config
from reflect_rl.core.files import write_csv, write_text
from reflect_rl.core.runtime import hardware
from reflect_rl.envs.base import EnvSpec, Situation
from reflect_rl.envs.labels import IN_ORDER, Labels, by_name
from reflect_rl.envs.registry import get
from reflect_rl.envs.settings import load, profile
from reflect_rl.lm import models
from reflect_rl.lm.models import pad
from reflect_rl.lm.players import Encoder
from reflect_rl.lm.prompts import labels_for
from reflect_rl.lm.tokenizers import load_tokenizer, train_tokenizer
from reflect_rl.train import data
from reflect_rl.train.data import Example
from reflect_rl.train.rollout import ActiveEpisode, Decision, play
from reflect_rl.train.sft import Pairs, fit
from reflect_rl.train.warmup import validation_tasks

HERE = Path(__file__).parent
TRAINED, AT_A_TIME = 20_000, 40
BEHIND = "in order, behind the action, advice last"
WAYS: dict[str, Labels | None] = {
    "by name, before the action": by_name(lambda action: action, 64),
    "in order, before the action": IN_ORDER,
    BEHIND: replace(IN_ORDER, advice_last=True),
    "its text": None,
}


def in_order_of_names(examples: Sequence[Example]) -> list[Example]:
    """Examples whose actions are listed in the order of their names."""
    return [replace(e, situation=replace(e.situation, actions=tuple(sorted(e.situation.actions)))) for e in examples]


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


class Advised:
    """An agent that reads the teacher's reflections; `choose` is the policy."""

    def __init__(self, spec: EnvSpec, choose: Callable[[Example], int]):
        self.spec, self.choose = spec, choose
        self.feedback: dict[int, str] = {}  # on the last action, by environment

    def decide(self, episodes: Sequence[ActiveEpisode]) -> list[Decision]:
        return [self._decide(episode) for episode in episodes]

    def _decide(self, e: ActiveEpisode) -> Decision:
        feedback = self.feedback.get(id(e.env), "") if e.last_action else "start"
        expert, phase = e.actions[self.spec.expert_action(e.env)], self.spec.phase_of(e.env)
        now = Situation("", 0, e.observation, e.last_action, feedback, phase, e.actions, expert)
        action = self.choose(Example("", now, expert, self.spec.teacher(now)))
        self.feedback[id(e.env)] = "right" if action in self.spec.good(e.env) else "wrong"
        return Decision(action)


def measure(
    config: Config, train: Sequence[Example], test: Sequence[Example], labels: Labels | None, steps: int
) -> dict[str, float]:
    """Train a policy for some steps, none for 0, and see how often it answers as the expert, and succeeds."""
    if config.model.base:
        tokenizer = load_tokenizer(config.model)
        labels = labels_for(tokenizer, labels)
    pairs = [pair(example, labels) for example in train]
    if not config.model.base:
        texts = [line["prompt"] + line["completion"] for line in pairs[:8000]]
        pattern = get(config.env).tokenizer_pattern
        tokenizer = train_tokenizer(texts, (labels or IN_ORDER).names, config.model, pattern)
    model = models.build(config.model, tokenizer, 0)["policy"]
    models.activate(model, "policy")
    room = 1 if labels else 16
    encode = Encoder(tokenizer, config.model.context - room)
    start = time.process_time()
    if steps:
        with tempfile.TemporaryDirectory() as folder:
            training = replace(config.policy, steps=steps)
            fit(model, Pairs(pairs, encode, room, []), training, Path(folder), 0, "policy", None)
    seconds = time.process_time() - start
    model.eval()

    def choose(example: Example) -> int:
        return int(likelihoods(model, encode, pair(example, labels)["prompt"], candidates(example, labels)).argmax())

    found = {}
    for name, examples in {"accuracy": test, "sorted": in_order_of_names(test)}.items():
        now = [example.situation for example in examples]
        right = [s.actions[choose(e)] == s.expert_action for s, e in zip(now, examples, strict=True)]
        found[name] = round(float(np.mean(right)), 3)
    spec, tasks = get(config.env), validation_tasks(config)
    rngs = [np.random.default_rng([0, i]) for i in range(len(tasks))]
    episodes = play(spec, Advised(spec, choose), tasks, rngs, config.rl.horizon)
    found |= {"success": round(float(np.mean([e.success for e in episodes])), 3), "gradient_seconds": round(seconds)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--seed", type=int, default=100, help="one that the results do not use")
    parser.add_argument("--env", default="autoexplore")
    parser.add_argument("--steps", type=int, nargs="+", default=[2000], help="of training; 0: the untrained model")
    parser.add_argument("--tested", type=int, default=500, help="situations")
    parser.add_argument("--overrides", default="", help="settings, such as data.trajectories=100")
    given = parser.parse_args()
    regime = profile(given.profile).regimes_of(given.env)[0]
    config = load(given.profile, given.env, "reflect_rl", given.seed, given.overrides, regime)
    data.make(config)
    examples, rng = data.read_examples(config), np.random.default_rng(0)
    companies = sorted({company(example) for example in examples})
    held_out = {*rng.choice(companies, max(1, len(companies) // 20), replace=False)}
    train, test = ([e for e in examples if (company(e) in held_out) == is_test] for is_test in (False, True))
    train, test = ([of[i] for i in rng.permutation(len(of))[:n]] for of, n in ((train, TRAINED), (test, given.tested)))
    rows = []
    ways = [(way, labels, train) for way, labels in WAYS.items() if not config.model.base or way.startswith("in order")]
    ways += [(f"{BEHIND}, trained on sorted lists", WAYS[BEHIND], in_order_of_names(train))] * (not config.model.base)
    for way, labels, examples in ways:
        for steps in given.steps:
            rows.append({"way": way, "steps": steps} | measure(config, examples, test, labels, steps))
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    name = "lookup_pretrained" if config.model.base else "lookup"
    write_csv(HERE / f"{name}.csv", table)
    most = f"on average {np.mean([len(e.situation.actions) for e in test]):.0f} legal actions, {len(test)} situations"
    note = f"Seed {given.seed}; {most}; {hardware()}, {torch.get_num_threads()} threads"
    if config.model.base:
        note = f"{note}; {config.model.base}, batches of {config.policy.batch_size}, tested on {', '.join(held_out)}"
    write_text(HERE / f"{name}.md", f"{table.to_markdown(index=False)}\n\n{note}\n")


def company(example: Example) -> str:
    """The company or repository that an example is about."""
    return example.situation.task.split("-")[1]


if __name__ == "__main__":
    main()
