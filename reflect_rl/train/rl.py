"""Stage 2: the online loop. Roll out, compute returns, update the policy (and of one variant the reflector)."""

import math
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from transformers import PreTrainedModel

from reflect_rl.core.checkpoints import Checkpoints, optimizer_tensors, restore_optimizer
from reflect_rl.core.config import Config
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.files import write_csv, write_json
from reflect_rl.core.identity import locked_run_dir, stage_dir
from reflect_rl.core.runtime import peak_gpu_memory_mb, peak_memory_mb, progress
from reflect_rl.core.variants import VARIANTS
from reflect_rl.envs.registry import get
from reflect_rl.lm import distributed, models
from reflect_rl.train.curriculum import stage
from reflect_rl.train.learner import Learner, Success
from reflect_rl.train.rollout import Decision, Episode, PlayersAgent, Transition, play
from reflect_rl.train.warmup import PlayerPair, keep_reflections, validation_tasks, warm_up

METRICS = [
    "update", "env_steps", "stage", "episodes", "success", "return", "episode_length",
    "entropy", "kl", "loss", "value_loss", "grad_norm", "clip_fraction", "val_success",
]  # fmt: skip
COLLAPSED_ENTROPY = 1e-4  # nats
COLLAPSED_LENGTH = 1.5  # steps
PATIENCE = 5  # updates in a row


