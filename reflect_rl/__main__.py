"""The command line: `python -m reflect_rl --help`."""

import argparse
import sys
from pathlib import Path

from reflect_rl import orchestrate, paths
from reflect_rl.errors import ReflectRLError


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(prog="python -m reflect_rl", description="Reproduce Reflect-RL.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    reproduce = commands.add_parser("reproduce", help="run all notebooks of a profile; continues a stopped run")
    reproduce.set_defaults(run=_reproduce)
    reproduce.add_argument(
        "--forcerun",
        nargs="*",
        metavar="RULE",
        help="execute notebooks again, all or those of these rules; finished training is not repeated",
    )
    tune = commands.add_parser("tune", help="run the tuning grid of a profile and tabulate it")
    tune.set_defaults(run=_tune)
    tuned = commands.add_parser("tuned", help="tabulate the tuning runs that are there")
    tuned.set_defaults(run=_tuned)
    for command in (reproduce, tune, tuned):
        command.add_argument("--profile", default="laptop", help="a file name in configs/ (default: laptop)")
        command.add_argument("--env", default="", help="one environment of the profile (default: all)")

    execute = commands.add_parser("execute", help="execute one notebook with checked parameters")
    execute.set_defaults(run=_execute)
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

    train = commands.add_parser(
        "train",
        help="online RL of one variant and seed, also on several GPUs: "
        "python -m torch.distributed.run --nproc-per-node 4 -m reflect_rl train ...",
    )
    train.set_defaults(run=_train)
    for name, default in (("profile", "laptop"), ("env", "taxi"), ("variant", "reflect_rl"), ("overrides", "")):
        train.add_argument(f"--{name}", default=default, help=f"as in the notebooks (default: {default or 'none'})")
    train.add_argument("--seed", type=int, default=0)

    notebooks = commands.add_parser("notebooks", help="execute notebooks in place with their own defaults")
    notebooks.set_defaults(run=_notebooks)
    notebooks.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK", help="default: all")
    notebooks.add_argument("--check", action="store_true", help="compare with the outputs that are there instead")
    for command in (reproduce, tune, notebooks):
        command.add_argument("--cores", type=_positive, default=2, help="notebooks at a time (default: 2)")
    return top


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _reproduce(arguments: argparse.Namespace) -> None:
    orchestrate.run_graph(arguments.profile, env=arguments.env, cores=arguments.cores, forcerun=arguments.forcerun)
    print(f"tables:  {paths.tables(arguments.profile)}\nfigures: {paths.figures(arguments.profile)}")


def _tune(arguments: argparse.Namespace) -> None:
    orchestrate.config.tuning(
        arguments.profile, arguments.env
    )  # a profile without a grid is refused before anything starts
    orchestrate.run_graph(arguments.profile, env=arguments.env, target="tune", cores=arguments.cores)
    print(f"tables:  {paths.tables(arguments.profile)}")


def _tuned(arguments: argparse.Namespace) -> None:
    from reflect_rl import evaluate  # only this command needs torch

    evaluate.collect_tuning(arguments.profile, arguments.env)


def _execute(arguments: argparse.Namespace) -> None:
    given = {name: orchestrate.parse_value(name, text) for name, text in arguments.parameters}
    orchestrate.execute(arguments.notebook, arguments.output, given)
    print(f"executed: {arguments.output}")


def _train(arguments: argparse.Namespace) -> None:
    from reflect_rl import rl  # only this command needs torch

    run = orchestrate.config.load(
        arguments.profile, arguments.env, arguments.variant, arguments.seed, arguments.overrides
    )
    rl.train(run)
    print(f"trained: {run.run_dir / 'rl'}")


def _notebooks(arguments: argparse.Namespace) -> None:
    orchestrate.run_notebooks(arguments.notebooks, arguments.cores, arguments.check)


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 (a job failed), 2 (bad input) or 130 (interrupted)."""
    arguments = parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except ReflectRLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except orchestrate.JobsFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; the same command continues", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
