"""Environments: those of the library, and how to bring one of your own (`EnvSpec`, `register`, `check`)."""

from reflect_rl.envs import registry
from reflect_rl.envs.base import Drawing, EnvSpec, Reported, Situation
from reflect_rl.envs.check import check
from reflect_rl.envs.registry import get, names, register
from reflect_rl.envs.settings import load

__all__ = ["Drawing", "EnvSpec", "Reported", "Situation", "check", "get", "load", "names", "register"]

registry.offer("taxi", "reflect_rl.envs.taxi.spec:SPEC", "reflect_rl/DangerousTaxi-v0")
registry.offer("alfworld", "reflect_rl.envs.household.spec:SPEC", "reflect_rl/Household-v0")
registry.offer("alfworld_text", "reflect_rl.envs.household.spec:TEXT", "reflect_rl/HouseholdText-v0")
registry.offer("autoexplore", "reflect_rl.envs.autoexplore.spec:SPEC", "reflect_rl/AutoExplore-v0")
registry.offer("autoexplore_real", "reflect_rl.envs.autoexplore.spec:REAL", "reflect_rl/AutoExploreReal-v0")
