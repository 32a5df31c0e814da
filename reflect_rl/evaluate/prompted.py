"""Language models that are prompted and not trained: zero-shot or few-shot, with or without a thought before acting.

Conversations are the same for all models. One on this machine chooses among the labels of the legal actions by their
probabilities, as the trained policies do, so it cannot answer with something else; one behind an endpoint answers in
words, and where these name no legal action the step is wasted.
"""

import itertools
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from transformers import PreTrainedTokenizerBase

from reflect_rl.core.config import Config
from reflect_rl.envs.base import EnvSpec, Situation
from reflect_rl.envs.labels import Labels, in_order
from reflect_rl.envs.play import act, advised_action, begin, expert_steps
from reflect_rl.envs.registry import get
from reflect_rl.lm import bases, tokenizers
from reflect_rl.lm.endpoint import Endpoint, Message
from reflect_rl.lm.players import Encoder, Policy, Prefix, Reflector
from reflect_rl.lm.prompts import LETTERS, Format, labels_for
from reflect_rl.train.rollout import ActiveEpisode, Agent, Decision, PlayersAgent

ACT = "Answer with the label of the action that brings you nearest to the goal, and with nothing else."
THINK = "Say in one or two short sentences what your last action did, whether it was good, and what to do next."


def worked_examples(spec: EnvSpec, count: int) -> list[tuple[Situation, str]]:
    """Situations with the teacher's reflections: of `count` training tasks, early, midway and late on the expert's way.

    They are the same at every call.
    """
    env, found = spec.make(horizon=10_000), []
    tasks = np.random.default_rng(8).permutation(spec.panel(spec.headline, "train"))[:count]
    for i, task in enumerate(map(str, tasks)):
        now = begin(spec, env, task)
        for _ in range(i * (expert_steps(spec, task) - 1) // max(count - 1, 1)):
            now = act(spec, env, now, spec.expert_action(env))
        found.append((now, spec.teacher(now)))
    return found


class Conversation:
    """What a model that knows nothing of an environment is told: the goal, worked examples, the state."""

    def __init__(self, spec: EnvSpec, shown: Sequence[tuple[Situation, str]], labels: Labels):
        self.rules = f"You play a text game. {spec.goal}\n{spec.legend}"
        self.shown, self.labels = shown, labels

    def thought(self, observation: str, last_action: str) -> list[Message]:
        """Asks what to think of the situation."""
        shown = [(_state(s.observation, s.last_action), reflection) for s, reflection in self.shown]
        return self._messages(THINK, shown, _state(observation, last_action))

    def action(
        self, observation: str, last_action: str, actions: Sequence[str], thought: str | None, labels: Sequence[str]
    ) -> list[Message]:
        """Asks for the label of an action."""
        shown = []
        for s, reflection in self.shown:
            names = self.labels.texts(self.labels.of(s.actions))
            its_thought = None if thought is None else reflection
            question = _choice(s.observation, s.last_action, s.actions, its_thought, names)
            shown.append((question, f"Answer: {names[s.actions.index(s.expert_action)]}"))
        return self._messages(ACT, shown, _choice(observation, last_action, actions, thought, labels))

    def _messages(self, instruction: str, shown: list[tuple[str, str]], question: str) -> list[Message]:
        """The rules, worked (question, answer) pairs, and the question."""
        said = [("system", f"{self.rules}\n{instruction}")]
        for asked, answer in shown:
            said += [("user", asked), ("assistant", answer)]
        return [{"role": role, "content": content} for role, content in [*said, ("user", question)]]


def _state(observation: str, last_action: str) -> str:
    return f"{observation}\nLast action: {last_action or 'none'}"


def _choice(observation: str, last_action: str, actions: Sequence[str], thought: str | None, labels) -> str:
    listed = "\n".join(f"{name} {action}" for name, action in zip(labels, actions, strict=True))
    thinking = "" if thought is None else f"\nThought: {thought}"
    return f"{_state(observation, last_action)}{thinking}\nActions:\n{listed}"


def written(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> str:
    """A conversation as the text that a model on this machine continues, by its chat template where it has one."""
    if tokenizer.chat_template is None:
        begins = {"system": "", "user": "User: ", "assistant": "Assistant: "}
        return "\n\n".join([*(begins[m["role"]] + m["content"] for m in messages), "Assistant:"])
    text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    start = tokenizer.bos_token if tokenizer.bos_token_id in tokenizer("a")["input_ids"] else None
    return text.removeprefix(start or "")  # which the tokenizer adds by itself


class EndpointAgent:
    """A model behind an endpoint as an agent; greedy at temperature 0, sampled at 1."""

    def __init__(
        self, endpoint: Endpoint, talk: Conversation, reflecting: bool, max_new_tokens: int, temperature: float
    ):
        self.endpoint, self.talk, self.reflecting = endpoint, talk, reflecting
        self.max_new_tokens, self.temperature = max_new_tokens, temperature

    def decide(self, active: Sequence[ActiveEpisode]) -> list[Decision]:
        # where sampled, equal situations are separate requests: by the episode's own generator
        attempts = [int(episode.rng.integers(2**31)) if self.temperature else 0 for episode in active]
        with ThreadPoolExecutor(self.endpoint.client.side_by_side) as pool:
            return list(pool.map(self._decide, active, attempts))

    def _decide(self, episode: ActiveEpisode, attempt: int) -> Decision:
        ask, state, thought = self.endpoint.reply, (episode.observation, episode.last_action), None
        if self.reflecting:
            thought = " ".join(ask(self.talk.thought(*state), self.max_new_tokens, self.temperature, attempt).split())
        names = self.talk.labels.texts(self.talk.labels.of(episode.actions))
        answer = ask(self.talk.action(*state, episode.actions, thought, names), 16, self.temperature, attempt)
        chosen = choice(answer, episode.actions, names)
        return Decision(len(episode.actions) if chosen is None else chosen, reflection=thought or "")


def choice(answer: str, actions: Sequence[str], labels: Sequence[str]) -> int | None:
    """Index of the action whose label an answer begins with, or else whose text it names; None where it does neither.

    A label stands alone or before its action: "I would move" and "A move to the north" begin with none.
    """
    begins = re.match(r"\W*(?:(?i:the )?(?i:answer|label|action)(?i: is)?\b\W*)?([A-Z]{1,2})\b(.*)", answer, re.DOTALL)
    if begins and begins[1] in labels:
        index, rest = list(labels).index(begins[1]), begins[2]
        said, named = rest.strip().lower(), actions[index].lower()
        if not re.match(r"\s+\w|'", rest) or said.startswith(named) or named.startswith(said):
            return index
    return advised_action(answer.lower(), [action.lower() for action in actions])


def _common(encode: Encoder, prompt: Callable[..., str], more: tuple) -> list[int]:
    """The tokens that the prompts of all situations begin with."""
    pairs = zip(*encode([prompt(observation, "", *more) for observation in ("+", "x")]), strict=False)
    encode.forget()
    return [a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)]


def agents(config: Config) -> dict[str, Agent]:
    """The agents of a prompted variant by decoding: `sampled` and `greedy`."""
    spec, settings, reflecting = get(config.env), config.prompted, config.arm.reflection
    shown = worked_examples(spec, settings.examples) if config.arm.few_shot else []
    if settings.endpoint:
        talk = Conversation(spec, shown, in_order(LETTERS))
        endpoint = Endpoint(settings.endpoint, settings.model, config.client)
        temperatures = {"sampled": 1.0, "greedy": 0.0}
        return {
            name: EndpointAgent(endpoint, talk, reflecting, settings.max_new_tokens, temperature)
            for name, temperature in temperatures.items()
        }
    model = config.prompted_model
    tokenizer = tokenizers.load_tokenizer(model)
    talk = Conversation(spec, shown, labels_for(tokenizer, spec.labels))
    base = bases.load_base(model).eval()
    policy = Policy(base, tokenizer, model.context, talk.labels)
    reflector = Reflector(base, tokenizer, model.context, model.max_new_tokens) if reflecting else None
    prompts = Format(
        lambda *state: written(talk.thought(*state), tokenizer),
        lambda *state: written(talk.action(*state), tokenizer) + "Answer:",
    )
    if set(getattr(base.config, "layer_types", None) or ["full_attention"]) == {"full_attention"}:
        asked = (("move", "stay"), "" if reflecting else None, ("A", "B"))
        policy.prefix = Prefix(base, _common(policy.encode, prompts.policy, asked))
        if reflector is not None:
            reflector.prefix = Prefix(base, _common(reflector.encode, prompts.reflection, ()))
    return {name: PlayersAgent(policy, reflector, name == "greedy", prompts) for name in ("sampled", "greedy")}
