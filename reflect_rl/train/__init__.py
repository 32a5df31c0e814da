"""Training: data, untrained agents, episodes, supervised warm-up, and online RL."""
