"""The jobs of a run as one sees them while it goes on: finished ones, the current ones, and the time that is left."""

import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean

import pandas as pd
from tqdm import tqdm

from reflect_rl.core import files, paths

FILE = "seconds.csv"
KIND = ["rule", "env", "variant"]
Kind = tuple[str, str, str]  # rule, environment, variant: jobs that take about as long as each other


class JobsFailed(Exception):
    """A notebook or job failed for a reason other than the user's input; the message says where to look."""


@dataclass(frozen=True)
class Job:
    """A job of Snakemake: what people call it, its kind, its seed and its log (relative to the run's home)."""

    name: str
    kind: Kind
    seed: str = ""
    log: str = ""


def known_seconds(profile: str) -> dict[Kind, float]:
    """Mean seconds of each kind of job: what this machine has seen, else what is committed with the results.

    Of several tries of one job the longest counts: the others went on from what was there.
    """
    known: dict[Kind, float] = {}
    for folder in (paths.project() / "results" / profile, paths.home() / "runs" / profile):
        if (folder / FILE).is_file():
            rows = pd.read_csv(folder / FILE, dtype=str, keep_default_na=False)
            rows["seconds"] = pd.to_numeric(rows["seconds"], errors="coerce")  # a killed run may leave half a line
            longest = rows.groupby([*KIND, "seed"])["seconds"].max()
            known |= longest.groupby(KIND).mean().dropna().to_dict()
    return known


def record_seconds(profile: str, job: Job, seconds: float) -> None:
    """Add a line on a finished job to `runs/<profile>/seconds.csv`."""
    path = paths.home() / "runs" / profile / FILE
    row = pd.DataFrame([[*job.kind, job.seed, f"{seconds:.1f}"]], columns=[*KIND, "seed", "seconds"])
    with files.writing(path):
        row.to_csv(path, mode="a", index=False, header=not path.exists(), lineterminator="\n")


def keep_seconds(profile: str) -> None:
    """Write the known means to `results/<profile>/seconds.csv`, where the next machine looks for them."""
    rows = [[*kind, "", f"{seconds:.1f}"] for kind, seconds in sorted(known_seconds(profile).items())]
    files.write_csv(paths.results(profile) / FILE, pd.DataFrame(rows, columns=[*KIND, "seed", "seconds"]))


class Estimate:
    """How long jobs take: as known from earlier runs, scaled by what this run has shown."""

    def __init__(self, known: dict[Kind, float]):
        self._known = known
        self._seen: dict[Kind, list[float]] = defaultdict(list)

    def observe(self, kind: Kind, seconds: float) -> None:
        self._seen[kind].append(seconds)

    def seconds(self, kind: Kind) -> float | None:
        """Of a job of this kind; of an unknown kind the mean of its rule, else of all; None where nothing is known."""
        both = [(took, self._known[k]) for k, times in self._seen.items() for took in times if k in self._known]
        scale = sum(took for took, _ in both) / (sum(known for _, known in both) or 1.0) if both else 1.0
        expected = {k: scale * known for k, known in self._known.items()}
        expected |= {k: fmean(times) for k, times in self._seen.items()}
        if kind in expected:
            return expected[kind]
        of_rule = [value for (rule, *_), value in expected.items() if rule == kind[0]]
        return fmean(of_rule or expected.values()) if expected else None

    def left(self, waiting: list[Kind], running: list[tuple[Kind, float]], cores: int) -> float | None:
        """Seconds until all is done, given the waiting jobs and the running ones with the seconds they have run."""
        expected = [self.seconds(kind) for kind in (*waiting, *(kind for kind, _ in running))]
        if None in expected:
            return None
        ran = [0.0] * len(waiting) + [seconds for _, seconds in running]
        # one that takes longer than expected is taken to need a tenth more
        ahead = [max(whole - part, 0.1 * part) for whole, part in zip(expected, ran, strict=True)]
        return max(sum(ahead) / cores, max(ahead, default=0.0))


def in_words(seconds: float) -> str:
    """A time in words: `40 s`, `12 min` or `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


class Progress:
    """A bar on a terminal, else a line for each finished job.

    Attributes:
        failures: the jobs that failed.
    """

    def __init__(self, profile: str, jobs: set[Job], cores: int):
        self.failures: list[Job] = []
        self._profile, self._cores, self._total = profile, cores, len(jobs)
        self._waiting, self._running = set(jobs), {}
        self._estimate = Estimate(known_seconds(profile))
        self._terminal = sys.stderr.isatty()
        form = "{desc} {n_fmt}/{total_fmt} |{bar:10}| {elapsed}{postfix}"
        self._bar = tqdm(total=len(jobs), desc=profile, bar_format=form, dynamic_ncols=True, disable=not self._terminal)
        self._say(f"{len(jobs)} jobs on {cores} cores, {self._left(time.time())}")

    def started(self, number: int, job: Job, now: float) -> None:
        self._waiting.discard(job)
        self._running[number] = (job, now)

    def finished(self, number: int, now: float) -> None:
        if number in self._running:
            job, since = self._running.pop(number)
            self._estimate.observe(job.kind, now - since)
            record_seconds(self._profile, job, now - since)
            self._bar.update()
            self._say(f"{job.name}, {in_words(now - since)}; {self._left(now)}")

    def failed(self, number: int) -> None:
        if number in self._running:
            job, _ = self._running.pop(number)
            self.failures.append(job)
            self._say(f"{job.name}: failed")

    def show(self, now: float) -> None:
        """Bring the bar up to date: failures, the time left, and the job that has been at work for longest."""
        failed = f"{len(self.failures)} failed, " if self.failures else ""
        names = [job.name for job, _ in self._running.values()]
        more = f" (+{len(names) - 1})" if names[1:] else ""
        self._bar.set_postfix_str(f"{failed}{self._left(now)}: {''.join(names[:1])}{more}")

    def close(self) -> None:
        self._bar.close()

    def _left(self, now: float) -> str:
        running = [(job.kind, now - since) for job, since in self._running.values()]
        left = self._estimate.left([job.kind for job in self._waiting], running, self._cores)
        return "time left unknown" if left is None else f"{in_words(left)} left"

    def _say(self, text: str) -> None:
        if not self._terminal:
            done = self._total - len(self._waiting) - len(self._running) - len(self.failures)
            print(f"{self._profile} {done}/{self._total}: {text}", file=sys.stderr, flush=True)