def rollouts(config: Config, players: PlayerPair, update: int, env_steps: int) -> tuple[str, list[Episode]]:
    """The episodes of one update, on training tasks of the curriculum's stage; every episode has its own generator.

    Whole batches of `rl.episodes_per_update` are joined until there are at least `rl.steps_per_update` steps, so that an
    update on episodes that end at once does not rest on a few decisions.
    """
    spec = get(config.env)
    setting = stage(env_steps / config.rl.env_steps, config.rl, spec)
    rng = np.random.default_rng([config.seed, 4, update])
    panel = spec.panel(setting, "train", config.data.tasks)
    agent = PlayersAgent(players.policy, players.reflector)
    episodes: list[Episode] = []
    while not episodes or sum(map(len, episodes)) < config.rl.steps_per_update:
        starts = rng.choice(panel, size=config.rl.episodes_per_update // config.rl.group)
        tasks = [str(task) for task in starts for _ in range(config.rl.group)]
        rngs = distributed.shard(rng.spawn(len(tasks)))
        played = play(spec, agent, distributed.shard(tasks), rngs, config.rl.horizon, config.rl.milestone)
        episodes += distributed.gather(played)
    return setting, episodes


def validation_success(config: Config, players: PlayerPair) -> float:
    """Sampled success on the validation tasks of the training setting; the same generators at every call."""
    spec, shard = get(config.env), distributed.shard
    tasks = validation_tasks(config) * config.rl.evaluation_repeats
    rngs = [np.random.default_rng([config.seed, 5, i]) for i in range(len(tasks))]
    agent = PlayersAgent(players.policy, players.reflector)
    episodes = distributed.gather(play(spec, agent, shard(tasks), shard(rngs), config.rl.horizon))
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


def train(config: Config) -> PlayerPair:
    """Train, or load where that was done before, the policy of a variant with online RL.

    Files in the run folder of the stage `rl`: `metrics.csv` (one row an update, row 0 before the first), `status.json`
    (`ok` or `collapsed` and why, environment steps, seconds, memory), `policy.safetensors`, `checkpoints/`. A run that
    was killed continues from its newest checkpoint and ends with the same numbers. Where RL trains the reflector, too,
    there is `reflector.safetensors`, and `reflector_kl` in the metrics: nats a token from its warm-up, before the step.

    Of several processes (`lm.distributed`) each plays a part of the episodes and computes a part of the gradient.

    A collapsed run is trained to the end of its budget, so that variants compare at equal environment steps, and
    is marked; where loss or gradient stop being finite, training ends and the last finite policy is kept.
    """
    if not config.arm.rl:
        trained = [name for name, variant in VARIANTS.items() if variant.rl]
        raise ReflectRLError(f"variant {config.variant!r} has no online RL; choose one of: {', '.join(trained)}")
    folder = stage_dir(config, "rl")
    players = warm_up(config)
    trained_files = [f"{name}.safetensors" for name in _learning(config, players)]
    if distributed.is_main():
        with locked_run_dir(config, "rl"):
            missing = not all((folder / name).exists() for name in ("status.json", *trained_files))
            if distributed.broadcast(missing):
                _train(config, players, folder)
    elif distributed.broadcast(None):
        _train(config, players, folder)
    distributed.barrier()
    for name, model in _learning(config, players).items():
        models.load_weights(model, name, folder / f"{name}.safetensors")
    if config.arm.trains_reflector:
        players.reflector.memory.clear()
    return players


def _learning(config: Config, players: PlayerPair) -> dict[str, PreTrainedModel]:
    """The players that RL trains, by name, and their models."""
    found = {"policy": players.policy.model}
    return found | {"reflector": players.reflector.model} if config.arm.trains_reflector else found


def _train(config: Config, players: PlayerPair, folder: Path) -> None:
    learner, columns = Learner(config, players), METRICS + ["reflector_kl"] * config.arm.trains_reflector
    checkpoints = Checkpoints(folder / "checkpoints")
    state = _resume(learner, checkpoints)
    if state is None:
        before = {"update": 0, "env_steps": 0, "stage": "warm-up", "val_success": validation_success(config, players)}
        state = {"update": 0, "env_steps": 0, "reason": "", "seconds": 0.0, "metrics": [before]}
    started = time.monotonic() - state["seconds"]
    description = f"{config.variant} seed {config.seed}: online RL"
    bar = progress(None, description, total=config.rl.env_steps, initial=state["env_steps"], unit="step")
    while state["env_steps"] < config.rl.env_steps:
        finite = _update(config, learner, state)
        if not finite:
            break
        bar.update(state["env_steps"] - bar.n)
        bar.set_postfix(success=f"{state['metrics'][-1]['success']:.2f}", stage=state["metrics"][-1]["stage"])
        if state["update"] % config.rl.checkpoint_every == 0 and distributed.is_main():
            state["seconds"] = time.monotonic() - started
            _save(learner, checkpoints, state)
            write_csv(folder / "metrics.csv", pd.DataFrame(state["metrics"], columns=columns))
    bar.close()
    if not distributed.is_main():
        return
    write_csv(folder / "metrics.csv", pd.DataFrame(state["metrics"], columns=columns))
    for name, model in _learning(config, players).items():
        models.save_weights(model, name, folder / f"{name}.safetensors")
    status = {
        "status": "collapsed" if state["reason"] else "ok",
        "reason": state["reason"],
        "env_steps": state["env_steps"],
        "seconds": round(time.monotonic() - started, 1),
        "peak_memory_mb": round(peak_memory_mb()),
        "peak_gpu_memory_mb": round(peak_gpu_memory_mb()),
    }
    write_json(folder / "status.json", status)
    if not config.arm.trains_reflector:
        keep_reflections(config, players)


def _update(config: Config, learner: Learner, state: dict) -> bool:
    """One turn of the loop, recorded in `state`; False where loss or gradient were not finite."""
    setting, episodes = rollouts(config, learner.playing(state["update"]), state["update"], state["env_steps"])
    learnt = learner.update(episodes, min(1.0, state["env_steps"] / config.rl.env_steps), setting)
    state["update"] += 1
    state["env_steps"] += sum(map(len, episodes))
    row = {
        "update": state["update"],
        "env_steps": state["env_steps"],
        "stage": setting,
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
    if learner.reflector is not None:
        own = models.weights(learner.players.reflector.model, "reflector")
        tensors["reflector"] = {name: weight.detach() for name, weight in own.items()}
        tensors["reflector_optimizer"] = optimizer_tensors(learner.reflector.optimizer)
        tensors["reflector_critic"] = learner.reflector.critic.state_dict()
        state = state | {"reflector_spread": learner.reflector.spread}
    replay = [asdict(success) for success in learner.replay]
    checkpoints.save(state["update"], tensors, state | {"replay": replay, "spread": learner.spread})


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
        learner.fitted = True
    if learner.reflector is not None:
        models.set_weights(learner.players.reflector.model, "reflector", tensors["reflector"], checkpoints.folder)
        restore_optimizer(learner.reflector.optimizer, tensors["reflector_optimizer"])
        learner.reflector.critic.load_state_dict(tensors["reflector_critic"])
        learner.reflector.fitted, learner.reflector.spread = True, state.pop("reflector_spread")
    learner.spread = state.pop("spread")
    learner.replay = [Success(**kept | {"episode": _episode(kept["episode"])}) for kept in state.pop("replay")]
    return state


def _episode(fields: dict) -> Episode:
    """The inverse of `dataclasses.asdict` for an episode."""
    transitions = [
        Transition(t["observation"], tuple(t["actions"]), Decision(**t["decision"]), t["reward"])
        for t in fields["transitions"]
    ]
    return Episode(**(fields | {"transitions": transitions}))
