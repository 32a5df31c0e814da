"""Stage 2: the online loop. Roll out, compute returns, update the policy; the reflector stays frozen."""

import math
import time
from dataclasses import asdict, dataclass, field

import numpy as np
import pandas as pd
import torch
from peft import PeftModel

from reflect_rl import models, objectives, ranks
from reflect_rl.config import VARIANTS, Config, RLConfig
from reflect_rl.curriculum import stage
from reflect_rl.envs import domain
from reflect_rl.envs.labels import Labels
from reflect_rl.errors import ReflectRLError
from reflect_rl.rollout import Decision, Episode, Players, Transition, play
from reflect_rl.runs import (
    Checkpoints,
    claim,
    optimizer_tensors,
    peak_memory_mb,
    progress,
    restore_optimizer,
    write_csv,
    write_json,
)
from reflect_rl.sft import Pair, keep_reflections, warm_up

METRICS = [
    "update", "env_steps", "stage", "episodes", "success", "return", "episode_length",
    "entropy", "loss", "grad_norm", "clip_fraction", "val_success",
]  # fmt: skip
COLLAPSED_ENTROPY = 1e-4  # nats
COLLAPSED_LENGTH = 1.5  # steps
PATIENCE = 5  # updates in a row
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
        returns = [objectives.return_to_go(np.array([t.reward for t in e.transitions])) for e in episodes]
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
    players: Pair
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
            with models.seeded(self.seed):
                self.critic = torch.nn.Linear(self.policy.model.config.hidden_size, 1).to(self.device)
            torch.nn.init.zeros_(self.critic.weight)
            parameters += self.critic.parameters()
        self.optimizer = torch.optim.AdamW(parameters, lr=self.config.learning_rate, weight_decay=0.0)

    def update(self, episodes: list[Episode], share: float) -> dict[str, float]:
        """One update on a batch of episodes; `share` is the part of the budget that is used up.

        Returns the means over the passes of loss, gradient norm, entropy and clip fraction. Where the loss or the
        gradient is not finite, no step is taken on it, the passes end there and `loss` says so.
        """
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 + share * (config.learning_rate_end - 1))
        bonus = config.entropy + share * (config.entropy_end - config.entropy)
        batch = Batch.of(episodes, self.policy.labels, self.device)
        past = Batch.of(self.replay, self.policy.labels, self.device) if self.replay else None
        replayed = torch.arange(len(past.prompts) if past and ranks.is_first() else 0, device=self.device)
        rng = np.random.default_rng([self.seed, 3, len(episodes), int(share * 1e9)])
        logs = []
        for _ in range(config.epochs):
            order = rng.permutation(len(batch.prompts))
            for part in np.array_split(order, min(config.minibatches, len(order))):
                part = torch.from_numpy(np.sort(part)).to(self.device)
                total = torch.zeros(3, device=self.device)  # loss, entropy, clip fraction
                self.optimizer.zero_grad()
                steps = torch.isin(batch.row, part).sum()
                for rows in self._parts(ranks.share(part)):
                    loss, measured = self._loss(batch, rows, bonus, steps)
                    loss.backward()
                    total += torch.stack([loss.detach(), *measured])
                for rows in self._parts(replayed):
                    loss = self._replay_loss(past, rows)
                    loss.backward()
                    total[0] += loss.detach()
                ranks.add_up_gradients(self.optimizer.param_groups[0]["params"])
                norm = torch.nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], config.max_grad_norm)
                loss, entropy, clipped = ranks.add_up(total).tolist()
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

        `part` holds the indices of `(U',)` distinct prompts in rising order. Shares add up to the means over all `whole`
        steps of an update, on whatever parts and processes they are computed.
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
            means = objectives.step_means(batch.returns.cpu().numpy(), batch.step)
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


