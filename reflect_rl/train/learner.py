"""One update of the policy from a batch of episodes."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from peft import PeftModel

from reflect_rl.core.config import Config
from reflect_rl.envs.labels import Labels
from reflect_rl.lm import distributed, models
from reflect_rl.train import advantages, objectives
from reflect_rl.train.critic import Critic
from reflect_rl.train.online_reflector import ReflectorLearner
from reflect_rl.train.rollout import Episode
from reflect_rl.train.warmup import PlayerPair

SCORED = 512  # rows that go forward and backward at a time where each action has one


@dataclass
class Batch:
    """The steps of a batch of episodes, with every distinct prompt once.

    Equal prompts have equal distributions, so the model runs on `prompts` only and `row` maps the N steps to
    them: the same gradient from a fraction of the forward and backward passes.
    """

    prompts: list[str]  # (U,)
    legal: list[Sequence]  # (U,) labels of the legal actions, or their texts where these are scored
    row: torch.Tensor  # (N,) index into prompts
    action: torch.Tensor  # (N,)
    log_prob: torch.Tensor  # (N,) of the action when it was taken
    reward: np.ndarray  # (N,)
    step: np.ndarray  # (N,) place in the episode
    start: np.ndarray  # (E,) number of the task that each episode began with
    state: np.ndarray  # (N,) number of the state before the action
    advantage: torch.Tensor | None = None  # (N,) the same in every pass
    target: torch.Tensor | None = None  # (N,) what the critic is fitted to
    reference: torch.Tensor | None = None  # (U, A) log-probabilities of the warmed-up policy

    @classmethod
    def of(cls, episodes: list[Episode], labels: Labels, device: torch.device | str = "cpu") -> "Batch":
        """The transitions of some episodes; equal prompts with equal legal actions become one row."""
        transitions = [t for episode in episodes for t in episode.transitions]
        rows: dict[tuple[str, tuple[str, ...]], int] = {}  # a prompt without a list does not say what is legal
        row = [rows.setdefault((t.decision.prompt, t.actions), len(rows)) for t in transitions]
        starts: dict[str, int] = {}
        states: dict[str, int] = {}
        return cls(
            prompts=[prompt for prompt, _ in rows],
            legal=[labels.of(actions) for _, actions in rows],
            row=torch.tensor(row, device=device),
            action=torch.tensor([t.decision.action for t in transitions], device=device),
            log_prob=torch.tensor([t.decision.log_prob for t in transitions], device=device),
            reward=np.array([t.reward for t in transitions]),
            step=np.concatenate([np.arange(len(e)) for e in episodes]),
            start=np.array([starts.setdefault(e.task, len(starts)) for e in episodes]),
            state=np.array([states.setdefault(t.observation, len(states)) for t in transitions]),
        )


@dataclass(frozen=True)
class Success:
    """A successful episode for replay, and the stage of the curriculum that it was played in."""

    stage: str
    episode: Episode


MEASURED = ("loss", "entropy", "kl", "clip_fraction", "value_loss")  # means over the steps of a pass


class Learner:
    """The policy with its optimizer, the successes that it replays, and its critic where advantages need one.

    Where the reflector is trained, too, its learner is beside them, and updates it after the policy.

    Attributes:
        fitted: whether the critic has been fitted to a first batch.
        spread: of the advantages so far (`advantages.spread`).
    """

    def __init__(self, config: Config, players: PlayerPair):
        self.config, self.seed, self.players, self.policy = config.rl, config.seed, players, players.policy
        self.device = self.policy.model.device
        self.replay: list[Success] = []
        self.critic, self.fitted, self.spread = None, False, 0.0
        models.activate(self.policy.model, "policy")
        self.rows = config.model.micro_batch  # that go forward and backward at a time; 0: all of them
        if not self.rows and isinstance(self.policy.model, PeftModel):
            self.rows = models.rows_that_fit(self.policy.model, config.model.context, 64, backward=True)
        elif not self.rows and config.arm.scores_texts:
            self.rows = SCORED
        self.reference = models.copies(self.policy.model, "policy") if self.config.kl else {}
        own = models.weights(self.policy.model, "policy")
        rates, parameters = [self.config.learning_rate], [[*own.values()]]
        if self.config.advantage == "gae":
            self.critic = Critic(self.policy.model.config.hidden_size, self.seed).to(self.device)
            rates, parameters = [*rates, self.config.critic_learning_rate], [*parameters, [*self.critic.parameters()]]
        self.reflector = ReflectorLearner(config, players.reflector) if config.arm.trains_reflector else None
        groups = [{"params": of, "lr": rate, "peak": rate} for of, rate in zip(parameters, rates, strict=True)]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.0)

    def playing(self, update: int) -> PlayerPair:
        """The players for the episodes of an update: a reflector that learns samples."""
        if self.reflector is None:
            return self.players
        self.reflector.begin(update)
        return PlayerPair(self.policy, self.reflector)

    def update(self, episodes: list[Episode], progress: float, stage: str) -> dict[str, float]:
        """One update on a batch of episodes.

        Args:
            progress: part of the budget (0 to 1) that is used up.
            stage: of the curriculum, whose successes are replayed.

        Returns:
            The means over the passes of loss, gradient norm, entropy, clip fraction and, NaN where there is none, KL
            divergence to the warmed-up policy and the critic's loss; and the divergence of a reflector that learns, NaN
            of another. Where the loss or the gradient is not finite, no step is taken on it, the passes end there and
            `loss` says so.
        """
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * (1 + progress * (config.learning_rate_end - 1))
        bonus = config.entropy + progress * (config.entropy_end - config.entropy)
        batch = self._judged(Batch.of(episodes, self.policy.labels, self.device))
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
        diverged = math.nan
        if self.reflector is not None:
            diverged = self.reflector.update(episodes, progress)
            if math.isnan(diverged):
                return {key: math.nan for key in logs[-1]}
        if config.replay:
            new = [Success(stage, episode) for episode in episodes if episode.success]
            self.replay = (former + new)[-config.replay :]
        means = {key: sum(entry[key] for entry in logs) / len(logs) for key in logs[0]}
        return means | {"reflector_kl": diverged}

    def _judged(self, batch: Batch) -> Batch:
        """The batch with what all its passes share: advantages, the critic's targets, the warmed-up policy's view."""
        config, values, row = self.config, None, batch.row.cpu().numpy()
        if self.critic is not None:
            states = self._each(batch, lambda rows: self.policy.hidden([batch.prompts[i] for i in rows]))
            if not self.fitted:
                self._fit(states, advantages.return_to_go(batch.reward, batch.step, config.discount), batch.row)
            with torch.no_grad():
                values = self.critic(states).cpu().numpy().astype(float)[row]
        given = batch.reward, batch.step, batch.start, values, config.discount, config.gae_lambda, batch.state
        found = advantages.advantage(config.advantage, *given)
        if values is not None:
            batch.target = torch.tensor(found + values, dtype=torch.float32, device=self.device)
        self.spread = advantages.spread(found, self.spread)
        found = advantages.normalised(found, self.spread, config.advantage) if config.normalise else found
        batch.advantage = torch.tensor(found, dtype=torch.float32, device=self.device)
        if self.reference:
            batch.reference = self._of_reference(batch)
        return batch

    @torch.no_grad()
    def _each(self, batch: Batch, ask: Callable[[list[int]], torch.Tensor]) -> torch.Tensor:
        """`(U, ...)` what the policy says of the distinct prompts, by their numbers; each process asks for its part."""
        found: list[np.ndarray] = []  # rows of arrays: of tensors each would take its storage and its device along
        for part in self._parts(batch, distributed.shard(torch.arange(len(batch.prompts)))):
            found += [*ask(part.tolist()).float().cpu().numpy()]
        return torch.from_numpy(np.stack(distributed.gather(found))).to(self.device)

    def _fit(self, states: torch.Tensor, returns: np.ndarray, row: torch.Tensor) -> None:
        """Fit the critic to the returns of a first batch: `(U, D)` hidden states, `(N,)` returns and rows.

        The advantages of this one batch are by the critic that has seen its returns, and so are small.
        """
        targets = torch.tensor(returns, dtype=torch.float32, device=self.device)
        self.critic.fit(states, row, targets, self.config.critic_learning_rate, self.config.critic_steps)
        self.fitted = True

    def _of_reference(self, batch: Batch) -> torch.Tensor:
        """`(U, A)` log-probabilities of the policy as it was warmed up."""
        width = max(map(len, batch.legal))

        def ask(rows: list[int]) -> torch.Tensor:
            found = self.policy.log_probs([batch.prompts[i] for i in rows], [batch.legal[i] for i in rows])
            return torch.nn.functional.pad(found, (0, width - found.shape[1]), value=-torch.inf)

        with models.holding(self.policy.model, "policy", self.reference):
            return self._each(batch, ask)

    @torch.no_grad()
    def _past(self, successes: list[Success]) -> Batch | None:
        """Replayed successes as a batch; None without any. The main process computes their gradient.

        The advantages are what they were better than the critic expects now, in the unit of those of the batch.
        """
        if not successes or not distributed.is_main():
            return None
        past = Batch.of([success.episode for success in successes], self.policy.labels, self.device)
        parts = self._parts(past, torch.arange(len(past.prompts)))
        hidden = torch.cat([self.policy.hidden([past.prompts[i] for i in part.tolist()]) for part in parts])
        values = self.critic(hidden).cpu().numpy().astype(float)[past.row.cpu().numpy()]
        returns = advantages.return_to_go(past.reward, past.step, self.config.discount)
        found = advantages.surplus(returns, values) / (self.spread if self.config.normalise else 1)
        past.advantage = torch.tensor(found, dtype=torch.float32, device=self.device)
        return past

    def _gradient(self, batch: Batch, part: torch.Tensor, bonus: float, past: Batch | None) -> dict[str, float]:
        """Put the clipped gradient of one minibatch and of the replayed steps into the parameters; what it measured."""
        total = torch.zeros(len(MEASURED), device=self.device)
        self.optimizer.zero_grad()
        steps = torch.isin(batch.row, part).sum()
        for rows in self._parts(batch, distributed.shard(part)):
            loss, measured = self._loss(batch, rows, bonus, steps)
            loss.backward()
            total += torch.stack([loss.detach(), *measured])
        for rows in self._parts(past, torch.arange(len(past.prompts) if past else 0, device=self.device)):
            loss = self._replay_loss(past, rows)
            loss.backward()
            total[0] += loss.detach()
        norms = []
        for group in self.optimizer.param_groups:  # the critic's gradient has no part in the clipping of the policy's
            distributed.all_reduce_gradients(group["params"])
            norms.append(torch.nn.utils.clip_grad_norm_(group["params"], self.config.max_grad_norm).item())
        return dict(zip(MEASURED, distributed.all_reduce(total).tolist(), strict=True)) | {"grad_norm": norms[0]}

    def _parts(self, batch: Batch | None, rows: torch.Tensor) -> list[torch.Tensor]:
        """Prompts of a batch as they go forward and backward; none where a process has no part in a small batch."""
        if not len(rows) or not self.rows:
            return [rows] if len(rows) else []
        ends = torch.tensor([self.policy.rows_of(batch.legal[i]) for i in rows.tolist()]).cumsum(0)
        return list(rows.split([count for count in torch.bincount((ends - 1) // self.rows).tolist() if count]))

    def _loss(
        self, batch: Batch, part: torch.Tensor, bonus: float, whole: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Share of the loss, and of `MEASURED[1:]`, of the steps whose prompt is in `part`.

        `part` holds the indices of `(U',)` distinct prompts in rising order. Shares add up to the means over all
        `whole` steps of a minibatch, on whatever parts and processes they are computed.
        """
        config, steps, rows = self.config, torch.isin(batch.row, part), part.tolist()
        row = torch.searchsorted(part, batch.row[steps])
        asked = [batch.prompts[i] for i in rows], [batch.legal[i] for i in rows]
        hidden, log_probs = self.policy.states_and_log_probs(*asked)
        log_prob = log_probs[row, batch.action[steps]]
        old, advantage = batch.log_prob[steps], batch.advantage[steps]
        if config.objective == "ppo":
            loss = objectives.ppo_loss(log_prob, old, advantage, config.clip)
        else:
            loss = objectives.policy_gradient_loss(log_prob, advantage)
        entropy, kl, value_loss = objectives.entropy(log_probs)[row].mean(), *torch.full((2,), torch.nan)
        loss = loss - bonus * entropy
        if batch.reference is not None:
            kl = objectives.kl(log_probs, batch.reference[part][:, : log_probs.shape[1]])[row].mean()
            loss = loss + config.kl * kl
        if self.critic is not None:
            value_loss = objectives.value_loss(self.critic(hidden)[row], batch.target[steps])
            loss = loss + value_loss
        clipped = objectives.clip_fraction(log_prob.detach(), old, config.clip)
        weight = steps.sum() / whole
        measured = [entropy.detach(), kl.detach(), clipped, value_loss.detach()]
        return weight * loss, [weight * each.to(self.device) for each in measured]

    def _replay_loss(self, past: Batch, part: torch.Tensor) -> torch.Tensor:
        """Share of the replayed loss of steps whose prompt is in `part`, as in `_loss` (Oh et al. 2018, equation 2).

        Without an importance ratio: it would be next to 0 for what the policy has come to avoid, which is to come back.
        """
        steps, rows = torch.isin(past.row, part), part.tolist()
        log_probs = self.policy.log_probs([past.prompts[i] for i in rows], [past.legal[i] for i in rows])
        row = torch.searchsorted(part, past.row[steps])
        log_prob = log_probs[row].gather(1, past.action[steps, None])[:, 0]
        return steps.sum() / len(past.row) * objectives.policy_gradient_loss(log_prob, past.advantage[steps])
