"""Games in small rooms, one of every type, made once for all tests of the household."""

from reflect_rl.envs.household import games, store
from reflect_rl.envs.household.env import Household
from reflect_rl.envs.household.games import Recipe


def example(task_type: str) -> Recipe:
    """A task of this type in a small room."""
    for scene in (401, 402, 301, 302, 303, 201, 2):
        found = [r for r in games.recipes(scene) if r.task_type == task_type]
        if found:
            return found[len(found) // 2]
    raise AssertionError(task_type)


def made(recipe: Recipe, trial: int = 7, folder: str = "train") -> str:
    game = f"{folder}/{recipe.name}/{store.trial_name(trial)}"
    store.make(game)
    return game


def task_of(recipe: Recipe, stage: str = "full", **options) -> str:
    return f"{stage}:{made(recipe, **options)}"


def reset(task: str, **options) -> Household:
    env = Household(horizon=options.pop("horizon", 50), **options)
    env.reset(options={"task": task})
    return env
