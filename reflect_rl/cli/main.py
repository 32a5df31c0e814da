"""The commands: `python -m reflect_rl --help`.

A command is a function: its docstring is the help, its parameters are `OPTIONS`. It imports what needs torch itself.
"""

import argparse
import inspect
import os
import signal
import sys
from pathlib import Path

from tabulate import tabulate

from reflect_rl.cli import graph, notebooks
from reflect_rl.cli.jobs import JobsFailed
from reflect_rl.core import identity, paths, profiles
from reflect_rl.core.config import meanings
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs import registry, settings
from reflect_rl.envs.check import check


def _reproduce(profile: str, env: str, cores: int, extend: bool, forcerun: list[str] | None) -> None:
    """run all notebooks of a profile; continues a stopped run"""
    if extend:
        os.environ["REFLECT_RL_EXTEND"] = "1"
    graph.run(profile, env=env, cores=cores, forcerun=forcerun)

    from reflect_rl.report.page import write_page

    plan = settings.profile(profile)
    for name in settings.chosen(plan, env):  # what one wants to see first
        stem = plan.stem(name, plan.regimes_of(name)[0])
        print((paths.tables(profile) / f"{stem}_headline.md").read_text())
        print(f"as a figure: {paths.figures(profile) / f'{stem}_main_results.png'}\n")
    print(f"tables:  {paths.tables(profile)}\nfigures: {paths.figures(profile)}\nreport:  {write_page(profile)}")


def _tune(profile: str, env: str, cores: int) -> None:
    """run the tuning grid of a profile and tabulate it; continues a stopped run"""
    settings.tuning(profile, env)  # a profile without a grid is refused before anything starts
    graph.run(profile, env=env, target="tune", cores=cores)

    from reflect_rl.report.tuning import collect_tuning

    collect_tuning(profile, env)
    print(f"tuning: {paths.results(profile) / 'tuning.csv'}")


def _report(profile: str, env: str) -> None:
    """make tables and figures anew from the raw results; nothing is run"""
    from reflect_rl.report.page import write_page
    from reflect_rl.report.write import write_profile

    write_profile(profile, settings.chosen(settings.profile(profile), env))
    print(f"tables:  {paths.tables(profile)}\nfigures: {paths.figures(profile)}\nreport:  {write_page(profile)}")


def _stale(profile: str) -> None:
    """list the results and released weights whose code has changed since"""
    from reflect_rl.report.replay import stale

    found = stale(profile)
    if found.empty:
        raise ReflectRLError(f"profile {profile!r} has no results; `reproduce --profile {profile}` makes them")
    old = found[found["stale"]].drop(columns="stale")
    print(f"{len(old)} of {len(found)} stages of profile {profile} were made by other code than today's")
    if len(old):
        print(old.to_string(index=False))


def _verify(profiles: list[str], cores: int) -> None:
    """make tables, claims and figures of committed results anew from the raw episodes, and name all that differs or is missing"""
    from reflect_rl.report.replay import stale
    from reflect_rl.report.verify import committed, verify_each

    known, wrong = committed(), 0
    for name in {*profiles} - {*known}:
        settings.profile(name)  # which says so where there is none
        made = f"`reproduce --profile {name}` makes them"
        raise ReflectRLError(f"profile {name!r} has no committed results, which {', '.join(known)} have; {made}")
    for name, findings in verify_each(profiles or known, cores):
        of_code = stale(name)
        wrong += len(findings)
        print(f"{name}: {f'{len(findings)} findings' if findings else 'as the raw episodes have it'}", flush=True)
        for finding in findings:
            print(f"  {finding.file}: {finding.what}")
        for env, stages in of_code[of_code["stale"]].groupby("env", sort=False)["stage"]:
            print(f"  made by other code than today's, of {env}: {', '.join(stages)}")
    if wrong:
        raise JobsFailed(f"{wrong} findings; restore what was changed, or make it anew with `report` or `reproduce`")


def _replay(profile: str, env: str, runs: int, accept: bool) -> None:
    """make some runs of a profile anew, the same ones each time, and compare them with its results to the last digit"""
    from reflect_rl.report.replay import accept_replay, agree, replay

    for name in settings.chosen(settings.profile(profile), env):
        found = replay(profile, name, runs, every_variant=accept)
        print(f"{name}: rows that differ from the results of profile {profile}\n{found.to_string(index=False)}")
        if not agree(found):
            raise JobsFailed(
                f"rows of {name} differ; `reproduce --profile {profile} --env {name}` makes all of them anew"
            )
        if accept:
            accept_replay(profile, name, found)
            print("accepted: noted in the manifest")


def _train(profile: str, env: str, regime: str, variant: str, seed: int, overrides: str) -> None:
    """online RL of one variant and seed; on several GPUs: torchrun --nproc-per-node 4 -m reflect_rl train ..."""
    from reflect_rl.train import rl

    config = settings.load(profile, env, variant, seed, overrides, regime)
    rl.train(config)
    print(f"trained: {identity.stage_dir(config, 'rl')}")


