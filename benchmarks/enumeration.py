"""Single-prompt action enumeration against action-prompt normalisation: what one decision costs (claim 7 of the paper).

    python benchmarks/enumeration.py [--models gpt2-scratch smollm2-135m] [--threads 1]

The same states and the same legal actions, two to two hundred of them, are decided on by one label of a prompt that
lists them all, by the text of each after a prompt of its own (GLAM, TWOSOME: `lm.scoring`), and by such texts after one
prompt whose keys and values are computed once. Seconds are the median of repeats, of texts that are tokenized already;
FLOPs those that torch counts, with plain attention, since it does not count fused kernels; memory is the peak during the
first decision of a process of its own, less what was resident before it (on Linux alone), where a prompt an action goes
through the model in parts of 64 and the other two ways at once. The paper's orders, (s + sum a)^2 and |A| (s + a)^2 tokens, are drawn beside the
first two, from the measured first point. Writes enumeration.csv, .md and .png beside this file.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import matplotlib
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode

from reflect_rl.core.config import ModelConfig
from reflect_rl.core.files import write_csv, write_text
from reflect_rl.core.runtime import hardware
from reflect_rl.envs.labels import bracketed, in_order
from reflect_rl.lm.bases import load_base
from reflect_rl.lm.models import logits, pad
from reflect_rl.lm.players import Policy
from reflect_rl.lm.prompts import Texts, format_of, policy_prompt
from reflect_rl.lm.scoring import ScoringPolicy
from reflect_rl.lm.scratch import from_scratch
from reflect_rl.lm.tokenizers import load_tokenizer, train_tokenizer
from reflect_rl.report.style import COLOURS, STYLE

HERE = Path(__file__).parent
WAYS = {"single": "single prompt", "each": "a prompt an action", "shared": "the same, the prompt once"}
ACTIONS, STATES = (2, 8, 32, 64, 128, 200), {"gpt2-scratch": (64, 256, 1024), "smollm2-135m": (64, 256)}
VERBS, NOUNS = ("open", "take", "put", "read", "clean", "heat"), ("apple", "shelf", "drawer", "mug", "plate", "lamp")
BUDGET = 60  # seconds that one decision may take before larger ones are left out
SMALL = ModelConfig(d_model=64, n_layer=2, n_head=4, context=4096, vocab_size=1024)


def actions_of(count: int) -> tuple[str, ...]:
    draw = random.Random(0)
    found = {
        f"{draw.choice(VERBS)} {draw.choice(NOUNS)} {i} of {draw.choice(NOUNS)}": None for i in range(1, count + 1)
    }
    return tuple(found)


def state_of(words: int) -> str:
    draw = random.Random(1)
    return " ".join(draw.choice((*VERBS, *NOUNS)) for _ in range(words))


def load(name: str):
    """A model with its tokenizer."""
    if name != "gpt2-scratch":
        config = ModelConfig(base=name, dtype="float32", context=8192)
        return load_base(config).eval(), load_tokenizer(config)
    texts = [state_of(500), *actions_of(200), policy_prompt("", "", actions_of(2), None)]
    tokenizer = train_tokenizer(texts, bracketed(200), SMALL)
    return from_scratch(SMALL, tokenizer, 0).eval(), tokenizer


def shared(model, start: list[int], ends: list[list[int]]) -> torch.Tensor:
    """`(A,)` log-probabilities of texts after a prompt that is encoded once, all as token ids."""
    begun = model(input_ids=torch.tensor([start]), use_cache=True, logits_to_keep=1)
    cache, first = begun.past_key_values, begun.logits[0, -1].log_softmax(-1)
    cache.batch_repeat_interleave(len(ends))
    targets = pad(ends, -1)
    given, following = targets[:, :-1].clamp(min=0), targets[:, 1:]
    states = model.base_model(input_ids=given, past_key_values=cache, use_cache=True).last_hidden_state
    real = following >= 0
    log_probs = logits(model, states[real]).log_softmax(-1).gather(1, following[real][:, None])[:, 0]
    return first[targets[:, 0]].index_add(0, real.nonzero()[:, 0], log_probs)


def decision(way: str, model, tokenizer, state: str, actions: tuple[str, ...]):
    """A function that decides once."""
    if way == "single":
        labels = bracketed(len(actions)) if len(tokenizer(" [2]")["input_ids"]) == 1 else letters(tokenizer)
        policy = Policy(model, tokenizer, 8192, in_order(labels))
        prompt = policy_prompt(state, "", actions, None, labels[: len(actions)])
        return lambda: policy.log_probs([prompt], [tuple(range(len(actions)))])
    prompt = format_of(Texts()).policy(state, "", actions, None, actions)
    policy = ScoringPolicy(model, tokenizer, 8192, 32, "sum")
    if way == "shared":
        (start,), ends = policy.encode([prompt]), policy._encode(actions)
        return lambda: shared(model, start, ends).log_softmax(0)
    return lambda: policy.log_probs([prompt], [actions])


def letters(tokenizer) -> tuple[str, ...]:
    """Two hundred single tokens of a pretrained tokenizer; which ones does not matter for what a decision costs."""
    words = (f"{a}{b}" for a in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" for b in ("", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    found = [word for word in words if len(tokenizer(f" {word}", add_special_tokens=False)["input_ids"]) == 1]
    return tuple(found[:200])


def resident_mb(which: str) -> float:
    """Resident memory of this process: now (`VmRSS`), or its peak since it was reset (`VmHWM`)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) / 2**10


