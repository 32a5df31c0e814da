"""Trajectories, negative examples, and the SFT sets made from them, as JSONL files with a manifest."""

import importlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
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
from reflect_rl.lm.prompts import Texts, format_of, labels_for, policy_prompt, reflection_prompt
from reflect_rl.lm.tokenizers import load_tokenizer, train_tokenizer


@dataclass(frozen=True)
class Step:
    """A situation of free play, which costs no teacher, and what was done in it.

    `kind` is `positive` (it does not follow a wrong action) or `negative` (it follows one, planted or of the walk).
    """

    kind: str
    situation: Situation
    executed: str  #: the action that was taken; the expert's after a planted wrong one

    @property
    def prompt(self) -> tuple[str, str]:
        """What distinguishes situations to a player: observation and last action."""
        return self.situation.observation, self.situation.last_action

    @property
    def asked(self) -> Situation:
        """What distinguishes situations to a teacher: all but the place in an episode."""
        return replace(self.situation, task="", index=0)


@dataclass(frozen=True)
class Example(Step):
    """A step with the teacher's reflection on its situation: the source of every SFT pair."""

    reflection: str

    def reflector_pair(self) -> tuple[str, str]:
        """(prompt, completion) for the reflector."""
        return reflection_prompt(*self.prompt), " " + self.reflection

    def policy_pair(self, with_reflection: bool, labels: Labels, target: str = "oracle") -> tuple[str, str]:
        """(prompt, label) for the policy: of the expert's action, or with the target `executed` of the one taken."""
        s, reflection = self.situation, self.reflection if with_reflection else None
        names = labels.texts(labels.of(s.actions))
        prompt = format_of(labels).policy(s.observation, s.last_action, s.actions, reflection, names)
        return prompt, " " + names[s.actions.index(self.executed if target == "executed" else s.expert_action)]


def trajectory(
    spec: EnvSpec, env: gym.Env, task: str, random_share: float, rng: np.random.Generator, illegal_share: float = 0.0
) -> Iterator[tuple[Situation, str]]:
    """The situations of one episode of the expert's actions, mixed with random ones, and the action taken in each.

    Some actions are not legal, which change nothing; the expert's stands in their place.
    """
    now: Situation | None = begin(spec, env, task)
    while now is not None:
        executed = now.expert_action
        if illegal_share and rng.random() < illegal_share:
            action = len(now.actions)
        else:
            explore = rng.random() < random_share
            action = int(rng.integers(len(now.actions))) if explore else spec.expert_action(env)
            executed = now.actions[action]
        yield now, executed
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


def play_freely(spec: EnvSpec, config: DataConfig, rng: np.random.Generator) -> list[Step]:
    """Positive and negative steps from the training tasks of an environment's training setting."""
    env = spec.make(horizon=config.horizon)
    panel = spec.panel(spec.training_setting, "train", config.tasks)
    found = []
    shares = config.random_action_probability
    for i in range(config.trajectories):
        given = shares[i % len(shares)], rng, config.illegal_action_probability
        for now, executed in trajectory(spec, env, str(rng.choice(panel)), *given):
            if now.action_feedback != "wrong":
                found.append(Step("positive", now, executed))
            elif config.wrong_steps:
                found.append(Step("negative", now, executed))
    for _ in range(config.negatives):
        after = negative(spec, env, str(rng.choice(panel)), config.horizon, rng)
        if after is not None:
            found.append(Step("negative", after, after.expert_action))
    return found


KIND_SHARES = {"positive": 2 / 3, "negative": 1 / 3}  # of a limited number of reflections


def limited(steps: Sequence[Step], number: int, rng: np.random.Generator) -> list[Step]:
    """The steps in `number` distinct situations, drawn by kind and phase; 0 for all.

    Situations are shuffled within each stratum, and the strata merged in proportion to their kind's share
    (`KIND_SHARES`) and the square root of their size: the situations of a small number are among those of a larger one.
    """
    if not number:
        return [*steps]
    strata: dict[tuple[str, str], dict[Situation, None]] = {}
    for step in steps:
        strata.setdefault((step.kind, step.situation.phase), {})[step.asked] = None
    roots = {stratum: len(situations) ** 0.5 for stratum, situations in strata.items()}
    place = {}
    for (kind, phase), situations in sorted(strata.items(), reverse=True):  # positive ones first, alone or not
        of_kind = sum(root for stratum, root in roots.items() if stratum[0] == kind)
        share = KIND_SHARES[kind] * roots[kind, phase] / of_kind
        order = rng.permutation(len(situations))
        place |= {situation: (rank + 0.5) / share for rank, situation in zip(order, situations, strict=True)}
    chosen = set(sorted(place, key=place.__getitem__)[:number])
    return [step for step in steps if step.asked in chosen]


