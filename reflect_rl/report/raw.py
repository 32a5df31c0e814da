"""The raw results of a profile as files: what is in them, and checksums of each run's rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pandas as pd

from reflect_rl.core import paths
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.files import read_csv, read_json, way_out
from reflect_rl.evaluate.panels import EPISODE_COLUMNS, PROMPT_COUNTS
from reflect_rl.evaluate.probes import REFLECTION_COLUMNS
from reflect_rl.train import rl

FILES = {name: f"{name}.csv.gz" for name in ("episodes", "training", "reflections")}
FILES |= {name: f"{name}.csv" for name in ("runs", "budgets", "ceilings", "prompts")}
COLUMNS = {  # without which no table or figure can be made
    "episodes": EPISODE_COLUMNS,
    "training": ["env", "regime", "variant", "seed", *rl.METRICS],
    "reflections": ["env", "regime", *REFLECTION_COLUMNS[1:]],
    "runs": ["env", "regime", "variant", "seed", "status", "env_steps", "seconds"],
    "budgets": [
        *("env", "regime", "variant", "seed", "situations", "reflector_samples", "policy_samples"),
        *("reflector_parameters", "policy_parameters", "updates", "env_steps"),
    ],
    "ceilings": ["env", "regime", "setting", "split", "horizon", "ceiling"],
    "prompts": ["env", "regime", "variant", "seed", *PROMPT_COUNTS],
}


@dataclass(frozen=True)
class Results:
    """The raw results of a profile, as they lie in `results/<profile>/`; all rows have `env` and `regime`."""

    episodes: pd.DataFrame  #: `panels.EPISODE_COLUMNS`
    training: pd.DataFrame  #: `rl.METRICS` of every RL run, with variant and seed
    reflections: pd.DataFrame  #: `probes.REFLECTION_COLUMNS` of every reflector
    runs: pd.DataFrame  #: variant, seed, status, environment steps, seconds and memory of every RL run
    budgets: pd.DataFrame  #: what every trained policy was given: see `budget`
    ceilings: pd.DataFrame  #: see `ceilings`
    prompts: pd.DataFrame  #: variant, seed and `panels.PROMPT_COUNTS` of each policy in its evaluation

    @classmethod
    def read(cls, folder: Path) -> "Results":
        """Those that lie in a folder."""
        return cls(**{name: read_rows(folder / file, COLUMNS[name]) for name, file in FILES.items()})

    def of(self, env: str, regime: str | None = None) -> "Results":
        """Those of one environment, in one regime or in all."""
        kept = {name: rows[rows["env"] == env] for name, rows in vars(self).items()}
        if regime is not None:
            kept = {name: rows[rows["regime"] == regime] for name, rows in kept.items()}
        return Results(**{name: rows.reset_index(drop=True) for name, rows in kept.items()})


def read_rows(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Raw results with these columns; a regime without a name has the name `""`."""
    rows = read_csv(path, columns)
    rows = rows.assign(regime=rows["regime"].astype(object).fillna(""))
    return rows.astype({"reflections": "Int64"}) if "reflections" in rows else rows


def entries(folder: Path) -> dict[str, dict]:
    """What a folder's manifest says of each environment; nothing where there is none."""
    path = folder / "manifest.json"
    found = read_json(path) if path.exists() else {}
    envs = found.get("environments", {}) if isinstance(found, dict) else None
    if not (isinstance(envs, dict) and all(isinstance(entry, dict) for entry in envs.values())):
        raise ReflectRLError(f"{path} is no manifest of results; {way_out(path)}")
    return envs


def collected(profile_name: str) -> dict[str, tuple[Path, dict]]:
    """The folder of each environment's results, collected here or else committed, and what its manifest says of them."""
    folders = paths.project() / "results" / profile_name, paths.results(profile_name)
    return {env: (folder, entry) for folder in folders for env, entry in entries(folder).items()}


RUN = ["env", "regime", "variant", "seed"]
CHECKSUMS = "checksums.csv"


def read_text_csv(path: Path) -> pd.DataFrame:
    """A CSV with its cells as they stand there; raises ReflectRLError where it cannot be read."""
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, EOFError, ValueError) as error:
        raise ReflectRLError(f"{path} cannot be read ({error}); {way_out(path)}") from error


def checksums(folder: Path) -> pd.DataFrame:
    """12 digits of the SHA-256 of the rows of every run, as they stand in each of the `FILES` of a folder.

    Columns: env, regime, variant, seed, and those of the files; empty where a run has no rows in a file. Ceilings are of no
    variant and seed.
    """
    found: dict[tuple, dict[str, str]] = {}
    for name, file in FILES.items():
        rows = read_text_csv(folder / file)
        keys = [key for key in RUN if key in rows]
        for of, own in rows.groupby(keys, sort=False) if keys else ():
            place = (*of, *[""] * (len(RUN) - len(of)))
            found.setdefault(place, {})[name] = sha256(own.to_csv(index=False).encode()).hexdigest()[:12]
    rows = [dict(zip(RUN, place, strict=True)) | of for place, of in found.items()]
    return pd.DataFrame(rows, columns=[*RUN, *FILES]).fillna("")
