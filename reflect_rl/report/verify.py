"""Whether committed results are what the pipeline makes of the committed raw episodes, and can be true."""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import matplotlib.image
import numpy as np
import pandas as pd

from reflect_rl.core import paths
from reflect_rl.core.config import Config
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs import settings
from reflect_rl.envs.registry import get, names
from reflect_rl.report import watch
from reflect_rl.report.raw import CHECKSUMS, COLUMNS, FILES, RUN, checksums, collected, read_rows, read_text_csv
from reflect_rl.report.replay import changed_settings, home_of_its_own
from reflect_rl.report.results import deciding, runs_of
from reflect_rl.report.tables import HEADLINE
from reflect_rl.report.tuning import choose, tuning_results
from reflect_rl.report.write import write_profile

NUMBER = re.compile(r"[-+]?\d+(?:,\d{3})*(?:\.\d+)?")
DIGIT = 1.01e-4  # by which a number of a CSV may differ: one in the last digit that `tables.write_table` keeps
TILE, SHADE, SHARE = 8, 0.1, 0.5  # a picture differs where more than this share of a square of pixels has another shade
POINTS = 0.01  # by which coordinates of a drawing may differ
COORDINATES = re.compile(r'(?<=[ <])(?:d|x|y|x1|x2|y1|y2|width|height|transform|viewBox)="[^"]*"')
HASHED = re.compile(r"\b[a-z][0-9a-f]{10}\b")  # ids that hash exact coordinates
BESIDE_TABLES = {*FILES.values(), CHECKSUMS, "tuning.csv", "report.html"}  # and all that is JSON
EPISODE = ("variant", "seed", "task", "decoding")  # by which a kept episode and its raw row are the same


class Finding(NamedTuple):
    """Something that is not as it should be."""

    file: str  #: relative to the project
    what: str


def committed() -> list[str]:
    """The profiles whose results lie in the project, the one with most of them first, since it takes longest to check."""
    sizes = {
        manifest.parent.name: sum(file.stat().st_size for file in manifest.parent.iterdir())
        for manifest in (paths.project() / "results").glob("*/manifest.json")
    }
    return sorted(sizes, key=lambda name: (-sizes[name], name))


def verify_each(profile_names: Sequence[str], processes: int) -> Iterator[tuple[str, list[Finding]]]:
    """Each profile with what is wrong with its results (`verify`), several checked at a time."""
    with ProcessPoolExecutor(processes) as pool:
        yield from zip(profile_names, pool.map(verify, profile_names), strict=True)


def verify(profile_name: str) -> list[Finding]:
    """What is wrong with a profile's committed results, nothing where they are in order: runs that are missing, not whole or
    of other settings than the profile's; raw rows, and kept episodes, that are not those that were collected; each cell of a
    table, and each figure, that comes out otherwise when it is made from the raw rows; rates that cannot be true.

    Numbers with a decimal point may differ by one in their last digit, as processors round them differently. Checksums tell
    of accidents: one who changes a row can write a new checksum, and only the project's history tells.

    Raises:
        ReflectRLError: there is no such profile.
    """
    settings.profile(profile_name)
    found = []
    with home_of_its_own():  # so that nothing but what is committed is read
        for check in (of_runs, of_rows, of_episodes, of_products):
            try:
                found += check(profile_name)
            except ReflectRLError as error:
                found.append(Finding(f"results/{profile_name}", str(error)))
    return found


def _episodes(profile_name: str) -> pd.DataFrame:
    return read_rows(paths.project() / "results" / profile_name / FILES["episodes"], COLUMNS["episodes"])


