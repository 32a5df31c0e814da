"""The identity of a result: the settings and the code that decide it, and the run folder that follows from them.

Code counts by its syntax trees, over everything that a module imports inside its package: an edited loss is another
identity, an edited comment or docstring is none.
"""

import ast
import contextlib
import functools
import inspect
import json
import linecache
import marshal
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from filelock import FileLock

from reflect_rl.core import paths, runtime
from reflect_rl.core.config import Config
from reflect_rl.core.errors import ReflectRLError, unknown
from reflect_rl.core.files import RUN_MARK, write_json, writing

UNHASHED = "reflect_rl.core"  # decides no numbers
PLAIN = int | float | str | tuple  # constants whose text says what they are

# --- code ---


def _is_text(node: Any) -> bool:
    """Whether a statement is a bare string, such as a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _pieces(node: ast.JoinedStr) -> list:
    """The parts of an f-string with neighbouring texts as one, whichever way a Python cuts them."""
    merged: list = []
    for part in node.values:
        if not isinstance(part, ast.Constant):
            merged.append(part)
        elif merged and isinstance(merged[-1], str):
            merged[-1] += part.value
        elif part.value:
            merged.append(part.value)
    return merged


def canonical(node: Any) -> str:
    """A syntax tree as text without docstrings, comments and line numbers, the same in every Python that parses it."""
    if isinstance(node, list):
        return "[" + ",".join(canonical(item) for item in node if not _is_text(item)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.JoinedStr):
        return f"JoinedStr({canonical(_pieces(node))})"
    fields = ((name, value) for name, value in ast.iter_fields(node) if name not in ("kind", "type_comment"))
    parts = [f"{name}={canonical(value)}" for name, value in fields if value is not None and value != []]
    return f"{type(node).__name__}({','.join(parts)})"


@functools.cache
def _parsed(name: str, path: Path, modified: int, size: int) -> tuple[str, frozenset[str]]:
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError) as error:
        raise ReflectRLError(
            f"{path} cannot be read as Python ({error}); mend it, since results depend on it"
        ) from error
    return sha256(canonical(tree).encode()).hexdigest(), frozenset(_imports(tree, name, path))


_LOADED: dict[Path, tuple[Any, tuple[str, frozenset[str]]]] = {}


def _module(name: str, path: Path) -> tuple[str, frozenset[str]]:
    """Hash and imports of a file: as it is now or, where this process has it loaded, as it was first hashed."""
    status = path.stat()
    now = _parsed(name, path, status.st_mtime_ns, status.st_size)
    module = sys.modules.get(name)
    if getattr(module, "__file__", None) != str(path):
        return now
    spec, loaded = _LOADED.get(path, (None, now))
    if spec is not module.__spec__:  # not hashed yet, or loaded again since
        loaded = now
    _LOADED[path] = module.__spec__, loaded
    if loaded[0] != now[0]:
        warnings.warn(f"{name} was edited after it was loaded; restart Python to run the new code", stacklevel=2)
    return loaded


def _find(name: str, root: Path) -> Path | None:
    """The file of a module below the folder that holds its package; None where there is none."""
    base = os.path.join(root, *name.split("."))
    return next((Path(p) for p in (f"{base}.py", f"{base}/__init__.py") if os.path.isfile(p)), None)


def _imports(tree: ast.Module, name: str, path: Path) -> Iterator[str]:
    """Names of the modules that a module may import, at its top or in a function; some are names of no module."""
    package = name.split(".")[: None if path.name == "__init__.py" else -1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join(filter(None, (*parents, node.module)))
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _counts(name: str, path: Path) -> bool:
    """Whether a module can decide numbers: none of `core`, none of the library's `__init__`s (docstrings)."""
    ours = name.split(".")[0] == UNHASHED.split(".")[0]
    return not ours or not (f"{name}.".startswith(f"{UNHASHED}.") or path.name == "__init__.py")


