"""The points of the tuning grids on validation tasks, and which of them is chosen."""

import pandas as pd

from reflect_rl.core import paths
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.files import write_csv
from reflect_rl.core.profiles import parse
from reflect_rl.envs import settings
from reflect_rl.envs.registry import get
from reflect_rl.evaluate import panels
from reflect_rl.report.raw import read_rows

COLUMNS = ["env", "regime", "variant", "seed", "overrides", "success", "chosen"]
TUNED = ("data.policy_draw", "rl.learning_rate", "rl.reflector_learning_rate")  # of which each arm has its own
LEVEL = 0.01  # difference in validation success of two points of a tuning grid that is none


def tuning_results(profile_name: str) -> pd.DataFrame | None:
    """What `collect_tuning` wrote, here or as committed; None where the profile was never tuned."""
    path = paths.result_file(profile_name, "tuning.csv")
    return path and read_rows(path, COLUMNS)


def collect_tuning(profile_name: str, env: str = "") -> pd.DataFrame:
    """Success of every point of the tuning grids (of `env`) on *validation* tasks; `results/<profile>/tuning.csv`.

    Columns: env, regime, variant, seed, overrides, success (sampled, longest horizon, mean over the environment's
    `selection_settings`), and chosen: 1 for the point that `choose` names. What the file has of others stays.
    """
    rows = []
    for job_env, regime, variant, seed, overrides, _ in settings.tuning(profile_name, env):
        run = settings.load(profile_name, job_env, variant, seed, overrides, regime)
        if run.evaluation.split != "validation":
            raise ReflectRLError("tuning needs evaluation.split=validation in its grid: test tasks decide no choice")
        found = panels.evaluate(run)
        judged = found[(found["horizon"] == found["horizon"].max()) & (found["decoding"] == "sampled")]
        success = judged.groupby("setting")["success"].mean()[list(get(job_env).selection_settings)].mean()
        rows.append([job_env, regime, variant, seed, overrides, success])
    table = pd.DataFrame(rows, columns=COLUMNS[:-1])
    table["chosen"] = choose(table)
    path = paths.results(profile_name) / "tuning.csv"
    if path.exists():
        former = read_rows(path, COLUMNS)
        table = pd.concat([former[~former["env"].isin(table["env"])], table], ignore_index=True)
    write_csv(path, table)
    return table


def choose(table: pd.DataFrame) -> list[int]:
    """For each row of a tuning table 1 where its point is chosen: the highest mean over the tuning seeds.

    One point is chosen for all values of the settings `TUNED`, among those that are equal in the others. A lead of less
    than `LEVEL` decides nothing: of such points the smallest learning rate of RL, which is the safest, and of several with
    that the one that the grid lists first.
    """
    point = ["env", "regime", "variant", "overrides"]
    means, best = table.groupby(point, sort=False)["success"].mean(), set()
    settings_of = {key: dict(parse(key[-1])) for key in means.index}
    others = [str({k: v for k, v in settings_of[key].items() if k not in TUNED}) for key in means.index]
    for _, alike in means.groupby([*(means.index.get_level_values(name) for name in point[:-1]), others]):
        level = alike[alike > alike.max() - LEVEL]
        best.add(  # the first of equals
            min(level.index, key=lambda key: float(settings_of[key].get("rl.learning_rate", 0)))
        )
    return [int(key in best) for key in table[point].itertuples(index=False, name=None)]