def of_runs(profile_name: str) -> Iterator[Finding]:
    """The runs of a profile that its results lack, or have in part, or with other settings."""
    manifest, known = f"results/{profile_name}/manifest.json", collected(profile_name)
    file, profile = f"results/{profile_name}/{FILES['episodes']}", settings.profile(profile_name)
    have = _episodes(profile_name).groupby(RUN).size().to_dict()
    for env in known.keys() - {*profile.envs}:
        yield Finding(manifest, f"results of {env}, which the profile does not run")
    for env in (env for env in profile.envs if env in names()):
        if env not in known:
            yield Finding(manifest, f"no results of {env}")
            continue
        told = set()
        for run in runs_of(profile, env):
            name = " ".join(filter(None, (env, run.regime, run.variant)))
            number, whole = have.get((env, run.regime, run.variant, run.seed), 0), _episodes_of(run)
            if number != whole:
                yield Finding(file, f"{number} of {whole} episodes of {name} seed {run.seed}")
            if number and name not in told:
                told.add(name)
                made = known[env][1]["regimes"].get(run.regime, {}).get("settings", {}).get(run.variant, {})
                if changed := {*changed_settings(made, run)} | (deciding(run).keys() - made.keys()):
                    yield Finding(manifest, f"{name} was made with other settings: {', '.join(sorted(changed))}")


def _episodes_of(run: Config) -> int:
    """How many episodes an evaluation of a run has (`panels.evaluate`)."""
    spec, panel, acts = get(run.env), run.evaluation, not (run.arm.scripted or run.variant == "follow")
    tasks = sum(len(spec.panel(setting, panel.split, panel.tasks)) for setting in spec.settings)
    return tasks * len(panel.horizons) * (panel.repeats * acts + (run.variant != "random"))


def of_rows(profile_name: str) -> Iterator[Finding]:
    """The runs whose raw rows are not those that were collected."""
    folder, file = paths.project() / "results" / profile_name, f"results/{profile_name}/{CHECKSUMS}"
    now, then = checksums(folder), read_text_csv(folder / CHECKSUMS)
    if list(then) != list(now) or then.duplicated(RUN).any():
        yield Finding(file, f"should have one row a run and the columns {', '.join(now)}")
        return
    then, now = then.set_index(RUN), now.set_index(RUN)
    for run in then.index.union(now.index, sort=False):
        for name, raw in FILES.items():
            was, is_now = (rows[name].get(run, "") for rows in (then, now))
            if was != is_now:
                what = "are missing" if not is_now else "were not collected" if not was else "are not those collected"
                *of, seed = run
                place = " ".join(filter(None, [*of, f"seed {seed}" if seed else ""]))
                yield Finding(f"results/{profile_name}/{raw}", f"rows of {place} {what}")


def of_episodes(profile_name: str) -> Iterator[Finding]:
    """The kept episodes that are no episodes of the raw rows."""
    profile, rows = settings.profile(profile_name), _episodes(profile_name)
    known = {*rows[["env", "regime", *EPISODE, "success", "ended", "steps"]].itertuples(index=False, name=None)}
    for env in (env for env in profile.envs if env in collected(profile_name)):
        for regime in profile.regimes_of(env):
            for one in watch.kept(profile_name, profile.stem(env, regime)):
                played = int(one["success"]), one["ended"], len(one["frames"]) - 1
                if (env, regime, *(one[name] for name in EPISODE), *played) not in known:
                    file = watch.file_of(Path("results") / profile_name, profile.stem(env, regime)).as_posix()
                    yield Finding(file, f"{one['variant']} seed {one['seed']} on {one['task']} is not in the raw rows")


def of_products(profile_name: str) -> Iterator[Finding]:
    """The cells of tables, and the figures, that come out otherwise when they are made from the raw rows, in a home of its own,
    what is made by nothing, and rates that cannot be true."""
    write_profile(profile_name, [env for env in settings.profile(profile_name).envs if env in collected(profile_name)])
    for kind in ("results", "figures"):
        made, there = (home / kind / profile_name for home in (paths.home(), paths.project()))
        for file in sorted({path.relative_to(of) for of in (made, there) for path in of.rglob("*") if path.is_file()}):
            is_raw = kind == "results" and (file.name in BESIDE_TABLES or file.suffix == ".json" or file.name[0] == ".")
            if not (is_raw and len(file.parts) == 1) or (made / file).exists():
                for what in _differences(there / file, made / file):
                    yield Finding(f"{kind}/{profile_name}/{file.as_posix()}", what)
    tuned = tuning_results(profile_name)
    for row in () if tuned is None else tuned[tuned["chosen"] != choose(tuned)].itertuples():
        yield Finding(f"results/{profile_name}/tuning.csv", f"chosen of {row.variant} {row.overrides}: {row.chosen}")
    check_main(read_rows(paths.tables(profile_name) / "main.csv", ["regime"]))  # what it raises is a finding


