"""The identity of a result: the settings and the code that decide it, and the run folder that follows from them."""

import ast
import contextlib
import dis
import functools
import inspect
import json
import linecache
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from importlib.util import resolve_name
from pathlib import Path
from types import CellType, CodeType, FunctionType, MappingProxyType, ModuleType
from typing import Any, NamedTuple

from filelock import FileLock

from reflect_rl.core import paths
from reflect_rl.core.config import Config, threads
from reflect_rl.core.errors import ReflectRLError, unknown
from reflect_rl.core.files import RUN_MARK, write_json, writing
from reflect_rl.core.variants import Variant

PLAIN = int | float | str | tuple  # constants whose text says what they are


def canonical(node: Any) -> str:
    """A syntax tree as text without docstrings, comments and line numbers, the same in every Python that parses it."""
    match node:
        case ast.Expr(value=ast.Constant(value=str())):  # a docstring
            return ""
        case ast.JoinedStr():  # Pythons differ in how they cut the text of an f-string
            parts = (part.value if isinstance(part, ast.Constant) else f"\0{canonical(part)}\0" for part in node.values)
            return f"f{''.join(parts)!r}"
        case ast.AST():
            fields = [f"{name}={canonical(value)}" for name, value in ast.iter_fields(node) if value not in (None, [])]
            return f"{type(node).__name__}({','.join(fields)})"
        case list():
            return f"[{','.join(filter(None, map(canonical, node)))}]"
    return repr(node)


