"""The two players: a reflector that writes, and a policy that answers with a label token or (`lm.scoring`) a text."""

from collections.abc import Iterator, Sequence
from copy import deepcopy

import numpy as np
import torch
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.labels import IN_ORDER, Labels
from reflect_rl.lm.arithmetic import seeded
from reflect_rl.lm.models import activate, last_states, logits, pad, rows_that_fit

SAMPLED = 128  # prompts that a reflector samples on at a time, at most


class Encoder:
    """Text to token ids, each text once.

    A text of more than `limit` tokens loses its middle: a quarter of `limit` stays of its beginning, where a prompt has
    the task, and the rest of its end, where it has the last action, the reflection and the legal actions.

    Attributes:
        longest: tokens of the longest text before it was shortened.
        shortened: number of different texts that were.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, limit: int):
        if limit < 4:
            raise ReflectRLError(f"{limit} tokens are left for a prompt; raise model.context")
        self.tokenizer, self.limit = tokenizer, limit
        self.forget()

    def forget(self) -> None:
        """Start anew, with the counts at zero."""
        self.longest = self.shortened = 0
        self._ids: dict[str, list[int]] = {}

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        new = [text for text in dict.fromkeys(texts) if text not in self._ids]
        if new:
            for text, ids in zip(new, self.tokenizer(new)["input_ids"], strict=True):
                self.longest = max(self.longest, len(ids))
                if len(ids) > self.limit:
                    self.shortened += 1
                    head = self.limit // 4
                    ids = ids[:head] + ids[head - self.limit :]
                self._ids[text] = ids
        return [self._ids[text] for text in texts]

    def counts(self) -> dict[str, int]:
        """Of the different texts so far: how many, the longest in tokens, and how many were shortened to the limit."""
        return {
            "prompts": len(self._ids),
            "longest": self.longest,
            "limit": self.limit,
            "shortened": self.shortened,
        }


class Prefix:
    """Tokens that all prompts begin with, encoded once: for a frozen model without adapters, attention layers only.

    Its keys and values would differ between adapters, and after every update of the weights.
    """

    def __init__(self, model: PreTrainedModel, ids: Sequence[int]):
        self.model, self.ids, self._cache = model, list(ids), None

    def begins(self, rows: Sequence[Sequence[int]]) -> bool:
        """Whether each of these rows goes on after it."""
        return all(len(row) > len(self.ids) and row[: len(self.ids)] == self.ids for row in rows)

    @torch.no_grad()
    def cache(self, count: int) -> Cache:
        """Keys and values of the prefix, `count` times."""
        if self._cache is None:
            ids = torch.tensor([self.ids], device=self.model.device)
            self._cache = self.model.base_model(input_ids=ids, use_cache=True).past_key_values
        cache = deepcopy(self._cache)
        cache.batch_repeat_interleave(count)
        return cache


class Policy:
    """A distribution over the labels of the legal actions, from one forward pass and no more.

    Only the last position's hidden state meets the head, and only the head's label rows. Where more than a fifth of a
    batch would be padding, or each prompt has a copy of the prefix's keys and values, prompts go through the model in
    parts, sorted by length.
    """

    ROWS, PADDING = 64, 1.25

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, context: int, labels: Labels = IN_ORDER
    ):
        self.model, self.labels = model, labels
        self.prefix: Prefix | None = None
        self.encode = Encoder(tokenizer, context - 1)  # the label needs a place
        self.pad_id = tokenizer.pad_token_id
        ids = tokenizer([f" {name}" for name in labels.names], add_special_tokens=False)["input_ids"]
        if any(len(x) != 1 for x in ids):
            raise ReflectRLError("a label of this tokenizer is more than one token; use labels that are single tokens")
        self.label_ids = torch.tensor([x[0] for x in ids])

    def rows_of(self, legal: Sequence) -> int:
        """Rows that go through the model for a prompt with these legal actions."""
        return 1

    def hidden(self, prompts: Sequence[str]) -> torch.Tensor:
        """`(B, D)` hidden states at the last position of each prompt."""
        activate(self.model, "policy")
        rows = self.encode(prompts)
        lengths = [len(row) for row in rows]
        if self.prefix is None and max(lengths) * len(rows) <= self.PADDING * sum(lengths):
            return self._last(rows)
        order = sorted(range(len(rows)), key=lengths.__getitem__)
        parts = [order[i : i + self.ROWS] for i in range(0, len(order), self.ROWS)]
        states = torch.cat([self._last([rows[i] for i in part]) for part in parts])
        return states[torch.tensor(order).argsort()]

    def _last(self, rows: list[list[int]]) -> torch.Tensor:
        """The hidden states of one forward pass over padded rows."""
        options = {"use_cache": False}
        if self.prefix is not None and self.prefix.begins(rows):
            options = {"use_cache": True, "past_key_values": self.prefix.cache(len(rows))}
            rows = [row[len(self.prefix.ids) :] for row in rows]
        return last_states(self.model, rows, self.pad_id, **options)

    def _label_log_probs(self, hidden: torch.Tensor, legal: Sequence[Sequence[int]]) -> torch.Tensor:
        """`(B, A)` log-probabilities; `legal` holds the labels of each row's legal actions, -inf behind them."""
        found = logits(self.model, hidden, self.label_ids[: 1 + max(map(max, legal))])
        numbers = pad(legal, -1).to(found.device)
        found = found.gather(1, numbers.clamp(min=0))
        return found.masked_fill(numbers < 0, -torch.inf).log_softmax(-1)

    def states_and_log_probs(
        self, prompts: Sequence[str], legal: Sequence[Sequence[int]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`hidden` of the prompts and `log_probs` of their legal actions."""
        hidden = self.hidden(prompts)
        return hidden, self._label_log_probs(hidden, legal)

    def log_probs(self, prompts: Sequence[str], legal: Sequence[Sequence[int]]) -> torch.Tensor:
        """`(B, A)` exact log-probabilities of the legal actions, -inf behind the last legal one."""
        return self.states_and_log_probs(prompts, legal)[1]


class Reflector:
    """Writes one reflection a prompt by greedy decoding. As long as its weights stay, equal prompts are answered from memory.

    Prompts are decoded in blocks, left-padded, with a mask. A small model on a CPU in float32 gets blocks of fixed shapes:
    a multiple of `width` tokens, by the prompt's own length, and one of two numbers of rows that give the same digits. So
    there a reflection is a function of its prompt alone, and not of the prompts beside it.

    A large model's time goes into what is padded: it gets blocks of as many rows as there are prompts, sorted by length.
    The shape of a block decides which kernels compute it, so equal digits are not promised there, nor on a GPU or in
    bfloat16: where two tokens are about as probable, a reflection can depend on the prompts beside it.

    Args:
        context: longest prompt with its reflection in tokens; `max_new_tokens`: longest reflection.
        rows: of a block at most; 0: 32 for fixed shapes, else what `rows_that_fit` says, up to 128.
    """

    SMALL = 10_000_000  # parameters

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        context: int,
        max_new_tokens: int,
        rows: int = 0,
    ):
        self.model, self.tokenizer = model, tokenizer
        self.encode = Encoder(tokenizer, context - max_new_tokens)
        self.context, self.max_new_tokens = context, max_new_tokens
        exact = model.device.type == "cpu" and model.dtype == torch.float32
        self.fixed = exact and model.num_parameters() <= self.SMALL
        self.rows = rows or (32 if self.fixed else 0)
        self.width = max(8, context // 8)  # more widths would pad less, and leave more blocks not full
        self.memory: dict[str, str] = {}
        self.prefix: Prefix | None = None
        self._few: dict[int, int] = {}  # width -> rows of a small block

    @torch.no_grad()
    def reflect(self, prompts: Sequence[str]) -> list[str]:
        """One line of text for each prompt."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.memory]
        if new:
            self.model.eval()
            activate(self.model, "reflector")
            encoded = self.encode(new)
            shared = len(self.prefix.ids) if self.prefix is not None and self.prefix.begins(encoded) else 0
            blocks = self._fixed_blocks if self.fixed else self._blocks
            for block, *shape in blocks(list(zip(new, encoded, strict=True)), shared):
                self._generate(block, *shape, shared)
        return [self.memory[prompt] for prompt in prompts]

    @torch.no_grad()
    def sample(self, prompts: Sequence[str], seed: int) -> list[tuple[list[int], list[int]]]:
        """Token ids of each prompt and of a text after it, sampled at temperature 1, with its end where that was drawn.

        Equal prompts get texts of their own; `seed` decides all of them, and nothing is remembered.
        """
        self.model.eval()
        activate(self.model, "reflector")
        encoded, found = self.encode(prompts), []
        size = SAMPLED if self.fixed else self.rows or rows_that_fit(self.model, self.context, SAMPLED)
        for first in range(0, len(encoded), size):
            rows = encoded[first : first + size]
            width = max(map(len, rows))
            ids = torch.tensor([[self.tokenizer.pad_token_id] * (width - len(row)) + row for row in rows])
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
            with seeded(int(np.random.default_rng([seed, first]).integers(2**32))):
                out = self._decode(ids, mask, self.max_new_tokens, do_sample=True, temperature=1.0, top_k=0, top_p=1.0)
            for row, text in zip(rows, out[:, width:].tolist(), strict=True):
                end = text.index(self.tokenizer.eos_token_id) + 1 if self.tokenizer.eos_token_id in text else len(text)
                found.append((row, text[:end]))
        return found

    def text_of(self, ids: Sequence[int]) -> str:
        """The one line that token ids stand for."""
        return " ".join(self.tokenizer.decode(ids, skip_special_tokens=True).split())

    def _blocks(self, rows: list[tuple[str, list[int]]], shared: int) -> Iterator[tuple[list, int, int]]:
        """Rows of about one length, their number, and the length of the longest without its `shared` tokens."""
        self.rows = self.rows or rows_that_fit(self.model, self.context, 128)
        rows = sorted(rows, key=lambda row: len(row[1]))
        for first in range(0, len(rows), self.rows):
            block = rows[first : first + self.rows]
            yield block, len(block), len(block[-1][1]) - shared

    def _fixed_blocks(self, rows: list[tuple[str, list[int]]], shared: int) -> Iterator[tuple[list, int, int]]:
        """As `_blocks`, with shapes that do not depend on the rows beside one."""
        by_width: dict[int, list] = {}
        for prompt, ids in rows:  # with a gap before every prompt, since a block without one is computed without a mask
            by_width.setdefault(((len(ids) - shared) // self.width + 1) * self.width, []).append((prompt, ids))
        for width, same in by_width.items():
            for first in range(0, len(same), self.rows):
                block, few = same[first : first + self.rows], self._few_rows(width)
                yield block, few if len(block) <= few else self.rows, width

    def _few_rows(self, width: int) -> int:
        """Rows of a small block: a quarter of a full one, where this machine's kernels compute the same digits in both."""
        if width not in self._few:
            few = max(1, self.rows // 4)
            times = -(-self.rows // few)
            ids = torch.arange(few * width).reshape(few, width) % self.model.config.vocab_size
            small, full = (self._first_logits(ids.repeat(n, 1)[: self.rows]) for n in (1, times))
            self._few[width] = few if torch.equal(small.repeat(1, times, 1)[:, : self.rows], full) else self.rows
        return self._few[width]

    def _first_logits(self, ids: torch.Tensor) -> torch.Tensor:
        """`(2, B, V)` logits of the first two tokens after `ids` `(B, T)`, of which the first counts as a gap."""
        mask = torch.ones_like(ids)
        mask[:, 0] = 0
        options = {"min_new_tokens": 2, "output_logits": True, "return_dict_in_generate": True}
        return torch.stack(self._decode(ids, mask, 2, **options).logits)

    def _decode(self, ids: torch.Tensor, mask: torch.Tensor, max_new_tokens: int, do_sample: bool = False, **options):
        return self.model.generate(
            input_ids=ids.to(self.model.device),
            attention_mask=mask.to(self.model.device),
            max_new_tokens=max_new_tokens,
            do_sample=do_sample,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
            **options,
        )

    def _generate(self, block: list[tuple[str, list[int]]], size: int, width: int, shared: int) -> None:
        """Remember the reflections on up to `size` prompts of up to `width` tokens after the `shared` ones."""
        rows = [ids for _, ids in block]
        rows += [rows[0]] * (size - len(rows))
        gaps = [width + shared - len(row) for row in rows]
        pad_id = self.tokenizer.pad_token_id
        mask = torch.tensor([[1] * shared + [0] * gap + [1] * (width - gap) for gap in gaps])
        ids = [row[:shared] + [pad_id] * gap + row[shared:] for row, gap in zip(rows, gaps, strict=True)]
        options = {"past_key_values": self.prefix.cache(size)} if shared else {}
        out = self._decode(torch.tensor(ids), mask, self.max_new_tokens, **options)
        written = out[: len(block), shared + width :].tolist()  # at once: a GPU would be waited for once a prompt
        texts = self.tokenizer.batch_decode(written, skip_special_tokens=True)
        self.memory.update({prompt: " ".join(text.split()) for (prompt, _), text in zip(block, texts, strict=True)})