@torch.inference_mode()
def measure(name: str, way: str, words: int, count: int, threads: int) -> dict:
    torch.set_num_threads(threads)
    model, tokenizer = load(name)
    state, actions = state_of(words), actions_of(count)
    decide = decision(way, model, tokenizer, state, actions)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    loaded, seconds = resident_mb("VmRSS"), []
    decide()
    needed = resident_mb("VmHWM") - loaded
    while not seconds or (sum(seconds) < 2 and len(seconds) < 20):
        before = time.perf_counter()
        decide()
        seconds.append(time.perf_counter() - before)
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        decide()
    own = [len(ids) for ids in tokenizer([f" {a}" for a in actions], add_special_tokens=False)["input_ids"]]
    return {
        "model": name,
        "way": way,
        "state_tokens": len(tokenizer(state)["input_ids"]),
        "actions": count,
        "action_tokens": round(statistics.mean(own), 1),
        "seconds": statistics.median(seconds),
        "gflops": counter.get_total_flops() / 1e9,
        "memory_mb": round(needed, 1),
    }


def orders(table: pd.DataFrame) -> pd.DataFrame:
    """The paper's orders beside the measured ones, each with the unit that it has at the first point of its curve.

    It has none for one prompt and many texts.
    """
    one = table.state_tokens + table.actions * table.action_tokens
    own = table.actions * (table.state_tokens + table.action_tokens) ** 2
    table = table.assign(order=(one**2).where(table.way == "single", own.where(table.way == "each")))
    by = table.groupby(["model", "way", "state_tokens"])
    return table.assign(**{f"{name}_order": table.order * by[name].transform("first") / by.order.transform("first")
                           for name in ("seconds", "gflops")}).drop(columns="order")  # fmt: skip


@matplotlib.rc_context(STYLE)
def draw(table: pd.DataFrame) -> Figure:
    """Seconds, FLOPs and memory of a decision by the number of actions; a row a model, at its middle state."""
    names = {"seconds": "Seconds a decision", "gflops": "GFLOPs a decision", "memory_mb": "Memory a decision (MB)"}
    colours = dict(zip(WAYS, (COLOURS["reflect_rl"], COLOURS["sft_only"], COLOURS["sft_rl"]), strict=True))
    found = list(dict.fromkeys(table.model))
    figure = Figure(figsize=(7.2, 2.3 * len(found) + 0.5), layout="constrained")
    grid = figure.subplots(len(found), len(names), squeeze=False)
    for axes, name in zip(grid, found, strict=True):
        of_model = table[table.model == name]
        length = sorted(of_model.state_tokens.unique())[1]
        for axis, measured in zip(axes, names, strict=True):
            for way, rows in of_model[of_model.state_tokens == length].groupby("way", sort=False):
                axis.plot(rows.actions, rows[measured], "o-", ms=3, color=colours[way], label=WAYS[way])
                if measured != "memory_mb":
                    axis.plot(rows.actions, rows[f"{measured}_order"], ":", lw=1, color=colours[way])
            axis.set(xscale="log", yscale="log", xlabel="Legal actions", ylabel=names[measured])
            axis.set_xticks(ACTIONS, [str(count) if count != 128 else "" for count in ACTIONS])
            axis.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 3)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.minorticks_off()
        axes[1].set_title(f"{name}, state of {length} tokens")
    handles, labels = grid[0][0].get_legend_handles_labels()
    handles.append(matplotlib.lines.Line2D([], [], ls=":", color="black"))
    figure.legend(handles, [*labels, "the paper's order"], loc="outside lower center", ncols=4)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=[*STATES], default=[*STATES])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(*json.loads(given.one), given.threads)))
        return
    rows = []
    for name in given.models:
        for words in STATES[name]:
            for way in WAYS:
                for count in ACTIONS:
                    command = [sys.executable, __file__, "--threads", str(given.threads)]
                    command += ["--one", json.dumps([name, way, words, count])]
                    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                    rows.append(json.loads(done.stdout.splitlines()[-1]))
                    print(rows[-1], flush=True)
                    if rows[-1]["seconds"] > BUDGET:
                        break
    table = orders(pd.DataFrame(rows))
    write_csv(HERE / "enumeration.csv", table.round(6))
    shown = table[["model", "state_tokens", "actions", "way", "seconds", "gflops", "memory_mb"]]
    wide = shown.pivot(index=["model", "state_tokens", "actions"], columns="way").round(3)
    wide.columns = [f"{WAYS[way]}: {name}" for name, way in wide.columns]
    text = f"{wide.reset_index().to_markdown(index=False)}\n\nThreads: {given.threads}; float32; {hardware()}\n"
    write_text(HERE / "enumeration.md", text)
    draw(table).savefig(HERE / "enumeration.png", dpi=150)


if __name__ == "__main__":
    main()
