"""The project's Snakefile: which notebooks there are for a profile, and which of them an edit concerns."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from reflect_rl.cli.jobs import Job
from reflect_rl.core import paths
from reflect_rl.core.config import DECIDING
from reflect_rl.core.runtime import provenance
from reflect_rl.core.variants import VARIANTS
from reflect_rl.envs import settings
from reflect_rl.envs.registry import get
from reflect_rl.report import results

ROOT = Path(__file__).resolve().parents[2]
TINY = """
envs: [taxi]
seeds: [0]
variants: [random, follow, rl_only, reflect_rl]
taxi:
  data: {trajectories: 100}
  policy: {steps: 40}
  rl: {env_steps: 1000}
"""


def snakemake(project: Path, *options: str) -> list[Job]:
    """The jobs that Snakemake plans or starts in a project's folder."""
    command = [sys.executable, "-m", "reflect_rl.cli.events", "--cores", "2", *options]
    command += ["--rerun-triggers", "mtime", "params", "--scheduler", "greedy"]
    variables = os.environ | {"REFLECT_RL_HOME": str(project)}
    done = subprocess.run(command, cwd=project, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    return [Job(*event["job"]) for event in events if event["event"] == "job_info"]


def planned(project: Path, *options: str) -> set[str]:
    return {job.name.removeprefix("taxi ") for job in snakemake(project, "--dry-run", *options)}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A project with the profile `tiny`, all of whose notebooks are there: none was executed."""
    project = tmp_path_factory.mktemp("project")
    for name in ("reflect_rl", "notebooks"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    (project / "configs").mkdir()
    (project / "configs" / "laptop.yaml").write_text(TINY)
    shutil.copy(ROOT / "pyproject.toml", project)
    text = (ROOT / "Snakefile").read_text()
    command = '"{sys.executable:q} -m reflect_rl execute {notebooks:q}/"'
    assert text.count(command) == 1
    (project / "Snakefile").write_text(text.replace(command, '"echo $MALLOC_TOP_PAD_ > {output:q}; true "'))
    assert len(snakemake(project)) == 7
    return project


def test_a_job_keeps_the_memory_of_freed_tensors(made):
    assert (made / "runs/laptop/taxi/00_quickstart.ipynb").read_text() == f"{2**26}\n"


RL = {"rl_only seed 0: online RL", "reflect_rl seed 0: online RL"}
REPORT = {"taxi: quickstart", "taxi: ablations", "taxi: comparison"}
WARMUP = {"reflect_rl seed 0: warm-up", "reflect_rl seed 0: online RL"}


@pytest.mark.parametrize(
    ("file", "before", "after", "concerns"),
    [
        ("configs/laptop.yaml", "envs:", "# a comment\nenvs:", set()),
        ("configs/laptop.yaml", "trajectories: 100", "trajectories: 90", RL | REPORT | WARMUP | {"seed 0: data"}),
        ("configs/laptop.yaml", "policy: {steps: 40}", "policy: {steps: 50}", REPORT | WARMUP),
        ("configs/laptop.yaml", "env_steps: 1000", "env_steps: 900", RL | REPORT),
        ("reflect_rl/train/objectives.py", "\n    return ", "\n    # a comment\n    return ", set()),
        ("reflect_rl/train/objectives.py", "\n    return ", "\n    return 2 * ", RL | REPORT),
        ("reflect_rl/report/tables.py", "import", "import math\nimport", REPORT - {"taxi: quickstart"}),
        ("reflect_rl/cli/main.py", "import", "import math\nimport", set()),
        ("notebooks/05_curriculum_ablations.ipynb", '"# ', '"# Of ', set()),
        (
            "notebooks/05_curriculum_ablations.ipynb",
            '"profile = ',
            '"PROFILE = ',
            {"taxi: ablations", "taxi: comparison"},
        ),
    ],
)
def test_an_edit_concerns_what_depends_on_it(made, file, before, after, concerns):
    path = made / file
    text, stat = path.read_text(), path.stat()
    assert before in text
    try:
        path.write_text(text.replace(before, after, 1))
        assert planned(made) == concerns
    finally:
        path.write_text(text)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_every_variant_warmup_and_seed_has_its_notebook(tmp_path):
    where = ("--snakefile", str(ROOT / "Snakefile"))
    profile = settings.profile("laptop")
    logs = {job.log for job in snakemake(tmp_path, "--dry-run", *where, "--config", "profile=laptop")}
    for env in profile.envs:
        for regime, variant, seed in profile.runs_of(env):
            place, arm = f"runs/laptop/{env}/{regime}", VARIANTS[variant]
            assert (f"{place}/{variant}/seed{seed}/03_online_rl.log" in logs) == arm.rl
            assert arm.warmup is None or f"{place}/{arm.warmup}/seed{seed}/02_sft_warmup.log" in logs
        for name in ("00_quickstart", "05_curriculum_ablations", "06_baseline_comparison"):
            assert f"runs/laptop/{env}/{name}.log" in logs


def test_every_regime_has_notebooks_of_its_own(made):
    regimes = (
        "  regimes: {paper: {}, more: {grid: {data.negatives: [5]}, seeds: [3], variants: [sft_rl, reflect_rl]}}\n"
    )
    (made / "configs" / "two.yaml").write_text(TINY + regimes)
    jobs = snakemake(made, "--dry-run", "--config", "profile=two")
    assert len({job.log for job in jobs}) == len({job.name for job in jobs}) == len(jobs) == 7 + 5
    logs = {job.log for job in jobs}
    assert {f"runs/two/taxi/{name}.log" for name in ("00_quickstart", "05_curriculum_ablations")} < logs
    for place in ("paper/rl_only/seed0", "paper/reflect_rl/seed0", "more-5/sft_rl/seed3", "more-5/reflect_rl/seed3"):
        assert f"runs/two/taxi/{place}/03_online_rl.log" in logs
    assert "runs/two/taxi/more-5/sft_only/seed3/02_sft_warmup.log" in logs


def test_what_regimes_share_is_made_by_the_first_while_the_others_leave_the_cores(made):
    """The same data and reflector, other policies: on two cores no job waits for another's lock."""
    regimes = "  regimes: {paper: {}, more: {settings: {policy.steps: 60}}}\n"
    (made / "configs" / "shared.yaml").write_text(TINY + regimes)
    text = (made / "Snakefile").read_text()
    try:
        (made / "Snakefile").write_text(
            text.replace('"echo $MALLOC', '"date +%s.%N > {output:q}.begun; sleep 0.2; echo $MALLOC')
        )
        jobs = snakemake(made, "--config", "profile=shared")
    finally:
        (made / "Snakefile").write_text(text)
    assert len(jobs) == 4 + 4 + 3
    for name in ("data/seed0/01_data_generation", "reflect_rl/seed0/02_sft_warmup"):
        first, second = (made / f"runs/shared/taxi/{regime}/{name}" for regime in ("paper", "more"))
        begun = float(second.with_name(f"{second.name}.ipynb.begun").read_text())
        assert begun >= first.with_suffix(".ipynb").stat().st_mtime
    os.utime(made / "runs/shared/taxi/paper/data/seed0/01_data_generation.ipynb")  # no reason to make the others again
    assert not {job for job in planned(made, "--config", "profile=shared") if job.startswith("taxi/more seed 0: data")}


def hold(profile, regime=""):
    """Write results that hold `reflect_rl` of a regime alone, made by today's code."""
    run = settings.load(profile, "taxi", "reflect_rl", 0, regime=regime)
    key = {"env": "taxi", "regime": regime, "variant": "reflect_rl", "seed": 0}
    rows = {name: pd.DataFrame([dict.fromkeys(columns) | key]) for name, columns in results.COLUMNS.items()}
    rows["episodes"] = rows["episodes"].assign(task="any", provenance=get("taxi").source_of("any"))
    entry = {
        "regimes": {regime: {"settings": {"reflect_rl": run.sections(*DECIDING)}, "data_sha256": {}}},
        "code": results.code_of(results.runs_of(settings.profile(profile), "taxi")),
        "provenance": provenance() | {"threads": 1},
        "machines": [],
    }
    results._merge(settings.profile(profile), "taxi", results.Results(**rows), entry)


def test_what_results_hold_is_left_out_where_only_the_rest_is_asked_for(made, monkeypatch):
    """Results that hold `reflect_rl` alone: the other runs are planned, and what they start from."""
    monkeypatch.chdir(made)
    monkeypatch.delenv("REFLECT_RL_HOME", raising=False)
    hold("laptop")
    everything = planned(made, "--forceall")
    monkeypatch.setenv("REFLECT_RL_EXTEND", "1")
    rest = planned(made, "--forceall")
    assert everything - rest == {"reflect_rl seed 0: online RL", "taxi: quickstart"} and rest < everything


def test_what_a_regime_shares_with_one_that_results_hold_it_makes_itself(made, monkeypatch):
    """The same data and reflector: no notebook of the regime that is held is executed for them."""
    monkeypatch.chdir(made)
    monkeypatch.delenv("REFLECT_RL_HOME", raising=False)
    regimes = "  regimes: {paper: {}, more: {settings: {policy.steps: 60}}}\n"
    alone = TINY.replace("random, follow, rl_only, ", "").replace("env_steps: 1000", "env_steps: 2000")
    (made / "configs" / "held.yaml").write_text(alone + regimes)
    monkeypatch.setenv("REFLECT_RL_EXTEND", "1")
    both = planned(made, "--config", "profile=held")
    hold("held", "paper")
    rest = planned(made, "--config", "profile=held")
    assert {job.partition(" ")[0] for job in both - rest} == {"taxi/paper"} and len(both) - len(rest) == 3


def test_one_environment_and_the_tuning_grid(tmp_path):
    where = ("--snakefile", str(ROOT / "Snakefile"), "--config", "profile=study", "env=taxi")
    logs = {job.log for job in snakemake(tmp_path, "tune", "--dry-run", *where)}
    grid = settings.tuning("study", "taxi")
    runs = {
        f"runs/study/tuning/taxi/{regime}/{variant}/seed{seed}/{slug}/notebook.log"
        for _, regime, variant, seed, _, slug in grid
    }
    assert runs < logs and len(runs) == len(grid)
    assert all("/taxi/" in log for log in logs)


def test_the_shell_lines_quote_what_they_are_given(tmp_path):
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(paths.project() / "Snakefile"), "--printshellcmds"]
    command += ["--directory", str(tmp_path), "--dry-run", "--config", "profile=smoke"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    text = done.stdout + done.stderr
    assert "03_online_rl.ipynb -p profile smoke -p env taxi -p variant sft_rl -p seed 0 > " in text
    assert "06_baseline_comparison.ipynb -p profile smoke -p env taxi -p collect true > " in text