def module_hashes(modules: Iterable[str], root: Path | None = None) -> dict[str, str]:
    """Hashes of these modules and of all that they import inside their packages: dotted name -> hash, sorted.

    Args:
        modules: dotted names.
        root: the folder that holds the packages; by default the one that holds the library.
    """
    root, queue, hashes = root or paths.PACKAGE.parent, [*modules], {}
    for name in queue:
        if _find(name, root) is None:
            raise ReflectRLError(f"no module {name} below {root}, on whose code results depend")
    packages, seen = {name.split(".")[0] for name in queue}, set(queue)
    while queue:
        name = queue.pop()
        path = _find(name, root)
        if path is None or not _counts(name, path):
            continue
        hashes[name], imported = _module(name, path)
        found = {other for other in imported if other.split(".")[0] in packages} - seen
        seen |= found
        queue += found
    return dict(sorted(hashes.items()))


def code_hash(modules: Iterable[str], root: Path | None = None) -> str:
    """One hash of all `module_hashes`."""
    return sha256(repr(module_hashes(modules, root)).encode()).hexdigest()


def code_of_objects(objects: Iterable[Callable]) -> str:
    """Hash of the code behind functions and classes, wherever they were defined.

    Of one from a module these are the `module_hashes` of that module; of one from a notebook cell, the hashes of its
    cell and of the cells of the functions and classes that it names, and the numbers, texts and tuples that it names.
    """
    hashes, modules, queue = {}, set(), [*objects]
    for thing in queue:
        if isinstance(thing, functools.partial):
            given = [*thing.args, *thing.keywords.values()]
            queue += [thing.func, *filter(callable, given)]
            hashes[f"arguments {[value for value in given if isinstance(value, PLAIN)]}"] = ""
            continue
        thing = inspect.unwrap(getattr(thing, "__func__", thing))
        thing = thing if isinstance(thing, FunctionType | type) else type(thing)
        module = sys.modules.get(thing.__module__)
        path = Path(getattr(module, "__file__", None) or "")
        if path.suffix == ".py":
            modules.add(_name_and_root(module, path))
        else:
            _add_cells(thing, hashes, set())
    for root in {root for _, root in modules}:
        hashes |= module_hashes([name for name, parent in modules if parent == root], root)
    return sha256(repr(sorted(hashes.items())).encode()).hexdigest()


def _name_and_root(module: ModuleType, path: Path) -> tuple[str, Path]:
    """A module's dotted name, and the folder that holds its top-level package; a script stands for itself."""
    name = module.__spec__.name if module.__spec__ else path.stem
    return name, path.parents[name.count(".") + (path.name == "__init__.py")]


def _functions(thing: FunctionType | type) -> list[FunctionType]:
    """A function, or the methods of a class and its bases from the same module."""
    if isinstance(thing, FunctionType):
        return [thing]
    classes = (cls for cls in thing.__mro__ if cls.__module__ == thing.__module__)
    members = [member for cls in classes for member in vars(cls).values()]
    found = (inspect.unwrap(getattr(m, "fget", None) or getattr(m, "__func__", m)) for m in members)
    return [member for member in found if isinstance(member, FunctionType)]


def _named(code: CodeType) -> set[str]:
    """The globals and attributes that a code object names, its inner functions included."""
    return set(code.co_names).union(*(_named(c) for c in code.co_consts if isinstance(c, CodeType)))


def _add_cells(thing: FunctionType | type, hashes: dict[str, str], seen: set) -> None:
    for function in _functions(thing):
        code, variables = function.__code__, function.__globals__
        if code in seen:
            continue
        seen.add(code)
        hashes[f"cell {_cell(code)}"] = ""
        for name in sorted(_named(code) & variables.keys()):
            value = variables[name]
            if isinstance(value, FunctionType | type) and value.__module__ == thing.__module__:
                _add_cells(value, hashes, seen)
            elif isinstance(value, PLAIN):
                hashes[f"constant {name}"] = repr(value)


def _cell(code: CodeType) -> str:
    """Hash of the notebook cell that a code object comes from, or of the code itself where no source is known."""
    source = "".join(linecache.getlines(code.co_filename))
    return sha256(canonical(ast.parse(source)).encode() if source else marshal.dumps(code)).hexdigest()


# --- stages ---


@dataclass(frozen=True)
class Stage:
    """A step of a run that is made once and then read.

    Attributes:
        sections: the settings that decide it, where its variant has a use for them.
        modules: the roots of the code that decides it.
        place: the folder above its seed's: `data`, `warmup` or `variant`, the last two by the names of these.
    """

    sections: tuple[str, ...]
    modules: tuple[str, ...]
    place: str


