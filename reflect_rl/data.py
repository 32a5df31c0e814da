"""Trajectories, negative examples, and the SFT sets made from them, as JSONL files with a manifest."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from reflect_rl.config import Config, DataConfig
from reflect_rl.envs import domain
from reflect_rl.envs.labels import Labels
from reflect_rl.errors import ReflectRLError
from reflect_rl.models import load_tokenizer, train_tokenizer
from reflect_rl.prompts import labels_for, policy_prompt, reflection_prompt
from reflect_rl.runs import claim, progress, read_json, write_json, write_text
from reflect_rl.teachers import Situation, Teacher, teacher


@dataclass(frozen=True)
class Example:
    """A situation with the teacher's reflection on it: the source of every SFT pair.

    `kind` is `positive` (a step of a trajectory after no wrong action) or `negative` (the step after a
    planted wrong action).
    """

    kind: str
    situation: Situation
    reflection: str

    def reflector_pair(self) -> tuple[str, str]:
        """(prompt, completion) for the reflection player."""
        return reflection_prompt(self.situation.observation, self.situation.last_action), " " + self.reflection

    def policy_pair(self, with_reflection: bool, labels: Labels) -> tuple[str, str]:
        """(prompt, label) for the policy player."""
        s, reflection = self.situation, self.reflection if with_reflection else None
        names = labels.texts(labels.of(s.actions))
        prompt = policy_prompt(s.observation, s.last_action, s.actions, reflection, names)
        return prompt, " " + names[s.actions.index(s.best_action)]


def situation(env, index: int, last_action: str, observation: str, actions: Sequence[str]) -> Situation:
    """The present step of `env` as a teacher sees it."""
    best = actions[env.best_action()]
    return Situation(env.task, index, observation, last_action, env.verdict, env.phase(), tuple(actions), best)


def act(env, now: Situation, action: int) -> Situation | None:
    """Take an action; the next situation, None at the end of the episode."""
    observation, _, terminated, truncated, info = env.step(action)
    if terminated or truncated:
        return None
    return situation(env, now.index + 1, now.actions[action], observation, info["actions"])


def begin(env, task: str) -> Situation:
    observation, info = env.reset(options={"task": task})
    return situation(env, 0, "", observation, info["actions"])


def trajectory(env, task: str, random_action_probability: float, rng: np.random.Generator) -> Iterator[Situation]:
    """The situations of one episode of the best actions that a player can know, mixed with random ones."""
    now: Situation | None = begin(env, task)
    while now is not None:
        yield now
        explore = rng.random() < random_action_probability
        action = int(rng.integers(len(now.actions))) if explore else env.best_action()
        now = act(env, now, action)


def negative(env, task: str, rng: np.random.Generator) -> Situation | None:
    """The situation after a wrong action, planted at a random step of the teacher's own trajectory.

    Only an action that survives can be recovered from, so fatal actions are never planted. None where the
    step has no wrong action that survives.
    """
    now = begin(env, task)
    for _ in range(int(rng.integers(min(env.steps_to_go(), env.horizon)))):
        now = act(env, now, env.best_action())
    wrong = env.wrong_actions()
    if not wrong:
        return None
    after = act(env, now, int(rng.choice(wrong)))
    return after if after is not None and after.verdict == "wrong" else None


def collect(
    env_name: str, config: DataConfig, writer: Teacher, rng: np.random.Generator, side_by_side: int = 1
) -> list[Example]:
    """Positive and negative examples from the training tasks of an environment's full setting.

    With `side_by_side` the teacher is asked by several threads, which pays where it is far away.
    """
    env = domain(env_name).make(horizon=config.horizon)
    panel = domain(env_name).tasks("full", "train", config.tasks)
    found = []
    for _ in range(config.trajectories):
        steps = trajectory(env, str(rng.choice(panel)), config.random_action_probability, rng)
        found += [("positive", s) for s in steps if s.verdict != "wrong"]
    for _ in range(config.negatives):
        after = negative(env, str(rng.choice(panel)), rng)
        if after is not None:
            found.append(("negative", after))
    situations = [s for _, s in found]
    if side_by_side == 1:
        texts = [writer.reflect(s) for s in situations]
    else:
        with ThreadPoolExecutor(side_by_side) as pool:
            answers = pool.map(writer.reflect, situations)
            texts = list(progress(answers, f"{env_name}: reflections", total=len(situations), unit="text"))
    return [Example(kind, s, text) for (kind, s), text in zip(found, texts, strict=True)]


def balanced(examples: Sequence[Example], size: int, rng: np.random.Generator) -> list[Example]:
    """`size` examples drawn with replacement, rare situations more often than they occur.

    A situation (verdict and phase) weighs as the square root of its number of distinct prompts, so that the few
    drop-offs are not drowned by the many drives; within it, every distinct prompt is equally likely.
    """
    prompts = [(e.situation.observation, e.situation.last_action) for e in examples]
    situations = [(e.situation.verdict, e.situation.phase) for e in examples]
    copies = Counter(prompts)
    distinct = Counter(situation for situation, _ in set(zip(situations, prompts, strict=True)))
    weights = np.array([distinct[s] ** -0.5 / copies[p] for s, p in zip(situations, prompts, strict=True)])
    chosen = rng.choice(len(examples), size=size, p=weights / weights.sum())
    return [examples[i] for i in chosen]


def balance(examples: Sequence[Example]) -> dict[str, int]:
    """Number of examples by verdict and phase."""
    return dict(sorted(Counter(f"{e.situation.verdict}, {e.situation.phase}" for e in examples).items()))


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

    Files in `config.data_dir`: `examples.jsonl` (every example once, with its situation), one `<set>.jsonl` for
    each of `SETS` (prompt, completion, kind), `tokenizer.json` (trained on `policy`, whose prompts hold those of the others) and `manifest.json` (counts,
    balance, checksums), written last.

    Raises:
        ReflectRLError: the folder holds the data of other settings.
    """
    with claim(config.data_dir, config.sections("data", "model")):
        path = config.data_dir / "manifest.json"
        return read_json(path) if path.exists() else _make(config)


