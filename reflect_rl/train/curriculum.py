"""Which family of tasks an episode trains on as the budget is used up."""

from reflect_rl.core.config import RLConfig
from reflect_rl.envs.base import EnvSpec


def stage(progress: float, config: RLConfig, spec: EnvSpec) -> str:
    """Task family of the episodes that start when `progress` (between 0 and 1) of the budget is used up.

    The environment's easier stages come first, in their order, each for its part of the budget in
    `config.stage_shares`; the rest trains `spec.training_setting`.
    """
    end = 0.0
    for name, share in zip(spec.stages, config.stage_shares, strict=False):
        end += share
        if progress < end:
            return name
    return spec.training_setting