_DATA, _PLAYERS = ("data", "model"), ("data", "model", "reflector", "policy", "rl")
STAGES = {
    "data": Stage(_DATA, ("reflect_rl.train.data",), "data"),
    "reflector": Stage((*_DATA, "reflector"), ("reflect_rl.train.warmup",), "warmup"),
    "policy": Stage((*_DATA, "policy"), ("reflect_rl.train.warmup",), "warmup"),
    "rl": Stage(_PLAYERS, ("reflect_rl.train.rl",), "variant"),
    "evaluation": Stage((*_PLAYERS, "prompted", "evaluation"), ("reflect_rl.evaluate.panels",), "variant"),
    "probes": Stage((), ("reflect_rl.evaluate.probes",), ""),
    "reflections": Stage((*_DATA, "reflector", "evaluation"), ("reflect_rl.evaluate.probes",), "warmup"),
}
WITHOUT_TORCH = ("data", "probes")  # stages whose numbers no number of threads can change


def _stage(config: Config, stage: str) -> Stage:
    """A stage that the variant of a run has; raises ReflectRLError where it has no such stage."""
    if stage not in STAGES:
        raise unknown("stage", stage, STAGES)
    if STAGES[stage].place == "warmup" and config.arm.warmup is None:
        raise ReflectRLError(f"variant {config.variant!r} has no warm-up; choose one that has, such as 'reflect_rl'")
    return STAGES[stage]


def _settings(config: Config, stage: str) -> dict:
    """The settings that decide a stage, as plain JSON; those that its variant has no use for are left out."""
    known, arm = _stage(config, stage), config.arm
    if stage == "probes":  # the same for every variant and seed
        return {"env": config.env, "split": config.evaluation.split, "tasks": config.evaluation.tasks}
    used = {
        "data": bool(arm.warmup or arm.rl) or stage == "data",
        "reflector": arm.reflection and bool(arm.warmup),
        "policy": bool(arm.warmup),
        "rl": arm.rl,
        "prompted": arm.prompted,
    }
    used["model"] = used["data"]
    settings = config.sections(*(name for name in known.sections if used.get(name, True)))
    if known.place == "warmup":
        settings["warmup"] = arm.warmup
    elif known.place == "variant":
        settings["variant"] = config.variant
    return json.loads(json.dumps(settings))


def stage_code(config: Config, stage: str) -> str:
    """Hash of the code that decides a stage: the library's and the environment's."""
    known = _stage(config, stage)
    teacher = ("reflect_rl.train.lm_teacher",) if config.teacher.model and "data" in known.sections else ()
    modules = (*known.modules, *teacher)
    return sha256(f"{code_hash(modules)} {config.env_code}".encode()).hexdigest()[:16]


def _identity(config: Config, stage: str) -> dict:
    threads = {} if stage in WITHOUT_TORCH else {"threads": runtime.threads()}
    return {"settings": _settings(config, stage), "code": stage_code(config, stage)} | threads


def stage_key(config: Config, stage: str) -> str:
    """10 hex digits of the settings, the code and the number of threads that decide a stage."""
    return sha256(json.dumps(_identity(config, stage), sort_keys=True).encode()).hexdigest()[:10]


def stage_dir(config: Config, stage: str) -> Path:
    """Where a stage's products are.

    With other settings or other code it is another folder: nothing is overwritten, and what was made before is found
    again when a change is undone. Variants whose settings for a stage agree share it.
    """
    place, folder = _stage(config, stage).place, paths.runs(config.profile, config.env)
    if place:
        group = {"data": "data", "warmup": config.arm.warmup, "variant": config.variant}[place]
        folder = folder / group / f"seed{config.seed}"
    return folder / f"{stage}-{stage_key(config, stage)}"


@contextlib.contextmanager
def locked_run_dir(config: Config, stage: str) -> Iterator[Path]:
    """Make a stage's folder and hold it: one process at a time, others wait for what it makes.

    `config.json` in it has the settings, the code's hash and the number of threads; `provenance.json` the rest.
    """
    from reflect_rl.core.provenance import provenance  # here, since it imports torch, and a folder's name needs none

    folder = stage_dir(config, stage)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if not (folder / RUN_MARK).exists():
            write_json(folder / "provenance.json", provenance())
            write_json(folder / RUN_MARK, _identity(config, stage))
        yield folder
