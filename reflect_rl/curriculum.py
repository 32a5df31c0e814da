"""Which task an episode trains on as the budget is used up."""

from reflect_rl.config import RLConfig


def stage(env_steps: int, config: RLConfig) -> str:
    """Mode of the episodes that start after `env_steps` of the budget: pickup, then dropoff, then full.

    Shares of the budget come from `config.pickup` and `config.dropoff`; without them everything is full.
    """
    share = env_steps / config.env_steps
    if share < config.pickup:
        return "pickup"
    return "dropoff" if share < config.pickup + config.dropoff else "full"