def _differences(then: Path, now: Path) -> Iterator[str]:
    if not now.exists():
        yield "is made by nothing"
    elif not then.exists():
        yield "is missing"
    elif then.read_bytes() != now.read_bytes():
        try:
            yield from COMPARE[then.suffix](then, now)
        except (ReflectRLError, OSError, SyntaxError, ValueError) as error:
            yield f"cannot be read: {error}"


def alike(one: str, other: str) -> bool:
    """Whether two texts are the same but for numbers with a decimal point that differ by one in their last digit."""
    if NUMBER.sub("0", one) != NUMBER.sub("0", other):
        return False
    for a, b in zip(NUMBER.findall(one), NUMBER.findall(other), strict=True):
        digits = max(len(number.partition(".")[2]) for number in (a, b))
        if abs(float(a.replace(",", "")) - float(b.replace(",", ""))) > 1.01 * 10**-digits * (digits > 0):
            return False
    return True


def alike_cells(one: str, other: str) -> bool:
    """The same of two cells of a CSV, whose numbers end without zeros."""
    if NUMBER.fullmatch(one) and NUMBER.fullmatch(other):
        return one == other or "." in one + other and abs(float(one) - float(other)) <= DIGIT
    return alike(one, other)


def _cells(then: Path, now: Path) -> Iterator[str]:
    old, new = read_text_csv(then), read_text_csv(now)
    if list(old) != list(new) or len(old) != len(new):
        yield f"{len(old)} rows of {', '.join(old)}; made anew {len(new)} of {', '.join(new)}"
        return
    for (i, was), (_, is_now) in zip(old.iterrows(), new.iterrows(), strict=True):
        row = " ".join(value for value in is_now if value and not NUMBER.fullmatch(value))[:80]
        for column in old:
            if not alike_cells(was[column], is_now[column]):
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
    if old.shape != new.shape or _most_changed(old, new) > SHARE:
        yield "drawn anew it looks different"


def _most_changed(old: np.ndarray, new: np.ndarray) -> float:
    """The largest share of a square of pixels that has another shade, of two pictures `(height, width, channels)`."""
    changed = np.abs(old - new).max(axis=-1) > SHADE
    changed = np.pad(changed, [(0, -size % TILE) for size in changed.shape])
    height, width = (size // TILE for size in changed.shape)
    return float(changed.reshape(height, TILE, width, TILE).mean(axis=(1, 3)).max())


def _shapes(then: Path, now: Path) -> Iterator[str]:
    old, new = (path.read_text() for path in (then, now))
    places = [[float(n) for place in COORDINATES.findall(text) for n in NUMBER.findall(place)] for text in (old, new)]
    is_same = _without_places(old) == _without_places(new) and len(places[0]) == len(places[1])
    if not is_same or np.abs(np.subtract(*places)).max(initial=0) > POINTS:
        yield "drawn anew it is another drawing"


def _without_places(drawing: str) -> str:
    """An SVG without coordinates, its hashed ids replaced by the order in which they first stand."""
    order = {name: f"id{i}" for i, name in enumerate(dict.fromkeys(HASHED.findall(drawing)))}
    shapes = COORDINATES.sub(lambda place: NUMBER.sub("0", place[0]), drawing)
    return HASHED.sub(lambda name: order[name[0]], shapes)


COMPARE = {".csv": _cells, ".md": _lines, ".png": _pixels, ".svg": _shapes}


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
