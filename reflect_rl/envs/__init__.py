"""Environments by name: their tasks, settings and ceilings. To add one, write a module like `taxi` and list it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType

import gymnasium as gym

from reflect_rl.envs import alfworld, taxi
from reflect_rl.envs.labels import IN_ORDER, Labels, by_name
from reflect_rl.errors import unknown


@dataclass(frozen=True)
class Domain:
    """What the project needs to know of an environment.

    Attributes:
        gym_id: name in Gymnasium's registry.
        make: builds a bare environment (Gymnasium's `make` and its wrappers would cost more than the environment).
        module: has `tasks(setting, split, most)`, `shortest(task)`, `parse_task(task)`, `provenance(task)`, and for
            readers who know nothing of it `GOAL` and `LEGEND`.
        settings: task families that are evaluated; headline: the one that stands for the environment.
        judged: the settings on whose validation tasks a choice between settings is made.
        horizon: steps that a good player needs at most.
        labels: which label each legal action gets in the policy's prompt.
        side_by_side: how many environments can be stepped at a time; 1 where a step is quicker than a thread.
        manifest: what the tasks are on disk, with checksums; None where they are nothing but their names.
    """

    name: str
    gym_id: str
    make: Callable[..., gym.Env]
    module: ModuleType
    settings: tuple[str, ...]
    headline: str
    judged: tuple[str, ...]
    horizon: int
    labels: Labels = IN_ORDER
    side_by_side: Callable[[], int] = lambda: 1
    manifest: Callable[[Iterable[str]], dict] | None = None

    def tasks(self, setting: str, split: str, most: int = 0) -> tuple[str, ...]:
        """The tasks of a panel; with `most` the first ones of it (of each panel, where it is made of several)."""
        return self.module.tasks(setting, split, most)

    def provenance(self, task: str) -> str:
        """Where a task comes from, in a few words."""
        return self.module.provenance(task)

    def ceiling(self, setting: str, split: str, horizon: int, most: int = 0) -> float:
        """Share of the tasks that can be finished within the horizon at all."""
        panel = self.tasks(setting, split, most)
        return sum(self.module.shortest(task) <= horizon for task in panel) / len(panel)


gym.register("reflect_rl/DangerousTaxi-v0", entry_point="reflect_rl.envs.taxi:DangerousTaxi", order_enforce=False)
gym.register("reflect_rl/Household-v0", entry_point="reflect_rl.envs.alfworld:Household", order_enforce=False)

DOMAINS = {
    "taxi": Domain(
        "taxi",
        "reflect_rl/DangerousTaxi-v0",
        taxi.DangerousTaxi,
        taxi,
        ("pickup", "full"),
        headline="full",
        judged=("full",),
        horizon=20,
    ),
    "alfworld": Domain(
        "alfworld",
        "reflect_rl/Household-v0",
        alfworld.Household,
        alfworld,
        alfworld.SETTINGS,
        headline="paper",
        judged=("paper", "kitchens", "all_seen"),
        horizon=30,
        labels=by_name(alfworld.heart, 1024),
        side_by_side=alfworld.workers.engines,
        manifest=alfworld.store.manifest,
    ),
}


def domain(name: str) -> Domain:
    if name not in DOMAINS:
        raise unknown("environment", name, DOMAINS)
    return DOMAINS[name]
