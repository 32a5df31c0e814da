"""The jobs of a run as one sees them while it goes on: finished ones, the current ones, and the time that is left."""

import sys
from statistics import fmean
from typing import NamedTuple

from tqdm import tqdm

from reflect_rl.core import paths
from reflect_rl.core.files import read_json, write_json


class JobsFailed(Exception):
    """A notebook or job failed for a reason other than the user's input; the message says where to look."""


class Job(NamedTuple):
    """A job of Snakemake: its rule, what people call it, and its log (relative to the run's home)."""

    rule: str
    name: str
    log: str


class Estimate:
    """How long jobs take: as known from earlier runs, times the pace of this run compared with them.

    The seconds of jobs are kept in `results/<profile>/seconds.json`, by rule and name: those of this home, else those
    that are committed. Of several tries of a job the longest counts, as the others only went on from it.
    """

    def __init__(self, profile: str):
        self._path = paths.results(profile) / "seconds.json"
        found = paths.result_file(profile, self._path.name)
        self._known: dict[str, dict[str, float]] = read_json(found) if found else {}
        self._took = self._expected = 0.0  # by the finished jobs that were known

    def observe(self, job: Job, seconds: float) -> None:
        """Take in how long a finished job took."""
        of_rule = self._known.setdefault(job.rule, {})
        if before := of_rule.get(job.name, 0.0):
            self._took += seconds
            self._expected += before
        of_rule[job.name] = max(round(seconds, 1), before)

    def keep(self) -> None:
        write_json(self._path, self._known)

    def seconds(self, job: Job) -> float | None:
        """Of a job; of an unknown one the mean of its rule, else of all; None where nothing is known."""
        of_rule = self._known.get(job.rule, {})
        alike = of_rule.values() or [seconds for jobs in self._known.values() for seconds in jobs.values()]
        pace = self._took / self._expected if self._expected else 1.0
        return pace * of_rule.get(job.name, fmean(alike)) if alike else None

    def left(self, jobs: list[tuple[Job, float]], cores: int) -> float | None:
        """Seconds until unfinished jobs are done, given with the seconds that they have run."""
        expected = [self.seconds(job) for job, _ in jobs]
        if None in expected:
            return None
        # one that takes longer than expected is taken to need a tenth more
        ahead = [max(whole - ran, 0.1 * ran) for whole, (_, ran) in zip(expected, jobs, strict=True)]
        return max(sum(ahead) / cores, max(ahead, default=0.0))


class Progress:
    """A line for each finished job, and on a terminal a bar below them with the current job and the time left.

    Attributes:
        failures: the jobs that failed.
    """

    def __init__(self, profile: str, jobs: set[Job], cores: int):
        self.failures: list[Job] = []
        self._profile, self._cores, self._total, self._finished = profile, cores, len(jobs), 0
        self._waiting, self._running = set(jobs), {}  # the running ones, by number, with the time of their start
        self._estimate = Estimate(profile)
        form = "{desc} {n_fmt}/{total_fmt} |{bar:10}| {elapsed}{postfix}"
        disable = not sys.stderr.isatty()
        self._bar = tqdm(total=len(jobs), desc=profile, bar_format=form, dynamic_ncols=True, disable=disable)
        self._say(f"{len(jobs)} jobs on {cores} cores, {self._left(now=0.0)}")

    def follow(self, event: dict | None, now: float) -> None:
        """Take in an event of Snakemake, or None where there was none; `now` is in seconds."""
        match event:
            case {"event": "job_info", "id": number}:
                job = Job(*event["job"])
                self._waiting.discard(job)
                self._running[number] = (job, now)
            case {"event": "job_finished", "id": number} if number in self._running:
                job, since = self._running.pop(number)
                self._finished += 1
                self._estimate.observe(job, now - since)
                self._bar.update()
                self._say(f"{job.name}, {tqdm.format_interval(now - since)}; {self._left(now)}")
            case {"event": "job_error", "id": number} if number in self._running:
                job, _ = self._running.pop(number)
                self.failures.append(job)
                self._say(f"{job.name}: failed")
        names = [job.name for job, _ in self._running.values()]  # the first has been at work for longest
        more = f" (+{len(names) - 1})" if names[1:] else ""
        failed = f"{len(self.failures)} failed, " if self.failures else ""
        self._bar.set_postfix_str(f"{failed}{self._left(now)}: {''.join(names[:1])}{more}")

    def close(self) -> None:
        """Remove the bar, and keep the seconds of the finished jobs for the next run."""
        self._bar.close()
        self._estimate.keep()

    def _left(self, now: float) -> str:
        started = [(job, now - since) for job, since in self._running.values()]
        left = self._estimate.left([*started, *((job, 0.0) for job in self._waiting)], self._cores)
        return "time left unknown" if left is None else f"{tqdm.format_interval(left)} left"

    def _say(self, text: str) -> None:
        tqdm.write(f"{self._profile} {self._finished}/{self._total}: {text}", file=sys.stderr)
