"""The reflector trained online, too, from the rewards of the policy that reads it: the paper's future work."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from peft import PeftModel

from reflect_rl.core.config import Config
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.lm import distributed, models
from reflect_rl.lm.players import Reflector
from reflect_rl.lm.prompts import reflection_prompt
from reflect_rl.train import advantages, objectives
from reflect_rl.train.critic import Critic
from reflect_rl.train.rollout import Episode

ROWS = 64  # reflections that go forward and backward at a time
Tokens = tuple[list[int], list[int]]  # of a prompt, and of what was written after it


class ReflectorLearner:
    """A reflector that samples while it learns, its optimizer, its critic, and its weights after the warm-up.

    A reflection is one action of many tokens: its log-probability is that of the tokens that were drawn. Its advantage
    is the step's, by a critic of its own that reads the state before the reflection: the policy's critic reads the
    reflection, too, so that by it a good and a bad one would be worth the same. A KL divergence a token holds it to the
    warmed-up reflector. In evaluation it decodes greedily, as a frozen one.
    """

    def __init__(self, config: Config, reflector: Reflector):
        if distributed.is_distributed():
            raise ReflectRLError("a reflector is trained online in one process; start it without others")
        self.config, self.seed, self.reflector, model = config.rl, config.seed, reflector, reflector.model
        self.reference = models.copies(model, "reflector")
        own, rate = models.weights(model, "reflector"), self.config.reflector_learning_rate
        self.optimizer = torch.optim.AdamW([{"params": [*own.values()], "lr": rate, "peak": rate}], weight_decay=0.0)
        self.critic, self.fitted, self.spread = Critic(model.config.hidden_size, self.seed).to(model.device), False, 0.0
        self.rows = config.model.micro_batch or ROWS
        if not config.model.micro_batch and isinstance(model, PeftModel):
            self.rows = models.rows_that_fit(model, config.model.context, ROWS, backward=True)
        self.begin(0)

    def begin(self, update: int) -> None:
        """Forget what was written, and draw anew for the episodes of an update."""
        self.update_number, self.calls = update, 0
        self.written: dict[tuple[str, str], Tokens] = {}

    def reflect(self, prompts: Sequence[str]) -> list[str]:
        """A sampled line of text for each prompt, whose tokens are remembered; of a text in two tokenizations the first."""
        seed = int(np.random.default_rng([self.seed, 10, self.update_number, self.calls]).integers(2**32))
        self.calls += 1
        tokens = self.reflector.sample(prompts, seed)
        texts = [self.reflector.text_of(ids) for _, ids in tokens]
        for prompt, text, of in zip(prompts, texts, tokens, strict=True):
            self.written.setdefault((prompt, text), of)
        return texts

    def update(self, episodes: Sequence[Episode], progress: float) -> float:
        """One step of policy gradient on the reflections of a batch, that were written since `begin`.

        Args:
            progress: part of the budget (0 to 1) that is used up.

        Returns:
            The mean KL divergence a token from the warmed-up reflector before the step; NaN where the gradient is not
            finite, and then no step is taken.
        """
        (group,) = self.optimizer.param_groups
        group["lr"] = group["peak"] * (1 + progress * (self.config.learning_rate_end - 1))
        models.activate(self.reflector.model, "reflector")
        rows = self._rows(episodes)
        advantage = self._advantage(episodes, rows)
        order = sorted(range(len(rows)), key=lambda i: sum(map(len, rows[i])))
        parts = [order[i : i + self.rows] for i in range(0, len(order), self.rows)]
        tokens, divergence = sum(len(end) for _, end in rows), 0.0
        self.optimizer.zero_grad()
        for part in parts:
            of_part = [rows[i] for i in part]
            former = self._of_reference(of_part)
            _, log_probs, chosen, row = self._completions(of_part)
            texts = torch.zeros(len(part), device=chosen.device).index_add(0, row, chosen)
            loss = objectives.policy_gradient_loss(texts, advantage[part]) * len(part) / len(rows)
            kl = objectives.kl(log_probs, former).sum() / tokens
            (loss + self.config.reflector_kl * kl).backward()
            divergence += kl.item()
        norm = torch.nn.utils.clip_grad_norm_(group["params"], self.config.max_grad_norm)
        if not math.isfinite(norm):
            return math.nan
        self.optimizer.step()
        self.reflector.memory.clear()
        return divergence

    def _rows(self, episodes: Sequence[Episode]) -> list[Tokens]:
        """Tokens of each step's prompt and of the reflection that was written there."""
        rows = []
        for episode in episodes:
            last = ""
            for t in episode.transitions:
                rows.append(self.written[reflection_prompt(t.observation, last), t.decision.reflection])
                last = t.actions[t.decision.action]
        return rows

    def _advantage(self, episodes: Sequence[Episode], rows: list[Tokens]) -> torch.Tensor:
        """`(N,)` generalised advantages by the critic, which learns from them afterwards."""
        config, device = self.config, self.reflector.model.device
        reward = np.array([t.reward for episode in episodes for t in episode.transitions])
        step = np.concatenate([np.arange(len(episode)) for episode in episodes])
        states, row = self._states([start for start, _ in rows])
        returns = torch.tensor(advantages.return_to_go(reward, step, config.discount), dtype=torch.float32)
        if not self.fitted:
            self.critic.fit(states, row, returns.to(device), config.critic_learning_rate, config.critic_steps)
            self.fitted = True
        with torch.no_grad():
            values = self.critic(states).cpu().numpy().astype(float)[row.numpy()]
        found = advantages.gae(reward, values, step, config.discount, config.gae_lambda)
        targets = torch.tensor(found + values, dtype=torch.float32, device=device)
        self.critic.fit(states, row, targets, config.critic_learning_rate, config.epochs * config.minibatches)
        self.spread = advantages.spread(found, self.spread)
        found = advantages.normalised(found, self.spread) if config.normalise else found
        return torch.tensor(found, dtype=torch.float32, device=device)

    @torch.no_grad()
    def _states(self, starts: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """`(U, D)` last hidden states of the distinct prompts, and `(N,)` which of them each prompt is."""
        distinct = sorted({tuple(start) for start in starts}, key=lambda start: (len(start), start))
        parts = [distinct[i : i + self.rows] for i in range(0, len(distinct), self.rows)]
        pad_id, place = self.reflector.tokenizer.pad_token_id, {start: i for i, start in enumerate(distinct)}
        states = torch.cat([models.last_states(self.reflector.model, part, pad_id, use_cache=False) for part in parts])
        return states, torch.tensor([place[tuple(start)] for start in starts])

    def _completions(self, rows: Sequence[Tokens]) -> tuple[torch.Tensor, ...]:
        return models.completions(self.reflector.model, *zip(*rows, strict=True), self.reflector.tokenizer.pad_token_id)

    @torch.no_grad()
    def _of_reference(self, rows: Sequence[Tokens]) -> torch.Tensor:
        """`(K, V)` log-probabilities by the reflector as it was warmed up."""
        with models.holding(self.reflector.model, "reflector", self.reference):
            return self._completions(rows)[1]