def _make(config: Config) -> dict:
    folder = config.data_dir
    rng = np.random.default_rng([config.seed, 1])
    writer, asked = teacher(config.env, config.teacher, config.asking), config.teacher
    examples = collect(config.env, config.data, writer, rng, config.asking.side_by_side if asked.model else 1)
    labels, lines = domain(config.env).labels, {}
    if config.model.base:
        labels = labels_for(load_tokenizer(config.model), labels)
    files = {"examples": _jsonl(examples)}
    manifest = {"seed": config.seed, "examples": len(examples), "balance": {}, "sets": {}}
    if asked.model:
        manifest["teacher"] = {"model": asked.model, "spoilt": writer.spoilt} | writer.endpoint.spent()
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
        trained = train_tokenizer(texts, labels.names, config.model)
        write_text(folder / "tokenizer.json", trained.backend_tokenizer.to_str())
    for name, text in files.items():
        write_text(folder / f"{name}.jsonl", text)
    write_json(folder / "manifest.json", manifest)
    return manifest


def read(config: Config, name: str) -> list[dict]:
    """The lines of one data file, its checksum verified.

    Raises:
        ReflectRLError: the file is missing or is not what the manifest says.
    """
    manifest = make(config)
    path = config.data_dir / f"{name}.jsonl"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ReflectRLError(f"{path} is missing; delete {config.data_dir} to make the data anew") from error
    if sha256(content).hexdigest() != manifest["sha256"][name]:
        raise ReflectRLError(
            f"{path} is damaged (its checksum differs); delete {config.data_dir} to make the data anew"
        )
    return [json.loads(line) for line in content.decode().splitlines()]
