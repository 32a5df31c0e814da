"""One update of the policy from a batch of episodes."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from peft import PeftModel

from reflect_rl.core.config import RLConfig
from reflect_rl.core.runtime import seeded
from reflect_rl.envs.labels import Labels
from reflect_rl.lm import distributed, models
from reflect_rl.train import advantages, objectives
from reflect_rl.train.rollout import Episode
from reflect_rl.train.warmup import PlayerPair

ROWS = 8  # prompts that go forward and backward through a pretrained base at a time, for the sake of memory


@dataclass
class Batch:
    """The steps of a batch of episodes, with every distinct prompt once.

    Equal prompts have equal distributions, so the model runs on `prompts` only and `row` maps the N steps to
    them: the same gradient from a fraction of the forward and backward passes.
    """

    prompts: list[str]  # (U,)
    legal: list[tuple[int, ...]]  # (U,) labels of the legal actions
    row: torch.Tensor  # (N,) index into prompts
    action: torch.Tensor  # (N,)
    log_prob: torch.Tensor  # (N,) of the action when it was taken
    returns: torch.Tensor  # (N,) return-to-go
    step: np.ndarray  # (N,) place in the episode

    @classmethod
    def of(cls, episodes: list[Episode], labels: Labels, device: torch.device | str = "cpu") -> "Batch":
        transitions = [t for episode in episodes for t in episode.transitions]
        rows: dict[str, int] = {}
        row = [rows.setdefault(t.decision.prompt, len(rows)) for t in transitions]
        legal = {t.decision.prompt: labels.of(t.actions) for t in transitions}
        returns = [advantages.return_to_go(np.array([t.reward for t in e.transitions])) for e in episodes]
        return cls(
            prompts=list(rows),
            legal=[legal[prompt] for prompt in rows],
            row=torch.tensor(row, device=device),
            action=torch.tensor([t.decision.action for t in transitions], device=device),
            log_prob=torch.tensor([t.decision.log_prob for t in transitions], device=device),
            returns=torch.tensor(np.concatenate(returns), dtype=torch.float32, device=device),
            step=np.concatenate([np.arange(len(e)) for e in episodes]),
        )


@dataclass
class Learner:
    """The policy with its optimizer and, where the baseline is one, its critic."""

    config: RLConfig
    players: PlayerPair
    seed: int
    replay: list[Episode] = field(default_factory=list)

    def __post_init__(self):
        self.policy = self.players.policy
        self.device = self.policy.model.device
        models.activate(self.policy.model, "policy")
        self.rows = ROWS if isinstance(self.policy.model, PeftModel) else 0
        parameters = list(models.weights(self.policy.model, "policy").values())
        self.critic = None
        if self.config.baseline == "critic":
            with seeded(self.seed):
                self.critic = torch.nn.Linear(self.policy.model.config.hidden_size, 1).to(self.device)
            torch.nn.init.zeros_(self.critic.weight)
            parameters += self.critic.parameters()
        self.optimizer = torch.optim.AdamW(parameters, lr=self.config.learning_rate, weight_decay=0.0)

    def update(self, episodes: list[Episode], progress: float) -> dict[str, float]:
        """One update on a batch of episodes; `progress` is the part of the budget (0 to 1) that is used up.

        Returns the means over the passes of loss, gradient norm, entropy and clip fraction. Where the loss or the
        gradient is not finite, no step is taken on it, the passes end there and `loss` says so.
        """
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 + progress * (config.learning_rate_end - 1))
        bonus = config.entropy + progress * (config.entropy_end - config.entropy)
        batch = Batch.of(episodes, self.policy.labels, self.device)
        past = Batch.of(self.replay, self.policy.labels, self.device) if self.replay else None
        replayed = torch.arange(len(past.prompts) if past and distributed.is_main() else 0, device=self.device)
        rng = np.random.default_rng([self.seed, 3, len(episodes), int(progress * 1e9)])
        logs = []
        for _ in range(config.epochs):
            order = rng.permutation(len(batch.prompts))
            for part in np.array_split(order, min(config.minibatches, len(order))):
                part = torch.from_numpy(np.sort(part)).to(self.device)
                total = torch.zeros(3, device=self.device)  # loss, entropy, clip fraction
                self.optimizer.zero_grad()
                steps = torch.isin(batch.row, part).sum()
                for rows in self._parts(distributed.shard(part)):
                    loss, measured = self._loss(batch, rows, bonus, steps)
                    loss.backward()
                    total += torch.stack([loss.detach(), *measured])
                for rows in self._parts(replayed):
                    loss = self._replay_loss(past, rows)
                    loss.backward()
                    total[0] += loss.detach()
                distributed.all_reduce_gradients(self.optimizer.param_groups[0]["params"])
                norm = torch.nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], config.max_grad_norm)
                loss, entropy, clipped = distributed.all_reduce(total).tolist()
                logs.append({"loss": loss, "grad_norm": norm.item(), "entropy": entropy, "clip_fraction": clipped})
                if not (math.isfinite(logs[-1]["loss"]) and math.isfinite(logs[-1]["grad_norm"])):
                    return {key: math.nan for key in logs[-1]}
                self.optimizer.step()
        if config.replay:
            self.replay = (self.replay + [e for e in episodes if e.success])[-config.replay :]
        return {key: sum(entry[key] for entry in logs) / len(logs) for key in logs[0]}

    def _parts(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """Rows as they go forward and backward; none where a process has no share of a small batch."""
        return list(rows.split(self.rows or len(rows))) if len(rows) else []

    def _loss(
        self, batch: Batch, part: torch.Tensor, bonus: float, whole: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Share of the loss, and of entropy and clip fraction, of the steps whose prompt is in `part`.

        `part` holds the indices of `(U',)` distinct prompts in rising order. Shares add up to the means over all
        `whole` steps of an update, on whatever parts and processes they are computed.
        """
        steps = torch.isin(batch.row, part)
        row = torch.searchsorted(part, batch.row[steps])
        hidden = self.policy.hidden([batch.prompts[i] for i in part])
        log_probs = self.policy.label_log_probs(hidden, [batch.legal[i] for i in part])[row]
        log_prob = log_probs.gather(1, batch.action[steps, None])[:, 0]
        returns, old = batch.returns[steps], batch.log_prob[steps]
        entropy = objectives.entropy(log_probs).mean()
        extra = -bonus * entropy
        if self.critic is not None:
            value = self.critic(hidden.float())[row, 0]
            advantage = returns - value.detach()
            extra = extra + objectives.value_loss(value, returns)
        elif self.config.baseline == "mean":
            means = advantages.step_means(batch.returns.cpu().numpy(), batch.step)
            advantage = returns - torch.tensor(means, dtype=torch.float32, device=self.device)[steps]
        else:
            advantage = returns
        if self.config.objective == "ppo":
            loss = objectives.ppo_loss(log_prob, old, advantage, self.config.clip)
        else:
            loss = objectives.policy_gradient_loss(log_prob, advantage)
        clipped = objectives.clip_fraction(log_prob.detach(), old, self.config.clip)
        weight = steps.sum() / whole
        return weight * (loss + extra), (weight * entropy.detach(), weight * clipped)

    def _replay_loss(self, past: Batch, part: torch.Tensor) -> torch.Tensor:
        """Share of the replayed loss of the steps whose prompt is in `part`, as in `_loss`."""
        steps = torch.isin(past.row, part)
        log_probs = self.policy.log_probs([past.prompts[i] for i in part], [past.legal[i] for i in part])
        row = torch.searchsorted(part, past.row[steps])
        log_prob = log_probs[row].gather(1, past.action[steps, None])[:, 0]
        loss = objectives.replay_loss(log_prob, past.log_prob[steps], past.returns[steps])
        return steps.sum() / len(past.row) * loss
