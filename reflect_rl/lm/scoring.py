"""Action-prompt normalisation: the other way to choose among actions, by the text of each after the prompt."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reflect_rl.core.errors import ReflectRLError, unknown
from reflect_rl.lm.models import activate, completions
from reflect_rl.lm.players import Encoder, Policy
from reflect_rl.lm.prompts import Texts


class ScoringPolicy(Policy):
    """A distribution over the legal actions, from the likelihood of each one's text: a forward pass of a row an action.

    An action's score is the log-probability of its tokens and of the end behind them, without which the beginning of a
    longer action would be preferred to it in every state: their `sum` (GLAM, Carta et al. 2023), or the sum divided by
    the number of `token`s, the end among them, or of `word`s, without it (TWOSOME, Tan et al. 2024); a softmax over the
    scores of the legal actions normalises them.

    Args:
        context: longest prompt with an action's text in tokens; `longest`: longest text of an action, with its end.
        by: `sum`, `token` or `word`; ReflectRLError where it is none of these.
    """

    WAYS = ("sum", "token", "word")

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, context: int, longest: int, by: str):
        if by not in self.WAYS:
            raise unknown("normalisation of scores", by, self.WAYS)
        self.model, self.tokenizer, self.labels, self.by = model, tokenizer, Texts(), by
        self.prefix, self.pad_id = None, tokenizer.pad_token_id
        self.encode, self.longest = Encoder(tokenizer, context - longest), longest
        self._ids: dict[str, list[int]] = {}

    def rows_of(self, legal: Sequence[str]) -> int:
        return len(legal)

    def states_and_log_probs(
        self, prompts: Sequence[str], legal: Sequence[Sequence[str]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`(B, D)` hidden states at the end of each prompt, and `(B, A)` log-probabilities of its legal actions.

        Behind the last legal action stands -inf.
        """
        activate(self.model, "policy")
        starts = [ids for ids, actions in zip(self.encode(prompts), legal, strict=True) for _ in actions]
        texts = [action for actions in legal for action in actions]
        ends = self._encode(texts)
        order = sorted(range(len(ends)), key=lambda i: len(starts[i]) + len(ends[i]))
        parts = [order[i : i + self.ROWS] for i in range(0, len(order), self.ROWS)]
        found = [self._score([starts[i] for i in part], [ends[i] for i in part]) for part in parts]
        back = torch.tensor(order).argsort()
        states, sums = (torch.cat(of)[back] for of in zip(*found, strict=True))
        if self.by != "sum":
            counts = map(len, ends) if self.by == "token" else (max(1, len(text.split())) for text in texts)
            sums = sums / torch.tensor([*counts], device=sums.device)
        rows = [row.log_softmax(0) for row in sums.split([*map(len, legal)])]
        log_probs = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-torch.inf)
        first = torch.tensor([0, *map(len, legal)]).cumsum(0)[:-1]
        return states[first], log_probs

    def _encode(self, actions: Sequence[str]) -> list[list[int]]:
        """The tokens of actions after a prompt, with the end of the text."""
        new = [action for action in dict.fromkeys(actions) if action not in self._ids]
        if new:
            found = self.tokenizer([f" {action}" for action in new], add_special_tokens=False)["input_ids"]
            found = [[*ids, self.tokenizer.eos_token_id] for ids in found]
            action, ids = max(zip(new, found, strict=True), key=lambda pair: len(pair[1]))
            if len(ids) > self.longest:
                raise ReflectRLError(f"{action!r} has {len(ids)} tokens; raise model.max_new_tokens={self.longest}")
            self._ids.update(zip(new, found, strict=True))
        return [self._ids[action] for action in actions]

    def _score(self, starts: list[list[int]], ends: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """`(R, D)` hidden states before the ends, and `(R,)` log-probabilities of the ends after their starts."""
        states, _, chosen, row = completions(self.model, starts, ends, self.pad_id)
        return states, torch.zeros(len(ends), device=chosen.device).index_add(0, row, chosen)