def reflect(steps: Sequence[Step], teacher: Teacher, requests: int = 1, description: str = "") -> list[Example]:
    """The steps with the teacher's reflections: one for each distinct situation.

    With `requests` above 1 the teacher is called from so many threads, which pays where it is far away.
    """
    situations = {step.asked: step.situation for step in steps}
    if requests == 1:
        texts = map(teacher, situations.values())
    else:
        with ThreadPoolExecutor(requests) as pool:
            answers = pool.map(teacher, situations.values())
            texts = list(progress(answers, description, total=len(situations), unit="text"))
    known = dict(zip(situations, texts, strict=True))
    return [Example(step.kind, step.situation, step.executed, known[step.asked]) for step in steps]


def balanced(examples: Sequence[Example], size: int, rng: np.random.Generator) -> list[Example]:
    """`size` examples drawn with replacement, rare situations more often than they occur.

    A situation (action feedback and phase) weighs as the square root of its number of distinct prompts, so that a rare
    phase is not drowned by a common one; within it, every distinct prompt is equally likely.
    """
    prompts = [e.prompt for e in examples]
    situations = [(e.situation.action_feedback, e.situation.phase) for e in examples]
    copies = Counter(prompts)
    distinct = Counter(situation for situation, _ in set(zip(situations, prompts, strict=True)))
    weights = np.array([distinct[s] ** -0.5 / copies[p] for s, p in zip(situations, prompts, strict=True)])
    chosen = rng.choice(len(examples), size=size, p=weights / weights.sum())
    return [examples[i] for i in chosen]


def visits(examples: Sequence[Example], size: int, rng: np.random.Generator) -> list[Example]:
    """`size` examples, each visit of a situation as likely as any other, and each once while there are enough."""
    return [examples[i] for i in rng.choice(len(examples), size=size, replace=size > len(examples))]


def balance(examples: Sequence[Example]) -> dict[str, int]:
    """Number of examples by action feedback and phase."""
    names = (", ".join(filter(None, (e.situation.action_feedback, e.situation.phase))) for e in examples)
    return dict(sorted(Counter(names).items()))


SETS = {  # name -> player, and whether negative examples are in it
    "reflector": ("reflector", True),
    "reflector_no_negatives": ("reflector", False),
    "policy": ("policy", True),
    "policy_no_negatives": ("policy", False),
    "policy_no_reflection": ("policy_no_reflection", True),
}
SOURCES = ("all", "no_negatives")  # of a set with and of one without negative examples


def _pairs(examples: Sequence[Example], player: str, labels: Labels, target: str) -> list[dict]:
    lines = []
    for example in examples:
        if player == "reflector":
            prompt, completion = example.reflector_pair()
        else:
            prompt, completion = example.policy_pair(player == "policy", labels, target)
        lines.append({"prompt": prompt, "completion": completion, "kind": example.kind})
    return lines


def _drawn(config: Config, examples: Sequence[Example], name: str) -> list[Example]:
    """The draw of one of `SETS` from its examples; each set has a generator of its own."""
    rng, settings = np.random.default_rng([config.seed, 9, [*SETS].index(name)]), config.data
    if SETS[name][0] == "reflector":
        return balanced(examples, settings.sft_examples, rng)
    draw = visits if settings.policy_draw == "visits" else balanced
    return draw(examples, settings.policy_examples or settings.sft_examples, rng)


def make(config: Config) -> dict:
    """Make, or find, the data of a seed; returns the manifest.

    Files in the run folder of the stage `data`: `examples.jsonl` (every example once, with its situation and with those of
    `SOURCES` that it is in), `tokenizer.json` (trained on free play and on the reflector's set) and `manifest.json` (counts,
    balance, distinct reflections of the sources, checksum), written last. What the policy alone is given (its target, its
    draw) decides none of them: sets are drawn when they are read.

    With a limited number of reflections the sets with negative examples hold so many distinct situations, and those
    without as many of their own.
    """
    with locked_run_dir(config, "data") as folder:
        path = folder / "manifest.json"
        if not path.exists():
            _make(config)
        return read_json(path)


