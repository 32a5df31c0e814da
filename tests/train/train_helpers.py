"""What the tests of training share: tiny settings, and ways to kill a run."""

import torch

from reflect_rl.envs.settings import load as load_settings

SMALL_DATA = (
    "data.trajectories=60 data.negatives=40 data.sft_examples=300 data.wrong_steps=false data.target=oracle "
    "data.policy_draw=balanced model.n_conv=0 model.n_layer=2"
)


def load(variant="reflect_rl", seed=0, *settings):
    """Settings of a smoke run; where a setting is given twice, the later one counts."""
    chosen = dict(item.split("=") for item in " ".join((SMALL_DATA, *settings)).split())
    return load_settings("smoke", "taxi", variant, seed, " ".join(f"{k}={v}" for k, v in chosen.items()))


TINY_RL = (
    "model.d_model=32 model.n_layer=1 reflector.steps=2 reflector.evaluate_every=2 policy.steps=60 "
    "policy.evaluate_every=100 rl.episodes_per_update=8 rl.evaluate_every=3 rl.checkpoint_every=2 rl.env_steps=90 "
    "rl.learning_rate=0.001 rl.critic_steps=3 rl.replay=0"
)
PG = "rl.objective=pg rl.advantage=leave_one_out rl.normalise=false rl.discount=1"
PPO = "rl.epochs=2 rl.minibatches=3 rl.kl=0.1"
REPLAY = "rl.replay=4 rl.episodes_per_update=48 rl.env_steps=500 rl.stage_shares=[1.0,0.0]"


def load_rl(variant="sft_rl", seed=0, more=""):
    """Settings of a run with online RL of a few updates."""
    return load(variant, seed, TINY_RL, more)


class Killed(Exception):
    """Stands for the end of a process."""


def dies(times, function):
    """`function`, which works `times` times and then raises."""
    calls = []

    def dying(*args, **kwargs):
        calls.append(1)
        if len(calls) > times:
            raise Killed
        return function(*args, **kwargs)

    return dying


def equal(a, b):
    """Whether two dictionaries of tensors are equal to the last digit."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def contents(folder):
    """The files below a folder, the locks aside."""
    paths = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock")
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}
