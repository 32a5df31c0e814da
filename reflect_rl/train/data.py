"""Trajectories, negative examples, and the SFT sets made from them, as JSONL files with a manifest."""

import importlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256

import gymnasium as gym
import numpy as np

from reflect_rl.core.config import Config, DataConfig
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.files import read_json, write_json, write_text
from reflect_rl.core.identity import locked_run_dir, stage_dir
from reflect_rl.core.runtime import progress
from reflect_rl.envs.base import EnvSpec, Situation, Teacher
from reflect_rl.envs.labels import Labels
from reflect_rl.envs.play import act, begin, expert_steps
from reflect_rl.envs.registry import get
from reflect_rl.lm.prompts import labels_for, policy_prompt, reflection_prompt
from reflect_rl.lm.tokenizers import load_tokenizer, train_tokenizer


@dataclass(frozen=True)
class Example:
    """A situation with the teacher's reflection on it: the source of every SFT pair.

    `kind` is `positive` (a step of a trajectory that does not follow a wrong action) or `negative` (the step after a
    planted wrong action).
    """

    kind: str
    situation: Situation
    reflection: str

    def reflector_pair(self) -> tuple[str, str]:
        """(prompt, completion) for the reflector."""
        return reflection_prompt(self.situation.observation, self.situation.last_action), " " + self.reflection

    def policy_pair(self, with_reflection: bool, labels: Labels) -> tuple[str, str]:
        """(prompt, label of the expert's action) for the policy."""
        s, reflection = self.situation, self.reflection if with_reflection else None
        names = labels.texts(labels.of(s.actions))
        prompt = policy_prompt(s.observation, s.last_action, s.actions, reflection, names)
        return prompt, " " + names[s.actions.index(s.expert_action)]


def trajectory(
    spec: EnvSpec, env: gym.Env, task: str, random_action_probability: float, rng: np.random.Generator
) -> Iterator[Situation]:
    """The situations of one episode of the expert's actions, mixed with random ones."""
    now: Situation | None = begin(spec, env, task)
    while now is not None:
        yield now
        explore = rng.random() < random_action_probability
        action = int(rng.integers(len(now.actions))) if explore else spec.expert_action(env)
        now = act(spec, env, now, action)


def negative(spec: EnvSpec, env: gym.Env, task: str, horizon: int, rng: np.random.Generator) -> Situation | None:
    """The situation after a wrong action, planted at a random step of the expert's own trajectory.

    Only an action from which the expert can recover is planted, never one that ends the episode. None where the step
    has no such action.
    """
    now = begin(spec, env, task)
    for _ in range(int(rng.integers(min(expert_steps(spec, task), horizon)))):
        now = act(spec, env, now, spec.expert_action(env))
    slips = spec.slips_of(env, now.actions)
    if not slips:
        return None
    after = act(spec, env, now, int(rng.choice(slips)))
    return after if after is not None and after.action_feedback == "wrong" else None


def collect(
    spec: EnvSpec, config: DataConfig, teacher: Teacher, rng: np.random.Generator, requests: int = 1
) -> list[Example]:
    """Positive and negative examples from the training tasks of an environment's training setting.

    With `requests` above 1 the teacher is called from so many threads, which pays where it is far away.
    """
    env = spec.make(horizon=config.horizon)
    panel = spec.panel(spec.training_setting, "train", config.tasks)
    found = []
    for _ in range(config.trajectories):
        steps = trajectory(spec, env, str(rng.choice(panel)), config.random_action_probability, rng)
        found += [("positive", s) for s in steps if s.action_feedback != "wrong"]
    for _ in range(config.negatives):
        after = negative(spec, env, str(rng.choice(panel)), config.horizon, rng)
        if after is not None:
            found.append(("negative", after))
    situations = [s for _, s in found]
    if requests == 1:
        texts = [teacher(s) for s in situations]
    else:
        with ThreadPoolExecutor(requests) as pool:
            answers = pool.map(teacher, situations)
            texts = list(progress(answers, f"{spec.name}: reflections", total=len(situations), unit="text"))
    return [Example(kind, s, text) for (kind, s), text in zip(found, texts, strict=True)]


def balanced(examples: Sequence[Example], size: int, rng: np.random.Generator) -> list[Example]:
    """`size` examples drawn with replacement, rare situations more often than they occur.

    A situation (action feedback and phase) weighs as the square root of its number of distinct prompts, so that a rare
    phase is not drowned by a common one; within it, every distinct prompt is equally likely.
    """
    prompts = [(e.situation.observation, e.situation.last_action) for e in examples]
    situations = [(e.situation.action_feedback, e.situation.phase) for e in examples]
    copies = Counter(prompts)
    distinct = Counter(situation for situation, _ in set(zip(situations, prompts, strict=True)))
    weights = np.array([distinct[s] ** -0.5 / copies[p] for s, p in zip(situations, prompts, strict=True)])
    chosen = rng.choice(len(examples), size=size, p=weights / weights.sum())
    return [examples[i] for i in chosen]