def _examples(config: Config, spec: EnvSpec, chosen: Sequence[Step]) -> tuple[list[Example], dict]:
    """Steps with their reflections, and what the manifest says of a teacher that is a language model."""
    if not config.teacher.model:
        return reflect(chosen, spec.teacher_of(config.teacher.tells)), {}
    # imported by name, so that data by rules do not depend on the code of that module
    module = importlib.import_module("reflect_rl.train.lm_teacher")
    writer = module.LanguageModelTeacher(spec, config.teacher, config.client)
    examples = reflect(chosen, writer.reflect, config.client.side_by_side, f"{spec.name}: reflections")
    return examples, {"teacher": {"model": config.teacher.model, "leaked": writer.leaked} | writer.endpoint.spent()}


def _make(config: Config) -> None:
    folder, spec, limit = stage_dir(config, "data"), get(config.env), config.data.reflections
    steps = play_freely(spec, config.data, np.random.default_rng([config.seed, 1]))
    positive = [step for step in steps if step.kind == "positive"]
    of_sources = {
        source: {step.asked for step in limited(of, limit, np.random.default_rng([config.seed, 8]))}
        for source, of in zip(SOURCES, (steps, positive), strict=True)
    }
    union = set().union(*of_sources.values())
    examples, said = _examples(config, spec, [step for step in steps if step.asked in union])
    manifest = {"seed": config.seed, "examples": len(examples), "balance": {}} | said
    for kind in KIND_SHARES:
        manifest["balance"][kind] = balance([e for e in examples if e.kind == kind])
    manifest["reflections"] = {source: len(asked) for source, asked in of_sources.items()}
    sources = [[source for source in SOURCES if e.asked in of_sources[source]] for e in examples]
    lines = (vars(e) | {"sources": of} for e, of in zip(examples, sources, strict=True))
    text = "".join(json.dumps(line, default=vars) + "\n" for line in lines)
    manifest["sha256"] = {"examples": sha256(text.encode()).hexdigest()}
    if not config.model.base:
        labels = spec.labels
        names = {step.situation.actions: labels.texts(labels.of(step.situation.actions)) for step in steps}
        seen = dict.fromkeys((*step.prompt, step.situation.actions) for step in steps)
        texts = [policy_prompt(*prompt, None, names[prompt[-1]]) for prompt in seen]
        own = [e for e, of in zip(examples, sources, strict=True) if SOURCES[0] in of]
        texts += ["".join(example.reflector_pair()) for example in _drawn(config, own, "reflector")]
        trained = train_tokenizer(texts, labels.names, config.model, spec.tokenizer_pattern)
        write_text(folder / "tokenizer.json", trained.backend_tokenizer.to_str())
    write_text(folder / "examples.jsonl", text)
    write_json(folder / "manifest.json", manifest)


def reflections(config: Config, name: str) -> int:
    """How many distinct reflections the examples of one of `SETS` are drawn from."""
    return make(config)["reflections"][SOURCES[not SETS[name][1]]]


def read_examples(config: Config, source: str = SOURCES[0]) -> list[Example]:
    """Every example of one of `SOURCES` once, the checksum of the file verified.

    Raises:
        ReflectRLError: the file is missing or is not what the manifest says.
    """
    manifest, folder = make(config), stage_dir(config, "data")
    path, way_out = folder / "examples.jsonl", f"delete {folder} to make the data anew"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ReflectRLError(f"{path} is missing; {way_out}") from error
    if sha256(content).hexdigest() != manifest["sha256"]["examples"]:
        raise ReflectRLError(f"{path} is damaged (its checksum differs); {way_out}")
    found = []
    for row in map(json.loads, content.decode().splitlines()):
        if source in row.pop("sources"):
            row["situation"]["actions"] = tuple(row["situation"]["actions"])
            found.append(Example(**row | {"situation": Situation(**row["situation"])}))
    return found


def drawn(config: Config, name: str) -> list[Example]:
    """The examples of one of `SETS`, as often as they are in it."""
    return _drawn(config, read_examples(config, SOURCES[not SETS[name][1]]), name)


def read(config: Config, name: str) -> list[dict]:
    """The lines of one of `SETS`: prompt, completion, kind."""
    labels = get(config.env).labels
    if config.arm.scores_texts:
        labels = Texts()
    elif config.model.base:
        labels = labels_for(load_tokenizer(config.model), labels)
    return _pairs(drawn(config, name), SETS[name][0], labels, config.data.target)
