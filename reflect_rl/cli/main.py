"""The commands: `python -m reflect_rl --help`. What is heavy is imported by the command that needs it."""

import argparse
import signal
import sys
from pathlib import Path

from reflect_rl.cli.jobs import JobsFailed
from reflect_rl.core import paths
from reflect_rl.core.errors import ReflectRLError


def _say_where(profile: str) -> None:
    print(f"tables:  {paths.tables(profile)}\nfigures: {paths.figures(profile)}")


def _reproduce(arguments: argparse.Namespace) -> None:
    from reflect_rl.cli.graph import run_graph

    run_graph(arguments.profile, env=arguments.env, cores=arguments.cores, forcerun=arguments.forcerun)
    _say_where(arguments.profile)


def _tune(arguments: argparse.Namespace) -> None:
    from reflect_rl.cli.graph import run_graph
    from reflect_rl.envs import settings

    settings.tuning(arguments.profile, arguments.env)  # a profile without a grid is refused before anything starts
    run_graph(arguments.profile, env=arguments.env, target="tune", cores=arguments.cores)
    print(f"tables:  {paths.tables(arguments.profile)}")


def _tuned(arguments: argparse.Namespace) -> None:
    from reflect_rl.report.tuning import collect_tuning

    collect_tuning(arguments.profile, arguments.env)


def _execute(arguments: argparse.Namespace) -> None:
    from reflect_rl.cli.notebooks import execute, parse_value

    given = {name: parse_value(name, text) for name, text in arguments.parameters}
    execute(arguments.notebook, arguments.output, given)
    print(f"executed: {arguments.output}")


def _train(arguments: argparse.Namespace) -> None:
    from reflect_rl.core.identity import stage_dir
    from reflect_rl.train import rl

    config = _config(arguments)
    rl.train(config)
    print(f"trained: {stage_dir(config, 'rl')}")


def _settings(arguments: argparse.Namespace) -> None:
    from tabulate import tabulate

    from reflect_rl.core.profiles import describe

    print(tabulate(describe(_config(arguments)), ("setting", "value", "from"), "simple", disable_numparse=True))


def _config(arguments: argparse.Namespace):
    from reflect_rl.envs import settings

    return settings.load(arguments.profile, arguments.env, arguments.variant, arguments.seed, arguments.overrides)


def _notebooks(arguments: argparse.Namespace) -> None:
    from reflect_rl.cli.notebooks import run_notebooks

    run_notebooks(arguments.notebooks, arguments.check)


def _stale(arguments: argparse.Namespace) -> None:
    from reflect_rl.report.verify import stale

    found = stale(arguments.profile)
    old = found[found["stale"]].drop(columns="stale")
    if found.empty:
        print(f"there are no results of profile {arguments.profile} yet")
    elif old.empty:
        print(f"all results of profile {arguments.profile} were made by today's code")
    else:
        print(old.to_string(index=False))
    if arguments.strict and len(old):
        raise JobsFailed(f"{len(old)} of {len(found)} stages of profile {arguments.profile} were made by other code")


def _report(arguments: argparse.Namespace) -> None:
    from reflect_rl.envs import settings
    from reflect_rl.report.write import write_all

    for env in settings.chosen(settings.profile(arguments.profile), arguments.env):
        write_all(arguments.profile, env)
    _say_where(arguments.profile)


def _check(arguments: argparse.Namespace) -> None:
    from reflect_rl.envs.check import check
    from reflect_rl.envs.registry import get

    check(get(arguments.env))
    print(f"{arguments.env}: nothing to complain about")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(prog="python -m reflect_rl", description="Reproduce Reflect-RL.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(run, summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(run.__name__.strip("_"), help=summary, description=summary)
        added.set_defaults(run=run)
        return added

    reproduce = command(_reproduce, "run all notebooks of a profile; continues a stopped run")
    reproduce.add_argument(
        "--forcerun",
        nargs="*",
        metavar="RULE",
        help="execute notebooks again, all or those of these rules; finished training is not repeated",
    )
    tune = command(_tune, "run the tuning grid of a profile and tabulate it")
    tuned = command(_tuned, "tabulate the tuning runs that are there")
    execute = command(_execute, "execute one notebook with checked parameters")
    execute.add_argument("notebook", type=Path, help="such as notebooks/00_quickstart.ipynb")
    execute.add_argument("output", type=Path, help="where the executed copy goes, such as build/my_quickstart.ipynb")
    execute.add_argument(
        "-p",
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a value for the notebook's parameters cell, such as -p seed 1; repeatable",
    )
    train = command(
        _train,
        "online RL of one variant and seed, also on several GPUs: "
        "python -m torch.distributed.run --nproc-per-node 4 -m reflect_rl train ...",
    )
    notebooks = command(_notebooks, "execute notebooks in place with their own defaults")
    notebooks.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK", help="default: all")
    notebooks.add_argument("--check", action="store_true", help="compare with the outputs that are there instead")
    settings = command(_settings, "what is in force for one variant and seed, and where each value comes from")
    report = command(_report, "make tables and figures anew from the raw results; nothing is run")
    stale = command(_stale, "list the committed results whose code has changed since")
    stale.add_argument("--strict", action="store_true", help="exit with 1 where there are some")
    check = command(_check, "play a registered environment and say in words what is missing or wrong")
    check.add_argument("env", help="its registered name")

    for each in (reproduce, tune, tuned, train, settings, report, stale):
        each.add_argument("--profile", default="laptop", help="a file name in configs/ (default: laptop)")
    for each in (reproduce, tune, tuned, report):
        each.add_argument("--env", default="", help="one environment of the profile (default: all)")
    for each in (train, settings):
        each.add_argument("--env", default="", help="an environment by name (default: the profile's first)")
        each.add_argument("--variant", default="reflect_rl", help="as in the notebooks (default: reflect_rl)")
        each.add_argument("--seed", type=int, default=0, help="as in the notebooks (default: 0)")
        each.add_argument("--overrides", default="", help='such as "rl.learning_rate=1e-3 rl.entropy=0"')
    for each in (reproduce, tune):
        each.add_argument("--cores", type=_positive, default=2, help="jobs at a time (default: 2)")
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 (a job failed), 2 (bad input) or 130 (interrupted)."""
    arguments = parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except ReflectRLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except JobsFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a further Ctrl-C has nothing left to stop
        print("error: interrupted; the same command continues", file=sys.stderr)
        return 130
    return 0