def rollouts(config: Config, players: Pair, update: int, env_steps: int) -> tuple[str, list[Episode]]:
    """The episodes of one update, on training tasks of the curriculum's stage; every episode has its own generator."""
    mode = stage(env_steps, config.rl)
    env = domain(config.env)
    rng = np.random.default_rng([config.seed, 4, update])
    tasks = [
        str(task)
        for task in rng.choice(env.tasks(mode, "train", config.data.tasks), size=config.rl.episodes_per_update)
    ]
    agent = Players(players.policy, players.reflector)
    rngs = ranks.share(rng.spawn(len(tasks)))
    episodes = play(env, agent, ranks.share(tasks), rngs, config.rl.horizon, milestone=config.rl.milestone)
    return mode, ranks.together(episodes)


def validation_success(config: Config, players: Pair) -> float:
    """Sampled success on the validation tasks of the full setting; the same generators at every call."""
    env = domain(config.env)
    tasks = env.tasks("full", "validation", config.data.tasks) * config.rl.evaluation_repeats
    rngs = [np.random.default_rng([config.seed, 5, i]) for i in range(len(tasks))]
    agent = Players(players.policy, players.reflector)
    episodes = ranks.together(play(env, agent, ranks.share(tasks), ranks.share(rngs), config.rl.horizon))
    return sum(e.success for e in episodes) / len(episodes)


def trouble(metrics: list[dict]) -> str:
    """Why a run counts as collapsed, empty while it does not; once collapsed, a run stays marked.

    Two traps: episodes that end at once (dying early costs less than wandering), and a policy without entropy
    that fails. Either must last for `PATIENCE` updates.
    """
    last = metrics[-PATIENCE:]
    if len(last) < PATIENCE:
        return ""
    if all(m["episode_length"] < COLLAPSED_LENGTH and m["success"] < 0.5 for m in last):
        return f"episodes shorter than {COLLAPSED_LENGTH} steps for {PATIENCE} updates, at update {last[-1]['update']}"
    if all(m["entropy"] < COLLAPSED_ENTROPY and m["success"] < 0.5 for m in last):
        return f"entropy below {COLLAPSED_ENTROPY} nats for {PATIENCE} updates, at update {last[-1]['update']}"
    return ""


def train(config: Config) -> Pair:
    """Train, or load where that was done before, the policy of a variant with online RL.

    Files in `config.run_dir/rl`: `metrics.csv` (one row an update, row 0 before the first), `status.json`
    (`ok` or `collapsed` and why, environment steps, seconds, memory), `policy.safetensors`, `checkpoints/`. A run
    that was killed continues from its newest checkpoint and ends with the same numbers.

    Of several processes (`ranks`) each plays a share of the episodes and computes a share of the gradient.

    A collapsed run is trained to the end of its budget, so that variants compare at equal environment steps, and
    is marked; where loss or gradient stop being finite, training ends and the last finite policy is kept.
    """
    if not config.arm.rl:
        trained = [name for name, variant in VARIANTS.items() if variant.rl]
        raise ReflectRLError(f"variant {config.variant!r} has no online RL; choose one of: {', '.join(trained)}")
    folder = config.run_dir / "rl"
    players = warm_up(config)
    sections = config.sections("data", "model", "reflector", "policy", "rl")
    if ranks.is_first():
        with claim(folder, sections | {"variant": config.variant}):
            if ranks.from_first(not all((folder / name).exists() for name in ("status.json", "policy.safetensors"))):
                _train(config, players)
    elif ranks.from_first(None):
        _train(config, players)
    ranks.wait()
    models.load_weights(players.policy.model, "policy", folder / "policy.safetensors")
    return players


