"""Jobs through a Slurm of one node, which is started here, killed and resumed."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest

from reflect_rl.core import paths

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel")
missing = [program for program in NEEDED if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(missing), reason=f"no {', '.join(missing)}: apt-get install slurmctld slurmd slurm-client munge"
    ),
    pytest.mark.skipif(
        find_spec("snakemake_executor_plugin_slurm") is None, reason="no executor: pip install -e '.[slurm]'"
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="Slurm's daemons are started as root"),
]
CONF = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(number):
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [server.getsockname()[1] for server in held]
    for server in held:
        server.close()
    return ports


@pytest.fixture
def slurm(tmp_path):
    """A Slurm of one node: the environment in which its commands find it."""
    folder, host = tmp_path / "slurm", socket.gethostname().partition(".")[0]
    for name in ("munge", "state", "spool", "bin"):
        (folder / name).mkdir(parents=True)
    (folder / "munge").chmod(0o700)
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(folder=folder, host=host, ports=free_ports(2)))
    shim = folder / "bin" / "srun"  # a job step is started without the variable that names the file
    shim.write_text(f'#!/bin/sh\nSLURM_CONF={conf} exec {shutil.which("srun")} "$@"\n')
    shim.chmod(0o755)
    env = os.environ | {"SLURM_CONF": str(conf), "PATH": f"{folder}/bin:{os.environ['PATH']}:/usr/sbin"}
    of_munge = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    options = [f"--{option}={folder}/munge/{name}" for option, name in of_munge.items()]
    try:
        for command in (["munged", "--force", *options], ["slurmctld"], ["slurmd"]):
            subprocess.run(command, env=env, check=True, timeout=60)
        deadline = time.monotonic() + 60
        while "idle" not in subprocess.run(["sinfo", "-h", "-o", "%T"], env=env, capture_output=True, text=True).stdout:
            assert time.monotonic() < deadline, (folder / "slurmctld.log").read_text()
            time.sleep(0.5)
        yield env
    finally:
        subprocess.run(["scancel", "--user=root"], env=env, timeout=60, check=False)
        for name in ("slurmd.pid", "slurmctld.pid", "munge/pid"):
            if (folder / name).exists():
                os.kill(int((folder / name).read_text()), signal.SIGTERM)


def queue(env):
    """The states of the jobs that are waiting or running."""
    return subprocess.run(
        ["squeue", "-h", "-o", "%T"], env=env, capture_output=True, text=True, check=True
    ).stdout.split()


def newest(folder):
    """The step of the newest checkpoint of a warm-up, 0 without one."""
    names = [name for _, held, _ in os.walk(folder) for name in held if name.startswith("checkpoint-")]
    return max((int(name.rpartition("-")[2]) for name in names), default=0)


def test_jobs_go_through_slurm_and_one_that_was_killed_goes_on_from_its_checkpoint(slurm, tmp_path):
    home, project = tmp_path / "home", paths.project()
    home.mkdir()
    target = "runs/smoke/taxi/sft_only/seed0/02_sft_warmup.ipynb"  # which needs another job, the data
    command = [sys.executable, "-m", "snakemake", "--profile", str(project / "cluster" / "slurm")]
    command += ["--snakefile", str(project / "Snakefile"), "--directory", str(home), "--config", "profile=smoke"]
    command += ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "2"]
    command += ["--default-resources", "runtime=30", "mem_mb=900", "cpus_per_task=1", "--", target]
    env = slurm | {"REFLECT_RL_HOME": str(home)}
    deadline = time.monotonic() + 300

    def wait(reached, process):
        while not reached():
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.05)

    with (tmp_path / "log").open("w") as log, contextlib.ExitStack() as ended:
        first = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
        ended.callback(first.kill)  # also where the test fails
        wait(lambda: newest(home) >= 200, first)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        subprocess.run(["scancel", "--user=root", "--signal=KILL", "--full"], env=slurm, check=False)
        subprocess.run(["scancel", "--user=root"], env=slurm, check=True)
        while queue(slurm):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        kept = newest(home)
        assert kept >= 200 and not (home / target).exists()
        subprocess.run([*command[:3], "--unlock", *command[3:]], env=env, stdout=log, stderr=log, check=True)
        again, seen = subprocess.Popen(command, env=env, stdout=log, stderr=log), set()
        ended.callback(again.kill)
        while again.poll() is None:
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            seen.add(newest(home))
            time.sleep(0.05)
    assert again.returncode == 0, (tmp_path / "log").read_text()
    assert (home / target).exists() and min(seen - {0}) >= kept
