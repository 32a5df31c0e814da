"""The reflector trained online, too, from the rewards of the policy that reads it: the paper's future work."""

from collections.abc import Iterator, Sequence

import torch

from reflect_rl.core.config import Config
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.lm import distributed, models
from reflect_rl.lm.players import Reflector, pad
from reflect_rl.lm.prompts import reflection_prompt
from reflect_rl.train import objectives
from reflect_rl.train.rollout import Episode

ROWS = 64  # reflections that go forward and backward at a time


class Sampling:
    """A reflector that samples, so that there is something to learn from; equal prompts may get different reflections."""

    def __init__(self, reflector: Reflector, seeds: Iterator[int]):
        self.reflector, self.seeds = reflector, seeds

    def reflect(self, prompts: Sequence[str]) -> list[str]:
        return self.reflector.sample(prompts, next(self.seeds))


class ReflectorLearner:
    """The reflector with its optimizer, and its weights after the warm-up, which it is held to.

    A reflection is one action of many tokens: its log-probability is that of the whole text, its advantage that of the step
    that it was written for.
    """

    def __init__(self, config: Config, reflector: Reflector):
        if distributed.is_distributed():
            raise ReflectRLError("a reflector is trained online in one process; start it without others")
        self.config, self.reflector = config.rl, reflector
        own = models.weights(reflector.model, "reflector")
        self.reference = {name: weight.detach().clone() for name, weight in own.items()}
        rate = self.config.reflector_learning_rate
        self.optimizer = torch.optim.AdamW([{"params": [*own.values()], "lr": rate, "peak": rate}], weight_decay=0.0)

    def update(self, episodes: Sequence[Episode], advantage: torch.Tensor, progress: float) -> float:
        """One step of policy gradient on the reflections of a batch; the mean KL divergence a token from the warm-up.

        Args:
            advantage: `(N,)` of all steps in order.
            progress: part of the budget (0 to 1) that is used up.
        """
        (group,) = self.optimizer.param_groups
        group["lr"] = group["peak"] * (1 + progress * (self.config.learning_rate_end - 1))
        self.reflector.memory.clear()
        models.activate(self.reflector.model, "reflector")
        rows = self._rows(episodes)
        order = sorted(range(len(rows)), key=lambda i: sum(map(len, rows[i])))
        parts = [order[i : i + ROWS] for i in range(0, len(order), ROWS)]
        tokens, divergence = sum(len(end) for _, end in rows), 0.0
        reference = self._of_reference([[rows[i] for i in part] for part in parts])
        self.optimizer.zero_grad()
        for part, former in zip(parts, reference, strict=True):
            log_probs, chosen, row = self._log_probs([rows[i] for i in part])
            texts = torch.zeros(len(part), device=chosen.device).index_add(0, row, chosen)
            loss = objectives.policy_gradient_loss(texts, advantage[part]) * len(part) / len(rows)
            kl = objectives.kl(log_probs, former).sum() / tokens
            (loss + self.config.reflector_kl * kl).backward()
            divergence += kl.item()
        torch.nn.utils.clip_grad_norm_(group["params"], self.config.max_grad_norm)
        self.optimizer.step()
        return divergence

    def _rows(self, episodes: Sequence[Episode]) -> list[tuple[list[int], list[int]]]:
        """Tokens of each step's prompt, and of its reflection with the end."""
        tokenizer, prompts, texts = self.reflector.tokenizer, [], []
        for episode in episodes:
            last = ""
            for t in episode.transitions:
                prompts.append(reflection_prompt(t.observation, last))
                texts.append(f" {t.decision.reflection}")
                last = t.actions[t.decision.action]
        ends = tokenizer(texts, add_special_tokens=False)["input_ids"]
        most = self.reflector.max_new_tokens
        ends = [[*end, tokenizer.eos_token_id][:most] for end in ends]
        return [*zip(self.reflector.encode(prompts), ends, strict=True)]

    def _log_probs(
        self, rows: Sequence[tuple[list[int], list[int]]]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of all tokens of some reflections: `(K, V)` log-probabilities, `(K,)` that of the token, `(K,)` its row."""
        model, pad_id = self.reflector.model, self.reflector.tokenizer.pad_token_id
        ids = pad([start + end for start, end in rows], pad_id).to(model.device)
        targets = pad([end for _, end in rows], -1).to(ids.device)
        last = torch.tensor([[len(start) - 1] for start, _ in rows], device=ids.device)
        positions = (last + torch.arange(targets.shape[1], device=ids.device)).clamp(max=ids.shape[1] - 1)
        hidden, real = models.hidden_states(model, ids, positions, use_cache=False), targets >= 0
        log_probs = models.causal_lm(model).get_output_embeddings()(hidden[real]).float().log_softmax(-1)
        return log_probs, log_probs.gather(1, targets[real][:, None])[:, 0], real.nonzero()[:, 0]

    @torch.no_grad()
    def _of_reference(self, parts: Sequence[Sequence[tuple[list[int], list[int]]]]) -> list[torch.Tensor]:
        """`_log_probs` of the reflector as it was warmed up."""
        own = models.weights(self.reflector.model, "reflector")
        now = {name: weight.detach().clone() for name, weight in own.items()}
        for name, weight in own.items():
            weight.copy_(self.reference[name])
        found = [self._log_probs(rows)[0] for rows in parts]
        for name, weight in own.items():
            weight.copy_(now[name])
        return found
