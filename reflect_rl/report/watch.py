"""Whole episodes that are kept beside the raw results, to be watched: `results/<profile>/<stem>_episodes.json`."""

from pathlib import Path

import numpy as np

from reflect_rl.core import paths
from reflect_rl.core.config import Config
from reflect_rl.core.files import read_json
from reflect_rl.envs.registry import get
from reflect_rl.evaluate.panels import agents, frames
from reflect_rl.train.rollout import PlayersAgent, play

TASKS = 3  # of the headline setting's test panel
VARIANTS = ("expert", "follow", "sft_only", "sft_rl", "reflect_sft", "reflect_rl")  # where a regime has them
CHOICES, LEAST = 6, 0.005  # of a policy's actions as many as these are kept, where they are so probable


def watched(run: Config) -> list[dict]:
    """The first tasks of the headline panel as a run plays them in its evaluation, sampled where it samples.

    Of each: variant, seed, task, decoding, ended, success, and frames as `panels.frames` has them, with the policy's most
    probable `choices` (action, probability), none where no policy chose.
    """
    spec, panel = get(run.env), run.evaluation
    tasks = spec.panel(spec.headline, panel.split, panel.tasks)[:TASKS]
    of = agents(run)
    decoding = "sampled" if "sampled" in of else "greedy"
    rngs = [np.random.default_rng([run.seed, 6, i, 0]) for i in range(len(tasks))]  # those of `panels.evaluate`
    found = []
    for episode in play(spec, of[decoding], tasks, rngs, max(panel.horizons)):
        shown = frames(episode)
        for frame, step in zip(shown, episode.transitions, strict=False):  # the last frame has no step
            frame["choices"] = _choices(of[decoding], step)
        about = {"variant": run.variant, "seed": run.seed, "task": episode.task, "decoding": decoding}
        found.append(about | {"ended": episode.ended, "success": episode.success, "frames": shown})
    return found


def _choices(agent, step) -> list[tuple[str, float]]:
    if not isinstance(agent, PlayersAgent):
        return []
    shares = np.exp(agent.log_probs(step.decision.prompt, step.actions))
    best = np.argsort(-shares, kind="stable")[:CHOICES]
    return [(step.actions[i], round(float(shares[i]), 3)) for i in best if shares[i] >= LEAST]


def file_of(folder: Path, stem: str) -> Path:
    return folder / f"{stem}_episodes.json"


def kept(profile_name: str, stem: str) -> list[dict]:
    """The episodes that were kept, here or as committed, with the main variant's first; none where there are none."""
    path = paths.result_file(profile_name, f"{stem}_episodes.json")
    found = read_json(path) if path else []
    return sorted(found, key=lambda episode: episode["variant"] != VARIANTS[-1])