def _train(config: Config, players: Pair) -> None:
    folder = config.run_dir / "rl"
    learner = Learner(config.rl, players, config.seed)
    checkpoints = Checkpoints(folder / "checkpoints")
    state = _resume(learner, checkpoints) or {
        "update": 0,
        "env_steps": 0,
        "reason": "",
        "seconds": 0.0,
        "metrics": [],
    }
    started = time.monotonic() - state["seconds"]
    if not state["metrics"]:
        before = {
            "update": 0,
            "env_steps": 0,
            "stage": "warm-up",
            "val_success": validation_success(config, players),
        }
        state["metrics"].append(before)
    description = f"{config.variant} seed {config.seed}: online RL"
    bar = progress(None, description, total=config.rl.env_steps, initial=state["env_steps"], unit="step")
    while state["env_steps"] < config.rl.env_steps:
        finite = _update(config, learner, state)
        if not finite:
            break
        bar.update(state["env_steps"] - bar.n)
        bar.set_postfix(success=f"{state['metrics'][-1]['success']:.2f}", stage=state["metrics"][-1]["stage"])
        if state["update"] % config.rl.checkpoint_every == 0 and ranks.is_first():
            state["seconds"] = time.monotonic() - started
            _save(learner, checkpoints, state)
            write_csv(folder / "metrics.csv", pd.DataFrame(state["metrics"], columns=METRICS))
    bar.close()
    if not ranks.is_first():
        return
    write_csv(folder / "metrics.csv", pd.DataFrame(state["metrics"], columns=METRICS))
    models.save_weights(players.policy.model, "policy", folder / "policy.safetensors")
    status = {
        "status": "collapsed" if state["reason"] else "ok",
        "reason": state["reason"],
        "env_steps": state["env_steps"],
        "seconds": round(time.monotonic() - started, 1),
        "peak_memory_mb": round(peak_memory_mb()),
    }
    write_json(folder / "status.json", status)
    keep_reflections(config, players)


def _update(config: Config, learner: Learner, state: dict) -> bool:
    """One turn of the loop, recorded in `state`; False where loss or gradient were not finite."""
    mode, episodes = rollouts(config, learner.players, state["update"], state["env_steps"])
    share = min(1.0, state["env_steps"] / config.rl.env_steps)
    learnt = learner.update(episodes, share)
    state["update"] += 1
    state["env_steps"] += sum(map(len, episodes))
    row = {
        "update": state["update"],
        "env_steps": state["env_steps"],
        "stage": mode,
        "episodes": len(episodes),
        "success": sum(e.success for e in episodes) / len(episodes),
        "return": sum(e.total_reward for e in episodes) / len(episodes),
        "episode_length": sum(map(len, episodes)) / len(episodes),
    } | learnt
    finite = math.isfinite(row["loss"])
    last = state["env_steps"] >= config.rl.env_steps
    if finite and (last or state["update"] % config.rl.evaluate_every == 0):
        row["val_success"] = validation_success(config, learner.players)
    state["metrics"].append(row)
    if not finite:
        state["reason"] = f"loss or gradient was not finite at update {state['update']}; training ended there"
    elif not state["reason"]:
        state["reason"] = trouble(state["metrics"][1:])
    return finite


def _save(learner: Learner, checkpoints: Checkpoints, state: dict) -> None:
    tensors = {
        "policy": {k: v.detach() for k, v in models.weights(learner.policy.model, "policy").items()},
        "optimizer": optimizer_tensors(learner.optimizer),
    }
    if learner.critic is not None:
        tensors["critic"] = learner.critic.state_dict()
    replay = [asdict(episode) for episode in learner.replay]
    checkpoints.save(state["update"], tensors, state | {"replay": replay})


def _resume(learner: Learner, checkpoints: Checkpoints) -> dict | None:
    """Put the newest checkpoint back into the learner; the loop's state, None where there is no checkpoint."""
    saved = checkpoints.load()
    if saved is None:
        return None
    tensors, state = saved
    models.set_weights(learner.policy.model, "policy", tensors["policy"], checkpoints.folder)
    restore_optimizer(learner.optimizer, tensors["optimizer"])
    if learner.critic is not None:
        learner.critic.load_state_dict(tensors["critic"])
    learner.replay = [_episode(fields) for fields in state.pop("replay")]
    return state


def _episode(fields: dict) -> Episode:
    """The inverse of `dataclasses.asdict` for an episode."""
    transitions = [
        Transition(t["observation"], tuple(t["actions"]), Decision(**t["decision"]), t["reward"])
        for t in fields["transitions"]
    ]
    return Episode(**(fields | {"transitions": transitions}))