def _find(name: str, root: Path) -> Path | None:
    """The file of a module below the folder that holds its package; None where there is none."""
    base = root.joinpath(*name.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def _is_users(path: Path) -> bool:
    """Whether a file holds the user's own code, and not the library's, Python's or that of an installed package."""
    others = any(path.is_relative_to(folder) for folder in (paths.PACKAGE, sysconfig.get_path("stdlib")))
    return path.suffix == ".py" and not others and {"site-packages", "dist-packages"}.isdisjoint(path.parts)


@functools.cache
def _parsed(name: str, path: Path, root: Path, modified: int) -> tuple[str, set[str]]:
    """Hash of a file, and the modules that it imports, at its top or in a function, from its package or from beside it."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError) as error:
        raise ReflectRLError(f"{path} cannot be read as Python ({error}); mend it: results depend on it") from error
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            imported |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    near = {other: file for other in imported if (file := _find(other, root))}
    own = {other for other, file in near.items() if other.split(".")[0] == name.split(".")[0] or _is_users(file)}
    return sha256(canonical(tree).encode()).hexdigest(), own


def module_hashes(
    modules: Iterable[str], root: Path = paths.PACKAGE.parent, unused: Iterable[str] = ()
) -> dict[str, str]:
    """Hashes of modules and of all that they import of their packages, and of the user's own, below `root`: sorted.

    The library's `core` and its `__init__`s, which hold docstrings, decide no numbers and are left out, as are the
    `unused` modules and what only they import. What this process has loaded counts as it was when first asked for.
    """
    queue, hashes = [*modules], {}
    for name in queue:  # which grows on the way
        path, ours = _find(name, root), name.split(".")[0] == "reflect_rl"
        if path is None:
            raise ReflectRLError(f"no module {name} below {root}, on whose code results depend")
        if ours and (name.startswith("reflect_rl.core.") or path.name == "__init__.py"):
            continue
        module, now = sys.modules.get(name), _parsed(name, path, root, path.stat().st_mtime_ns)
        is_loaded = getattr(module, "__file__", None) == str(path)
        known = vars(module.__spec__).setdefault("as_loaded", now) if is_loaded else now  # a reload brings a new spec
        if known != now:
            warnings.warn(f"{name} was edited after it was loaded; restart Python to run it anew", stacklevel=2)
        hashes[name], imported = known
        queue += imported.difference(queue, unused)
    return dict(sorted(hashes.items()))


def code_hash(modules: Iterable[str], root: Path = paths.PACKAGE.parent, unused: Iterable[str] = ()) -> str:
    """One hash of all `module_hashes`."""
    return sha256(repr(module_hashes(modules, root, unused)).encode()).hexdigest()


def code_of_objects(objects: Iterable[Callable]) -> str:
    """Hash of the code behind functions and classes, wherever they were defined.

    Of one from a module: its `module_hashes`. Of one from a notebook: its cell, and all that it names, as it is now: texts,
    numbers and collections of them, and what is defined in the notebook or in modules that are not installed. Of either:
    what it encloses, or the attributes that an object has.
    """
    found: set[str] = set()
    queue = [*objects]
    for thing in queue:  # which grows on the way
        if isinstance(thing, functools.partial):
            given = (*thing.args, *thing.keywords.values())
            found.add(f"arguments {[value for value in given if isinstance(value, PLAIN)]}")
            queue += [thing.func, *filter(callable, given)]
            continue
        used: list[tuple[str, Any]] = [("self", thing.__self__)] if inspect.ismethod(thing) else []
        thing = inspect.unwrap(getattr(thing, "__func__", thing))
        if isinstance(thing, FunctionType):
            cells = enumerate(thing.__closure__ or ())
            used += [(str(i), cell.cell_contents) for i, cell in cells if cell != CellType()]  # which is an empty one
        elif not isinstance(thing, type | ModuleType):
            used += getattr(thing, "__dict__", {}).items()
            thing = type(thing)
        module = thing if isinstance(thing, ModuleType) else sys.modules.get(thing.__module__)
        path = Path(getattr(module, "__file__", None) or "")
        if path.suffix == ".py":
            name = module.__spec__.name if module.__spec__ else path.stem  # a script stands for itself
            hashes = module_hashes([name], path.parents[name.count(".") + (path.name == "__init__.py")])
            found |= {f"module {name} {code}" for name, code in hashes.items()}
        else:
            found.update(map(_source, _functions(thing)))
            used += _named(thing)
        others: list[Any] = []
        found |= {f"constant {name} {_text(value, others)}" for name, value in used}
        own = (other for other in others if _is_own(other, module))
        queue += [other for other in own if not any(other is each for each in queue)]
    return sha256(repr(sorted(found)).encode()).hexdigest()


def _is_own(value: Any, notebook: ModuleType | None) -> bool:
    """Whether something is defined in a notebook, or in a module that is neither installed nor the library's."""
    value = value.func if isinstance(value, functools.partial) else value
    module = value if isinstance(value, ModuleType) else sys.modules.get(getattr(value, "__module__", None))
    return module is not None and (module is notebook or _is_users(Path(getattr(module, "__file__", None) or "")))


def _functions(thing: FunctionType | type) -> list[FunctionType]:
    """A function, or the methods of a class and of its bases from the same module."""
    members = [member for cls in _classes(thing) for member in vars(cls).values()] or [thing]
    found = (inspect.unwrap(getattr(m, "fget", None) or getattr(m, "__func__", m)) for m in members)
    return [function for function in found if isinstance(function, FunctionType)]


def _classes(thing: FunctionType | type) -> list[type]:
    """A class and its bases from the same module; none of a function."""
    return [cls for cls in getattr(thing, "__mro__", ()) if cls.__module__ == thing.__module__]


def _source(function: FunctionType) -> str:
    """The cell that a function comes from; what was compiled of one that no cell holds, such as made by `exec`."""
    code = function.__code__
    cell = "".join(linecache.getlines(code.co_filename))
    compiled = code.co_code, code.co_names, [value for value in code.co_consts if isinstance(value, PLAIN)]
    return canonical(ast.parse(cell)) if cell else repr(compiled)


def _named(thing: FunctionType | type) -> list[tuple[str, Any]]:
    """The globals that a function or the methods of a class name, their defaults, and the attributes of the class."""
    named = [item for cls in _classes(thing) for item in vars(cls).items() if not item[0].startswith("__")]
    for function in _functions(thing):
        names = sorted(_names(function.__code__) & function.__globals__.keys())
        named += [(name, function.__globals__[name]) for name in names]
        named += [("default", function.__defaults__), ("default", function.__kwdefaults__)]
    return named


def _names(code: CodeType) -> set[str]:
    """The globals that a code object names, its inner functions included."""
    names = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return names.union(*(_names(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


def _text(value: Any, others: list) -> str:
    """Texts, numbers and collections as text, the same in every process; what else is in them goes to `others`."""
    match value:
        case dict() | MappingProxyType():
            return f"{{{','.join(f'{_text(key, others)}:{_text(item, others)}' for key, item in value.items())}}}"
        case list() | tuple():
            return f"[{','.join(_text(item, others) for item in value)}]"
        case set() | frozenset():
            return f"{{{','.join(sorted(_text(item, others) for item in value))}}}"
        case int() | float() | str() | bytes() | None:
            return repr(value)
    if hasattr(value, "tolist") and not isinstance(value, type):  # an array
        return _text(value.tolist(), others)
    others.append(value)
    return ""


class Stage(NamedTuple):
    """A step of a run that is made once and then read."""

    sections: tuple[str, ...]  #: the settings that decide it, where its variant has a use for them
    modules: tuple[str, ...]  #: the roots of the code that decides it
    group: str  #: whose it is: `data`, or that of the `{warmup}` or `{variant}`; empty where of no seed either


OF_POLICY = ("target", "policy_draw", "policy_examples")  # settings of the data that decide nothing else
OF_REFLECTOR = ("reflector_learning_rate", "reflector_kl")  # settings of RL, where it trains the reflector
_DATA, _PLAYERS = ("data", "model"), ("data", "model", "reflector", "policy", "rl")
STAGES = {
    "data": Stage(_DATA, ("reflect_rl.train.data",), "data"),
    "reflector": Stage((*_DATA, "reflector"), ("reflect_rl.train.warmup",), "{warmup}"),
    "policy": Stage((*_DATA, "policy"), ("reflect_rl.train.warmup",), "{warmup}"),
    "rl": Stage(_PLAYERS, ("reflect_rl.train.rl",), "{variant}"),
    "evaluation": Stage((*_PLAYERS, "prompted", "evaluation"), ("reflect_rl.evaluate.panels",), "{variant}"),
    "probes": Stage((), ("reflect_rl.evaluate.probes",), ""),
    "reflections": Stage((*_DATA, "reflector", "evaluation"), ("reflect_rl.evaluate.probes",), "{warmup}"),
}


def _stage(config: Config, stage: str) -> Stage:
    """A stage that the variant of a run has; raises ReflectRLError where it has no such stage."""
    if stage not in STAGES:
        raise unknown("stage", stage, STAGES)
    if STAGES[stage].group == "{warmup}" and config.arm.warmup is None:
        raise ReflectRLError(f"variant {config.variant!r} has no warm-up; choose one that has, such as 'reflect_rl'")
    return STAGES[stage]


def _identity(config: Config, stage: str) -> dict:
    """What decides a stage: settings (those that its variant has a use for), hash of the code, number of threads."""
    known, arm = _stage(config, stage), config.arm
    learns = bool(arm.warmup or arm.rl) or stage == "data"
    used = {"data": learns, "model": learns, "policy": bool(arm.warmup), "rl": arm.rl, "prompted": arm.prompted}
    used["reflector"] = arm.reflection and bool(arm.warmup)
    settings = config.sections(*(name for name in known.sections if used.get(name, True)))
    for section, names in _without_use(arm, stage).items():
        if section in settings:
            settings[section] = {key: value for key, value in settings[section].items() if key not in names}
    if arm.scores_texts and stage == "policy":  # the others name their arm, or do not depend on it
        settings["scores_texts"] = True
    settings["group"] = known.group.format(warmup=arm.warmup, variant=config.variant)
    if known.group == "{variant}":
        settings["arm"] = arm.deciding()
    if stage == "probes":
        settings = {"env": config.env, "split": config.evaluation.split, "tasks": config.evaluation.tasks, "group": ""}
    identity = {"settings": settings, "code": stage_code(config, stage)}
    return identity if stage in ("data", "probes") else identity | {"threads": threads()}  # these two need no torch


def _without_use(arm: Variant, stage: str) -> dict[str, tuple[str, ...]]:
    """The settings, by section, that decide nothing of a variant's stage."""
    before = stage in ("data", "reflector", "reflections")  # the policy
    return {
        "data": OF_POLICY if before else (),
        "model": () if arm.scores_texts and stage in ("rl", "evaluation") else ("normalisation",),
        "rl": () if arm.trains_reflector else OF_REFLECTOR,
    }


def stage_code(config: Config, stage: str) -> str:
    """Hash of the code that decides a stage: the library's and the environment's."""
    known, arm = _stage(config, stage), config.arm
    teacher = ("reflect_rl.train.lm_teacher",) if config.teacher.model and "data" in known.sections else ()
    unused = [] if arm.rl else ["reflect_rl.train.rl"]  # what an evaluation would call for other variants
    unused += [] if arm.prompted else ["reflect_rl.evaluate.prompted"]
    unused = unused if stage == "evaluation" else []
    code = code_hash((*known.modules, *teacher), unused=unused)
    return sha256(f"{code} {config.env_code}".encode()).hexdigest()[:16]


def stage_key(config: Config, stage: str) -> str:
    """10 hex digits of the settings, the code and the number of threads that decide a stage."""
    return _key(_identity(config, stage))


def _key(identity: dict) -> str:
    return sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]


def stage_dir(config: Config, stage: str) -> Path:
    """Where a stage's products are: other settings or code, another folder; a change undone finds its own."""
    identity = _identity(config, stage)
    group = identity["settings"]["group"]
    folder = paths.runs(config.profile, config.env) / (f"{group}/seed{config.seed}" if group else "")
    return folder / f"{stage}-{_key(identity)}"


@contextlib.contextmanager
def locked_run_dir(config: Config, stage: str) -> Iterator[Path]:
    """Make a stage's folder and hold it, with its identity in `config.json`; other processes wait for what it makes."""
    from reflect_rl.core.runtime import provenance  # here: it takes seconds (torch), and a folder's name needs none

    folder = stage_dir(config, stage)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if not (folder / RUN_MARK).exists():
            write_json(folder / "provenance.json", provenance())
            write_json(folder / RUN_MARK, _identity(config, stage))
        yield folder