def balance(examples: Sequence[Example]) -> dict[str, int]:
    """Number of examples by action feedback and phase."""
    names = (", ".join(filter(None, (e.situation.action_feedback, e.situation.phase))) for e in examples)
    return dict(sorted(Counter(names).items()))


SETS = {
    "reflector": ("reflector", ("positive", "negative")),
    "reflector_no_negatives": ("reflector", ("positive",)),
    "policy": ("policy", ("positive", "negative")),
    "policy_no_negatives": ("policy", ("positive",)),
    "policy_no_reflection": ("policy_no_reflection", ("positive", "negative")),
}


def _pairs(examples: Sequence[Example], player: str, labels: Labels) -> list[dict]:
    lines = []
    for example in examples:
        if player == "reflector":
            prompt, completion = example.reflector_pair()
        else:
            prompt, completion = example.policy_pair(player == "policy", labels)
        lines.append({"prompt": prompt, "completion": completion, "kind": example.kind})
    return lines


def _jsonl(lines: Sequence) -> str:
    """A line for each dictionary or dataclass."""
    return "".join(json.dumps(line, default=vars) + "\n" for line in lines)


def make(config: Config) -> dict:
    """Make, or find, the data of a seed; returns the manifest.

    Files in the run folder of the stage `data`: `examples.jsonl` (every example once, with its situation), one
    `<set>.jsonl` for each of `SETS` (prompt, completion, kind), `tokenizer.json` (trained on `policy`, whose prompts
    hold those of the others) and `manifest.json` (counts, balance, checksums), written last.
    """
    with locked_run_dir(config, "data") as folder:
        path = folder / "manifest.json"
        if not path.exists():
            _make(config)
        return read_json(path)


def _make(config: Config) -> None:
    folder, spec, settings = stage_dir(config, "data"), get(config.env), config.teacher
    rng = np.random.default_rng([config.seed, 1])
    writer = None
    if settings.model:  # imported by name, so that data by rules do not depend on the code of that module
        module = importlib.import_module("reflect_rl.train.lm_teacher")
        writer = module.LanguageModelTeacher(spec, settings, config.client)
    teacher, requests = (writer.reflect, config.client.side_by_side) if writer else (spec.teacher, 1)
    examples = collect(spec, config.data, teacher, rng, requests)
    labels, lines = spec.labels, {}
    if config.model.base:
        labels = labels_for(load_tokenizer(config.model), labels)
    files = {"examples": _jsonl(examples)}
    manifest = {"seed": config.seed, "examples": len(examples), "balance": {}, "sets": {}}
    if writer:
        manifest["teacher"] = {"model": settings.model, "leaked": writer.leaked} | writer.endpoint.spent()
    for kind in ("positive", "negative"):
        manifest["balance"][kind] = balance([e for e in examples if e.kind == kind])
    for name, (player, kinds) in SETS.items():
        chosen = balanced([e for e in examples if e.kind in kinds], config.data.sft_examples, rng)
        lines[name] = _pairs(chosen, player, labels)
        files[name] = _jsonl(lines[name])
        manifest["sets"][name] = {"examples": len(chosen), "balance": balance(chosen)}
    manifest["sha256"] = {name: sha256(text.encode()).hexdigest() for name, text in files.items()}
    if not config.model.base:
        texts = [line["prompt"] + line["completion"] for line in lines["policy"]]  # has the words of all sets
        trained = train_tokenizer(texts, labels.names, config.model, spec.tokenizer_pattern)
        write_text(folder / "tokenizer.json", trained.backend_tokenizer.to_str())
    for name, text in files.items():
        write_text(folder / f"{name}.jsonl", text)
    write_json(folder / "manifest.json", manifest)


def read(config: Config, name: str) -> list[dict]:
    """The lines of one data file, its checksum verified.

    Raises:
        ReflectRLError: the file is missing or is not what the manifest says.
    """
    manifest, folder = make(config), stage_dir(config, "data")
    path, way_out = folder / f"{name}.jsonl", f"delete {folder} to make the data anew"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ReflectRLError(f"{path} is missing; {way_out}") from error
    if sha256(content).hexdigest() != manifest["sha256"][name]:
        raise ReflectRLError(f"{path} is damaged (its checksum differs); {way_out}")
    return [json.loads(line) for line in content.decode().splitlines()]
