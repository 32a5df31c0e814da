"""Whether committed results are what the pipeline makes of the committed raw episodes, and can be true."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import matplotlib.image
import numpy as np
import pandas as pd

from reflect_rl.core import paths
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs import settings
from reflect_rl.envs.registry import get, names
from reflect_rl.report.raw import CHECKSUMS, FILES, RUN, checksums, collected
from reflect_rl.report.replay import changed_settings, home_of_its_own
from reflect_rl.report.results import deciding, runs_of
from reflect_rl.report.tables import HEADLINE
from reflect_rl.report.tuning import choose, tuning_results
from reflect_rl.report.write import write_all

NUMBER = re.compile(r"[-+]?\d+(?:,\d{3})*(?:\.\d+)?")
PIXELS, SHADE = 0.001, 0.1  # a picture differs where more than this share of pixels do so by this much of their range
POINTS = 1.0  # by which places in a drawing may differ


class Finding(NamedTuple):
    """Something that is not as it should be."""

    file: str  #: relative to the project
    what: str


def committed() -> list[str]:
    """The profiles whose results lie in the project."""
    return sorted(path.parent.name for path in (paths.project() / "results").glob("*/manifest.json"))


def verify(profile_name: str) -> list[Finding]:
    """What is wrong with a profile's committed results, nothing where they are in order: runs that are missing or of other
    settings than the profile's, raw rows that are not those that were collected, and each cell of a table, and each figure,
    that comes out otherwise when it is made from the raw rows.

    Numbers may differ by one in their last digit, as processors round them differently.

    Raises:
        ReflectRLError: there is no such profile, or a raw file cannot be read.
    """
    return [*runs_of_profile(profile_name), *rows_of(profile_name), *_products(profile_name)]


def _folder(profile_name: str) -> Path:
    return paths.project() / "results" / profile_name


def runs_of_profile(profile_name: str) -> Iterator[Finding]:
    """The runs of a profile that its results lack, or have with other settings."""
    file, known = f"results/{profile_name}/manifest.json", collected(profile_name)
    recorded = checksums(_folder(profile_name))
    have = {tuple(run) for run in recorded.loc[recorded["episodes"] != "", RUN].itertuples(index=False)}
    profile = settings.profile(profile_name)
    for env in (env for env in profile.envs if env in names()):
        if env not in known:
            yield Finding(file, f"no results of {env}")
            continue
        told = set()
        for run in runs_of(profile, env):
            name = " ".join(filter(None, (env, run.regime, run.variant)))
            if (env, run.regime, run.variant, str(run.seed)) not in have:
                yield Finding(f"results/{profile_name}/{FILES['episodes']}", f"no episodes of {name} seed {run.seed}")
            made = known[env][1]["regimes"].get(run.regime, {}).get("settings", {}).get(run.variant)
            if made and name not in told and (changed := changed_settings(made | {"seed": None}, deciding(run))):
                told.add(name)
                yield Finding(file, f"{name} was made with other settings: {', '.join(changed)}")


def rows_of(profile_name: str) -> Iterator[Finding]:
    """The runs whose raw rows are not those that were collected."""
    folder, file = _folder(profile_name), f"results/{profile_name}/{CHECKSUMS}"
    if not (folder / CHECKSUMS).exists():
        yield Finding(file, "is missing")
        return
    then = pd.read_csv(folder / CHECKSUMS, dtype=str, keep_default_na=False).set_index(RUN)
    now = checksums(folder).set_index(RUN)
    for run in then.index.union(now.index, sort=False):
        for name, raw in FILES.items():
            was, is_now = (rows[name].get(run, "") for rows in (then, now))
            if was != is_now:
                what = "are missing" if not is_now else "were not collected" if not was else "are not those collected"
                _, *of = run
                place = " ".join([run[0], *filter(None, of[:-1]), *(f"seed {seed}" for seed in of[-1:] if seed)])
                yield Finding(f"results/{profile_name}/{raw}", f"rows of {place} {what}")


def _products(profile_name: str) -> Iterator[Finding]:
    """The cells of tables, and the figures, that come out otherwise when they are made from the raw rows."""
    there = {
        f"results/{profile_name}": _folder(profile_name),
        f"figures/{profile_name}": paths.project() / "figures" / profile_name,
    }
    with home_of_its_own():
        for env in settings.profile(profile_name).envs:
            if env in collected(profile_name):
                write_all(profile_name, env)
        made = {name: paths.home() / name for name in there}
        for name, folder in there.items():
            files = [*made[name].rglob("*"), *folder.glob("tables/*"), *folder.glob("*.png"), *folder.glob("*.svg")]
            for file in sorted(
                {
                    path.relative_to(of)
                    for path in files
                    for of in (folder, made[name])
                    if path.is_file() and path.is_relative_to(of)
                }
            ):
                place = f"{name}/{file.as_posix()}"
                yield from (Finding(place, what) for what in _differences(folder / file, made[name] / file))
    tuned = tuning_results(profile_name)
    if tuned is not None:
        for row in tuned[tuned["chosen"] != choose(tuned)].itertuples():
            yield Finding(
                f"results/{profile_name}/tuning.csv", f"chosen of {row.variant} {row.overrides}: {row.chosen}"
            )


def _differences(then: Path, now: Path) -> Iterator[str]:
    if not now.exists():
        yield "is made by nothing"
    elif not then.exists():
        yield "is missing"
    elif then.read_bytes() != now.read_bytes():
        yield from COMPARE[then.suffix](then, now)


def alike(one: str, other: str) -> bool:
    """Whether two texts are the same but for numbers that differ by one in their last digit."""
    if NUMBER.sub("0", one) != NUMBER.sub("0", other):
        return False
    for a, b in zip(NUMBER.findall(one), NUMBER.findall(other), strict=True):
        digits = max(len(number.partition(".")[2]) for number in (a, b))
        if abs(float(a.replace(",", "")) - float(b.replace(",", ""))) > 1.01 * 10**-digits * (digits > 0):
            return False
    return True


def _cells(then: Path, now: Path) -> Iterator[str]:
    old, new = (pd.read_csv(path, dtype=str, keep_default_na=False) for path in (then, now))
    if list(old) != list(new) or len(old) != len(new):
        yield f"{len(old)} rows of {', '.join(old)}; made anew {len(new)} of {', '.join(new)}"
        return
    for (i, was), (_, is_now) in zip(old.iterrows(), new.iterrows(), strict=True):
        row = " ".join(value for value in is_now if value and not NUMBER.fullmatch(value))[:80]
        for column in old:
            if not alike(was[column], is_now[column]):
                yield f"row {i + 1} ({row}), {column}: {was[column]}, made anew {is_now[column]}"


def _lines(then: Path, now: Path) -> Iterator[str]:
    old, new = (path.read_text().splitlines() for path in (then, now))
    if len(old) != len(new):
        yield f"{len(old)} lines, made anew {len(new)}"
        return
    for i, (was, is_now) in enumerate(zip(old, new, strict=True), start=1):
        if not alike(was, is_now):
            yield f"line {i}: {was}, made anew {is_now}"


def _pixels(then: Path, now: Path) -> Iterator[str]:
    old, new = (matplotlib.image.imread(path) for path in (then, now))
    if old.shape != new.shape or np.mean(np.abs(old - new).max(axis=-1) > SHADE) > PIXELS:
        yield "drawn anew it looks different"


def _shapes(then: Path, now: Path) -> Iterator[str]:
    old, new = (path.read_text() for path in (then, now))
    numbers = [[float(number.replace(",", "")) for number in NUMBER.findall(text)] for text in (old, new)]
    is_same = NUMBER.sub("", old) == NUMBER.sub("", new) and len(numbers[0]) == len(numbers[1])
    if not is_same or np.abs(np.subtract(*numbers)).max(initial=0) > POINTS:
        yield "drawn anew it is another drawing"


COMPARE: dict[str, Callable[[Path, Path], Iterator[str]]] = {
    **{".csv": _cells, ".md": _lines, ".png": _pixels, ".svg": _shapes}
}


def check_main(main: pd.DataFrame) -> list[str]:
    """What holds in a main table (`tables.main_table`), in words.

    Raises:
        ReflectRLError: a success rate is above its ceiling or outside its interval, or the oracle misses the ceiling:
            the message names the rows.
    """
    known, oracle = main["ceiling"].notna(), main["variant"] == "oracle"
    outside = (main["ci_low"] > main["success"] + 1e-9) | (main["success"] > main["ci_high"] + 1e-9)
    for wrong, what in (
        (main["success"] > main["ceiling"] + 1e-9, "above the ceiling"),
        (outside, "outside its interval"),
        (oracle & known & ~np.isclose(main["success"], main["ceiling"]), "of the oracle and not at the ceiling"),
    ):
        if wrong.any():
            rows = main.loc[wrong, ["env", "regime", "setting", "horizon", "decoding", "variant", "success"]]
            named = "; ".join(" ".join(filter(None, row)) for row in rows.astype(str).itertuples(index=False))
            raise ReflectRLError(f"success {what}: {named}; the raw episodes or the ceilings are wrong")
    held = [f"{known.sum()} of {len(main)} rates have a ceiling, and none exceeds it"]
    if (oracle & known).any():
        held.append("the oracle reaches the ceiling everywhere")
    chance = main[(main["variant"] == "random") & (main["split"] == HEADLINE["split"])]
    for env, rows in chance.groupby("env"):
        success = rows.loc[rows["setting"] == get(env).headline, "success"].max()
        held.append(f"random play finishes {success:.1%} of the tasks of {env}")
    return held
