"""One update of the policy from a batch of episodes."""

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from peft import PeftModel

from reflect_rl.core.config import Config
from reflect_rl.envs.labels import Labels
from reflect_rl.lm import distributed, models
from reflect_rl.lm.arithmetic import seeded
from reflect_rl.train import advantages, objectives
from reflect_rl.train.rollout import Episode
from reflect_rl.train.warmup import PlayerPair


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
    advantage: torch.Tensor | None = None  # (N,) the same in every pass

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


@dataclass(frozen=True)
class Success:
    """A successful episode for replay: its curriculum stage, and its steps' advantages within its own batch."""

    stage: str
    episode: Episode
    advantage: list[float]  # (H,)


class Learner:
    """The policy with its optimizer, the successes that it replays, and its critic where the baseline is one.

    The critic is a linear head on the policy's last hidden state; its gradient does not reach the policy.
    """

    def __init__(self, config: Config, players: PlayerPair):
        self.config, self.seed, self.players, self.policy = config.rl, config.seed, players, players.policy
        self.device = self.policy.model.device
        self.replay: list[Success] = []
        self.critic = None
        models.activate(self.policy.model, "policy")
        self.rows = config.model.micro_batch  # that go forward and backward at a time; 0: all of them
        if not self.rows and isinstance(self.policy.model, PeftModel):
            self.rows = models.rows_that_fit(self.policy.model, config.model.context, 64, backward=True)
        parameters = [list(models.weights(self.policy.model, "policy").values())]
        if self.config.baseline == "critic":
            with seeded(self.seed):
                self.critic = torch.nn.Linear(self.policy.model.config.hidden_size, 1).to(self.device)
            torch.nn.init.zeros_(self.critic.weight)
            parameters.append(list(self.critic.parameters()))
        groups = [{"params": group} for group in parameters]
        self.optimizer = torch.optim.AdamW(groups, lr=self.config.learning_rate, weight_decay=0.0)

    def update(self, episodes: list[Episode], progress: float, stage: str) -> dict[str, float]:
        """One update on a batch of episodes.

        Args:
            progress: part of the budget (0 to 1) that is used up.
            stage: of the curriculum, whose successes are replayed.

        Returns:
            The means over the passes of loss, gradient norm, entropy and clip fraction. Where the loss or the gradient
            is not finite, no step is taken on it, the passes end there and `loss` says so.
        """
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 + progress * (config.learning_rate_end - 1))
        bonus = config.entropy + progress * (config.entropy_end - config.entropy)
        batch = Batch.of(episodes, self.policy.labels, self.device)
        batch.advantage = self._advantage(batch)
        former = [success for success in self.replay if success.stage == stage]
        past = self._past(former)
        rng = np.random.default_rng([self.seed, 3, len(episodes), int(progress * 1e9)])
        logs = []
        for _ in range(config.epochs):
            order = rng.permutation(len(batch.prompts))
            for part in np.array_split(order, min(config.minibatches, len(order))):
                logs.append(self._gradient(batch, torch.from_numpy(np.sort(part)).to(self.device), bonus, past))
                if not (math.isfinite(logs[-1]["loss"]) and math.isfinite(logs[-1]["grad_norm"])):
                    return {key: math.nan for key in logs[-1]}
                self.optimizer.step()
        if logs[0]["clip_fraction"] > 0.05:
            warnings.warn(
                f"{logs[0]['clip_fraction']:.0%} of the probability ratios are clipped before the first step, where "
                "all should be 1: the policy's probabilities depend on the batch; try model.dtype=float32",
                stacklevel=2,
            )
        if config.replay:
            parts = batch.advantage.split([len(episode) for episode in episodes])
            new = [Success(stage, e, part.tolist()) for e, part in zip(episodes, parts, strict=True) if e.success]
            self.replay = (former + new)[-config.replay :]
        return {key: sum(entry[key] for entry in logs) / len(logs) for key in logs[0]}

    def _advantage(self, batch: Batch) -> torch.Tensor:
        """`(N,)` advantages for all passes; the critic is asked before the first."""
        values = None if self.critic is None else self._values(batch)[batch.row.cpu().numpy()]
        found = advantages.advantage(batch.returns.cpu().numpy(), batch.step, self.config.baseline, values)
        return torch.tensor(found, dtype=torch.float32, device=self.device)

    @torch.no_grad()
    def _values(self, batch: Batch) -> np.ndarray:
        """`(U,)` the critic's values of the distinct prompts."""
        values = []
        for part in self._parts(distributed.shard(torch.arange(len(batch.prompts)))):
            hidden = self.policy.hidden([batch.prompts[i] for i in part.tolist()])
            values += self.critic(hidden.float())[:, 0].tolist()
        return np.array(distributed.gather(values), np.float32)

    def _past(self, successes: list[Success]) -> Batch | None:
        """Replayed successes as a batch; None without any. The main process computes their gradient."""
        if not successes or not distributed.is_main():
            return None
        past = Batch.of([success.episode for success in successes], self.policy.labels, self.device)
        past.advantage = torch.tensor([a for success in successes for a in success.advantage], device=self.device)
        return past

    def _gradient(self, batch: Batch, part: torch.Tensor, bonus: float, past: Batch | None) -> dict[str, float]:
        """Put the clipped gradient of one minibatch and of the replayed steps into the parameters; what it measured."""
        total = torch.zeros(3, device=self.device)  # loss, entropy, clip fraction
        self.optimizer.zero_grad()
        steps = torch.isin(batch.row, part).sum()
        for rows in self._parts(distributed.shard(part)):
            loss, measured = self._loss(batch, rows, bonus, steps)
            loss.backward()
            total += torch.stack([loss.detach(), *measured])
        for rows in self._parts(torch.arange(len(past.prompts) if past else 0, device=self.device)):
            loss = self._replay_loss(past, rows)
            loss.backward()
            total[0] += loss.detach()
        norms = []
        for group in self.optimizer.param_groups:  # the critic's gradient has no part in the clipping of the policy's
            distributed.all_reduce_gradients(group["params"])
            norms.append(torch.nn.utils.clip_grad_norm_(group["params"], self.config.max_grad_norm).item())
        loss, entropy, clipped = distributed.all_reduce(total).tolist()
        return {"loss": loss, "grad_norm": norms[0], "entropy": entropy, "clip_fraction": clipped}

    def _parts(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """Rows as they go forward and backward; none where a process has no part in a small batch."""
        return list(rows.split(self.rows or len(rows))) if len(rows) else []

    def _loss(
        self, batch: Batch, part: torch.Tensor, bonus: float, whole: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Share of the loss, and of entropy and clip fraction, of the steps whose prompt is in `part`.

        `part` holds the indices of `(U',)` distinct prompts in rising order. Shares add up to the means over all
        `whole` steps of a minibatch, on whatever parts and processes they are computed.
        """
        steps, rows = torch.isin(batch.row, part), part.tolist()
        row = torch.searchsorted(part, batch.row[steps])
        hidden = self.policy.hidden([batch.prompts[i] for i in rows])
        log_probs = self.policy.label_log_probs(hidden, [batch.legal[i] for i in rows])[row]
        log_prob = log_probs.gather(1, batch.action[steps, None])[:, 0]
        old, advantage = batch.log_prob[steps], batch.advantage[steps]
        if self.config.objective == "ppo":
            loss = objectives.ppo_loss(log_prob, old, advantage, self.config.clip)
        else:
            loss = objectives.policy_gradient_loss(log_prob, advantage)
        entropy = objectives.entropy(log_probs).mean()
        loss = loss - bonus * entropy
        if self.critic is not None:
            value = self.critic(hidden.detach().float())[row, 0]
            loss = loss + objectives.value_loss(value, batch.returns[steps])
        clipped = objectives.clip_fraction(log_prob.detach(), old, self.config.clip)
        weight = steps.sum() / whole
        return weight * loss, (weight * entropy.detach(), weight * clipped)

    def _replay_loss(self, past: Batch, part: torch.Tensor) -> torch.Tensor:
        """Share of the replayed loss of the steps whose prompt is in `part`, as in `_loss`."""
        steps, rows = torch.isin(past.row, part), part.tolist()
        log_probs = self.policy.log_probs([past.prompts[i] for i in rows], [past.legal[i] for i in rows])
        row = torch.searchsorted(part, past.row[steps])
        log_prob = log_probs[row].gather(1, past.action[steps, None])[:, 0]
        loss = objectives.replay_loss(log_prob, past.log_prob[steps], past.advantage[steps])
        return steps.sum() / len(past.row) * loss
