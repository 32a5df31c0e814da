"""A game with nothing but what is required of an environment: count up to three."""

import gymnasium as gym

from reflect_rl.envs.base import EnvSpec

ACTIONS = ("say one", "say two", "say three")


class Counting(gym.Env):
    def __init__(self, horizon=6):
        self.horizon = horizon
        self.action_space = gym.spaces.Discrete(3)
        self.observation_space = gym.spaces.Text(30)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.said, self.steps = int(((options or {}).get("task") or "from 0 a")[5]), 0
        return self.observation(), self.info()

    def step(self, action):
        self.steps += 1
        self.said += action == self.said
        out = self.said == 3
        return self.observation(), float(out), out, self.steps >= self.horizon and not out, self.info()

    def observation(self):
        return f"{self.said} said"

    def info(self):
        return {"actions": ACTIONS, "success": self.said == 3}


def tasks(setting, split):
    return tuple(f"from {i % 3} {split}{i}" for i in range(6))


def teach(now):
    return f"That was {now.action_feedback}. Next: {now.expert_action}."


SPEC = EnvSpec("counting", Counting, tasks, lambda env: env.said, teach, horizon=6)
PROFILE = """
envs: [counting]
seeds: [0, 1]
variants: [random, oracle, expert, follow, sft_rl, reflect_sft, reflect_rl, reflect_rl_stages]
counting:
  data: {trajectories: 30, negatives: 10, sft_examples: 64}
  model: {n_layer: 1, n_head: 2, d_model: 16, vocab_size: 300}
  reflector: {steps: 4, batch_size: 16, evaluate_every: 4}
  policy: {steps: 4, batch_size: 16}
  rl: {env_steps: 40, episodes_per_update: 4, evaluate_every: 2, checkpoint_every: 2}
  evaluation: {repeats: 1}
"""
CLAIMS = """
claims: {3: Reflections help.}
comparisons:
  counting:
    - {claim: 3, comparison: [reflect_rl, sft_rl], regime: "", setting: full, horizon: 6, split: test, decoding: sampled}
"""