def _release(profile: str, env: str, regime: str, variant: str, seed: int) -> None:
    """copy the small weights of one variant and seed, trained now if need be, to weights/, to be committed"""
    from reflect_rl.train.release import release

    print(f"released: {release(settings.load(profile, env, variant, seed, regime=regime))}")


def _settings(profile: str, env: str, regime: str, variant: str, seed: int, overrides: str) -> None:
    """what is in force for one variant and seed, what it means, and where each value comes from"""
    config, means = settings.load(profile, env, variant, seed, overrides, regime), meanings()
    plan = profiles.profile(profile)
    of = [name for name in plan.regimes_of(config.env) if variant in plan.variants_of(config.env, name)]
    if config.regime not in of:
        where = f"{', '.join(of)}, not in {config.regime or 'what is shown here'}" if of else "no regime"
        print(f"note: profile {profile} runs {variant} in {where}", file=sys.stderr)
    rows = [(*row, means[row[0]]) for row in profiles.describe(config)]
    widths = [None, 24, 36, 70]
    print(tabulate(rows, ("setting", "value", "from", "meaning"), "simple", maxcolwidths=widths, disable_numparse=True))


def _execute(notebook: Path, output: Path, given: list[tuple[str, str]]) -> None:
    """execute one notebook with checked parameters"""
    notebooks.execute(notebook, output, {name: notebooks.parse_value(name, text) for name, text in given})
    print(f"executed: {output}")


def _notebooks(chosen: list[Path], compare: bool) -> None:
    """execute notebooks in place with their own defaults; ends at the first that fails"""
    for notebook in chosen or sorted(paths.notebooks().glob("*.ipynb")):
        print(f"{notebook.name}: {notebooks.run_notebook(notebook, compare)}", flush=True)


def _check(name: str) -> None:
    """play a registered environment and say in words what is missing or wrong"""
    check(registry.get(name))
    print(f"{name}: nothing to complain about")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


COMMANDS = (
    _reproduce,
    _tune,
    _report,
    _verify,
    _stale,
    _replay,
    _train,
    _release,
    _settings,
    _execute,
    _notebooks,
    _check,
)
AGAIN = "execute notebooks again, all or those of these rules; finished training is not repeated"
EXTEND = "leave out runs that results of any profile hold, made by today's code with the same settings; no quickstart"
ACCEPT = "one run of each variant at least; where no row differs, results of other code count as made by today's"
GIVEN = "a parameter of the notebook, such as -p seed 1; repeatable"
OPTIONS = {  # what `add_argument` takes for each parameter
    "profile": ("--profile", dict(default="laptop", help="a file name in configs/ (default: laptop)")),
    "env": ("--env", dict(default="", help="an environment (default: all of the profile, or its first for one run)")),
    "regime": ("--regime", dict(default="", help="a regime of the environment (default: its first)")),
    "variant": ("--variant", dict(default="reflect_rl", help="as in the notebooks (default: reflect_rl)")),
    "seed": ("--seed", dict(default=0, type=int, help="as in the notebooks (default: 0)")),
    "overrides": ("--overrides", dict(default="", help='such as "rl.learning_rate=1e-3 rl.entropy=0"')),
    "cores": ("--cores", dict(default=2, type=_positive, help="jobs at a time (default: 2)")),
    "extend": ("--extend", dict(action="store_true", help=EXTEND)),
    "forcerun": ("--forcerun", dict(nargs="*", metavar="RULE", help=AGAIN)),
    "runs": ("--runs", dict(default=3, type=_positive, help="how many (default: 3)")),
    "accept": ("--accept", dict(action="store_true", help=ACCEPT)),
    "notebook": ("notebook", dict(type=Path, help="such as notebooks/00_quickstart.ipynb")),
    "output": ("output", dict(type=Path, help="where the executed copy goes, such as build/my_quickstart.ipynb")),
    "given": ("-p", dict(dest="given", nargs=2, metavar=("NAME", "VALUE"), action="append", default=[], help=GIVEN)),
    "chosen": ("chosen", dict(nargs="*", type=Path, metavar="NOTEBOOK", help="default: all")),
    "profiles": ("profiles", dict(nargs="*", metavar="PROFILE", help="default: all with committed results")),
    "compare": ("--check", dict(dest="compare", action="store_true", help="compare with the outputs that are there")),
    "name": ("name", dict(help="the name that the environment is registered by")),
}


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(prog="python -m reflect_rl", description="Reproduce Reflect-RL.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for run in COMMANDS:
        command = commands.add_parser(run.__name__.strip("_"), help=run.__doc__, description=run.__doc__)
        command.set_defaults(run=run)
        for name in inspect.signature(run).parameters:
            flag, how = OPTIONS[name]
            command.add_argument(flag, **how)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 (a job failed), 2 (bad input) or 130 (interrupted)."""
    arguments = vars(parser().parse_args(argv))
    run = arguments.pop("run")
    try:
        run(**arguments)
    except (ReflectRLError, JobsFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ReflectRLError) else 1
    except BrokenPipeError:  # as of `| head`
        sys.stdout = None
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a further Ctrl-C has nothing left to stop
        print("error: interrupted; the same command continues", file=sys.stderr)
        return 130
    return 0
