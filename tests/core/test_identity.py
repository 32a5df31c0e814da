import ast
import dataclasses
import functools
import importlib
import linecache
import multiprocessing
import os
import shutil
import sys
import time
import types
from hashlib import sha256
from pathlib import Path

import pytest

from reflect_rl.core import files, identity, paths
from reflect_rl.core.config import Config, EvaluationConfig, ModelConfig, RLConfig, SFTConfig, TeacherConfig
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.identity import canonical, code_hash, code_of_objects, module_hashes, stage_dir, stage_key

RUN = Config("mine", "game", "reflect_rl", 0)


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text in a file, which must be there; the clock of the file moves on."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1_000_000))


# --- syntax trees ---

SOURCE = '''
"""Doc."""
import os

class A:
    """Doc."""

    x: int = 1

    def f(self, *a, k=None, **kw):
        """Doc."""
        # why
        return [f"a{self.x!r:>{k}}" f"b" "c", {**kw, 1: -0.0}, lambda: ...]
'''


def tree(source):
    return canonical(ast.parse(source))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# why\n", "\n\n  # because\n"),
        ('"""Doc."""', '"""Another."""'),
        ('    """Doc."""\n', ""),
        ("1: -0.0", "1 : - 0.0"),
    ],
)
def test_comments_docstrings_and_blanks_do_not_count(old, new):
    assert old in SOURCE and tree(SOURCE.replace(old, new)) == tree(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("-0.0", "0.0"),
        ("x: int = 1", "x: int = True"),
        ("!r", "!s"),
        ("k=None", "k=0"),
        ("import os", "import sys"),
        ('"c"', '"d"'),
    ],
)
def test_everything_else_counts(old, new):
    assert old in SOURCE and tree(SOURCE.replace(old, new)) != tree(SOURCE)


def test_the_text_of_a_tree_is_that_of_every_python():
    assert sha256(tree(SOURCE).encode()).hexdigest()[:16] == "1fce5406baef934f"


# --- modules ---


@pytest.fixture
def package(tmp_path):
    """A package of its own: `play` imports `moves` at its top and `words` in a function, `draw` imports `play`."""
    folder = tmp_path / "game"
    (folder / "sub").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "sub" / "__init__.py").write_text("")
    (folder / "moves.py").write_text("def move(x):\n    return x + 1\n")
    (folder / "sub" / "words.py").write_text("from .. import rules\nWORDS = 3\n")
    (folder / "rules.py").write_text("import os\nRULES = 4\n")
    (folder / "play.py").write_text(
        "import json\nfrom game.moves import move\n\ndef play():\n    from game.sub import words\n    return words, move\n"
    )
    (folder / "draw.py").write_text("from game import play\n")
    return folder


@pytest.fixture
def imported(package, monkeypatch):
    """Import a module of the package afresh."""

    def forget():
        for name in [name for name in sys.modules if name.split(".")[0] == "game"]:
            del sys.modules[name]

    def load(name):
        forget()
        return importlib.import_module(name)

    monkeypatch.syspath_prepend(package.parent)
    yield load
    forget()


def test_the_closure_holds_what_is_imported_at_the_top_in_functions_and_relatively(package):
    found = module_hashes(["game.play"], package.parent)
    assert {name for name in found if "__init__" not in name} >= {
        "game.play",
        "game.moves",
        "game.sub.words",
        "game.rules",
    }
    assert "game.draw" not in found and "json" not in found
    assert set(module_hashes(["game.moves"], package.parent)) == {"game.moves"}


def test_an_edit_changes_the_hash_of_what_depends_on_it_and_undoing_it_changes_it_back(package):
    names = ("game.play", "game.draw", "game.moves", "game.rules")
    before = [code_hash([name], package.parent) for name in names]
    edit(package / "moves.py", "x + 1", "x + 2")
    after = [code_hash([name], package.parent) for name in names]
    assert [a != b for a, b in zip(before, after, strict=True)] == [True, True, True, False]
    edit(package / "moves.py", "x + 2", "x + 1  # undone")
    assert [code_hash([name], package.parent) for name in names] == before


def test_a_module_that_is_missing_or_broken_is_named(package):
    with pytest.raises(ReflectRLError, match="no module game.gone below"):
        code_hash(["game.gone"], package.parent)
    edit(package / "moves.py", "return", "retrun")
    with pytest.raises(ReflectRLError, match="moves.py cannot be read as Python"):
        code_hash(["game.play"], package.parent)


def test_code_that_is_loaded_keeps_its_hash_until_it_is_loaded_again(package, imported):
    """The edited code does not run in this process, so its results are those of the code before."""
    module = imported("game.moves")
    before = code_hash(["game.moves"], package.parent)
    edit(package / "moves.py", "x + 1", "x + 2")
    with pytest.warns(UserWarning, match="game.moves was edited after it was loaded; restart Python"):
        assert code_hash(["game.moves"], package.parent) == before
    importlib.reload(module)
    assert code_hash(["game.moves"], package.parent) != before


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A copy of the library's code to edit."""
    root = tmp_path_factory.mktemp("library")
    shutil.copytree(paths.PACKAGE, root / "reflect_rl", ignore=shutil.ignore_patterns("__pycache__"))
    return root / "reflect_rl"


def changed_stages(library, file, old, new):
    """The stages whose code has another hash while a file of the library is edited."""

    def codes():
        return {name: code_hash(stage.modules, library.parent) for name, stage in identity.STAGES.items()}

    before, text = codes(), (library / file).read_text()
    edit(library / file, old, new)
    after = codes()
    (library / file).write_text(text)
    return {name for name in before if before[name] != after[name]}


def test_an_edited_loss_makes_rl_and_its_evaluation_anew_but_no_warm_up(library):
    changed = changed_stages(library, "train/objectives.py", "return ", "return 2 * ")
    assert {"rl", "evaluation"} <= changed and not changed & {"data", "reflector", "policy"}


def test_an_edited_comment_or_docstring_makes_nothing_anew(library):
    for file in ("train/objectives.py", "train/rl.py", "lm/models.py"):
        assert changed_stages(library, file, '"""', '# a comment\n"""Another docstring. ') == set()


def test_neither_figures_nor_core_nor_an_environment_decide_the_stages_of_the_library(library):
    for file in [*library.glob("report/*.py"), *library.glob("core/*.py"), *library.glob("envs/*/*.py")]:
        assert changed_stages(library, file, file.read_text()[:3], "x = 1\n" + file.read_text()[:3]) == set(), file


def test_the_library_in_use_is_the_one_that_is_hashed(library):
    for stage in identity.STAGES.values():
        assert code_hash(stage.modules) == code_hash(stage.modules, library.parent)


# --- functions and classes ---


def cell(source, name):
    """An object as a notebook's cell defines it; later cells see what earlier ones defined."""
    variables, filename = vars(sys.modules["notebook"]), f"<cell {time.monotonic_ns()}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    exec(compile(source, filename, "exec"), variables)
    return variables[name]


@pytest.fixture
def notebook(monkeypatch):
    monkeypatch.setitem(sys.modules, "notebook", types.ModuleType("notebook"))


def test_a_cell_counts_by_its_code(notebook):
    one = code_of_objects([cell("def f(x):\n    return x + 1\n", "f")])
    assert code_of_objects([cell("# why\ndef f(x):\n    'Doc.'\n    return x + 1\n", "f")]) == one
    assert code_of_objects([cell("def f(x):\n    return x + 2\n", "f")]) != one


def test_a_class_of_a_cell_counts_with_its_base_and_with_the_cells_that_it_names(notebook):
    def code(step="return 1", helper="return 2", size="SIZE = 3"):
        cell(size, "SIZE")
        cell(f"def helper():\n    {helper}\n", "helper")
        cell(f"class Base:\n    def step(self):\n        {step}\n", "Base")
        source = "class Game(Base):\n    @property\n    def size(self):\n        return SIZE, helper()\n"
        return code_of_objects([cell(source, "Game")])

    one = code()
    assert code() == one
    assert len({one, code(step="return 9"), code(helper="return 9"), code(size="SIZE = 9")}) == 4


@pytest.mark.parametrize(
    "defined",
    [
        "A = [1, {'x': (2, 3)}]",
        "A = {'x': 3}",
        "A = {'x', 'y', '3'}",
        "A = frozenset({3})",
        "A = {'x': lambda: 3}",
        "import numpy\nA = numpy.arange(3)",
        "import functools\n@functools.cache\ndef A():\n    return 3",
        "class A:\n    SIZE = [3]",
        "import dataclasses\n@dataclasses.dataclass\nclass A:\n    size: int = 3",
        "class Size:\n    def __init__(self, x):\n        self.x = x\nA = Size(3)",
        "def make(size):\n    return lambda: size\nA = make(3)",
        "SIZE = 3\ndef A(size=SIZE):\n    return size",
        "import rooms\ndef A():\n    return rooms.SIZE",
        "from rooms import go as A",
    ],
)
def test_what_a_cell_names_of_other_cells_counts(notebook, tmp_path, monkeypatch, defined):
    monkeypatch.syspath_prepend(tmp_path)

    def code(size):
        sys.modules.pop("rooms", None)
        linecache.clearcache()
        (tmp_path / "rooms.py").write_text(f"import sizes\ndef go():\n    return {size}\nSIZE = 3\n")
        (tmp_path / "sizes.py").write_text("x = 1\n")
        cell(defined.replace("3", size) if "rooms" not in defined else defined, "A")
        return code_of_objects([cell("def play():\n    return A\n", "play")])

    one = code("3")
    assert code("3") == one != code("5")


def test_attributes_and_globals_of_one_name_are_told_apart(notebook):
    play = cell("def play(env):\n    return env.steps\n", "play")
    one = code_of_objects([play])
    cell("steps = 7", "steps")
    assert code_of_objects([play]) == one


def test_objects_from_modules_count_by_their_closure(package, imported):
    play = imported("game.play").play
    one = code_of_objects([play])
    assert one == code_of_objects([play, play])
    assert len({one, *(code_of_objects([functools.partial(play, x)]) for x in (3, 4))}) == 3
    edit(package / "rules.py", "4", "5")
    assert code_of_objects([imported("game.play").play]) != one


def test_a_module_counts_with_those_that_lie_beside_it(tmp_path, monkeypatch):
    (tmp_path / "board.py").write_text("import json\nimport dice\n\ndef play():\n    return dice.SIDES\n")
    (tmp_path / "dice.py").write_text("SIDES = 6\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = module_hashes(["board"], tmp_path)
    assert set(found) == {"board", "dice"}
    edit(tmp_path / "dice.py", "6", "8")
    assert module_hashes(["board"], tmp_path)["dice"] != found["dice"]


def test_objects_count_by_what_they_hold_and_functions_by_what_they_enclose(package, imported):
    (package / "rules.py").write_text(
        "class Rule:\n    def __init__(self, x):\n        self.x = x\n    def play(self):\n        return self.x\n"
        "    __call__ = play\n\ndef make(x):\n    return lambda: x\n"
    )
    rules = imported("game.rules")
    for build in (rules.Rule, lambda x: rules.Rule(x).play, rules.make):
        one, same, other = (code_of_objects([build(x)]) for x in ([3], [3], [4]))
        assert one == same != other


# --- stages ---


def changed(run, other):
    """The stages of which two runs have different folders."""
    return {stage for stage in identity.STAGES if stage_dir(run, stage) != stage_dir(other, stage)}


@pytest.mark.parametrize(
    ("other", "stages"),
    [
        ({"rl": RLConfig(clip=0.3)}, {"rl", "evaluation"}),
        ({"policy": SFTConfig(steps=7)}, {"policy", "rl", "evaluation"}),
        ({"reflector": SFTConfig(steps=7)}, {"reflector", "rl", "evaluation", "reflections"}),
        ({"evaluation": EvaluationConfig(repeats=3)}, {"evaluation", "reflections"}),
        ({"evaluation": EvaluationConfig(tasks=3)}, {"evaluation", "reflections", "probes"}),
        ({"model": ModelConfig(n_layer=1)}, set(identity.STAGES) - {"probes"}),
        ({"data": dataclasses.replace(RUN.data, target="executed")}, {"policy", "rl", "evaluation"}),
        ({"teacher": TeacherConfig(model="m", endpoint="http://host/v1")}, set(identity.STAGES) - {"probes"}),
        ({"teacher": TeacherConfig(max_new_tokens=7)}, set()),  # the rules write as much as they write
        ({"env_code": "other"}, set(identity.STAGES)),
        ({"overrides": (("rl.clip", 0.1),), "sources": {"rl.clip": "override"}}, set()),
        ({"regime": "limited"}, set()),  # a name: regimes whose settings agree share their runs
        ({"seed": 1}, set(identity.STAGES) - {"probes"}),
        ({"profile": "other"}, set(identity.STAGES)),
    ],
    ids=str,
)
def test_a_change_reaches_the_stages_that_depend_on_it_and_no_others(other, stages):
    assert changed(RUN, dataclasses.replace(RUN, **other)) == stages


def test_the_code_of_a_language_model_as_teacher_counts_where_there_is_one(monkeypatch):
    monkeypatch.setattr(identity, "code_hash", lambda modules, unused: repr(modules))
    taught = dataclasses.replace(RUN, teacher=TeacherConfig(model="m", endpoint="http://host/v1"))
    monkeypatch.setattr(identity, "sha256", lambda text: types.SimpleNamespace(hexdigest=lambda: [text.decode()]))
    for run, stages in ((RUN, set()), (taught, set(identity.STAGES) - {"probes"})):
        found = {s for s in identity.STAGES if "train.lm_teacher" in identity.stage_code(run, s)[0]}
        assert found == stages


def test_variants_share_the_stages_whose_settings_agree():
    for variant in ("reflect_sft", "reflect_rl_no_milestones", "reflect_rl_stages"):
        assert changed(RUN, dataclasses.replace(RUN, variant=variant)) == {"rl", "evaluation"}
    assert changed(RUN, dataclasses.replace(RUN, variant="reflect_rl_no_negatives")) == {
        "reflector", "policy", "rl", "evaluation", "reflections",
    }  # fmt: skip


def test_settings_that_a_variant_has_no_use_for_do_not_count():
    for variant, other in (("rl_only", {"policy": SFTConfig(steps=7)}), ("random", {"rl": RLConfig(clip=0.3)})):
        run = dataclasses.replace(RUN, variant=variant)
        assert stage_key(run, "evaluation") == stage_key(dataclasses.replace(run, **other), "evaluation")
    run = dataclasses.replace(RUN, variant="rl_only")
    assert stage_key(run, "rl") != stage_key(dataclasses.replace(run, rl=RLConfig(clip=0.3)), "rl")


def test_folders_have_their_names(monkeypatch, tmp_path):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))
    follow = dataclasses.replace(RUN, variant="follow", seed=3)
    found = {
        stage: stage_dir(follow, stage).relative_to(tmp_path / "runs" / "mine" / "game") for stage in identity.STAGES
    }
    parts = {stage: (*path.parts[:-1], path.name.split("-")[0]) for stage, path in found.items()}
    assert parts == {
        "data": ("data", "seed3", "data"),
        "reflector": ("reflect_rl", "seed3", "reflector"),
        "policy": ("reflect_rl", "seed3", "policy"),
        "rl": ("follow", "seed3", "rl"),
        "evaluation": ("follow", "seed3", "evaluation"),
        "probes": ("probes",),
        "reflections": ("reflect_rl", "seed3", "reflections"),
    }
    assert all(len(path.name.split("-")[1]) == 10 for path in found.values())


def test_threads_decide_what_torch_computes(monkeypatch):
    before = {stage: stage_dir(RUN, stage) for stage in identity.STAGES}
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert all(stage_dir(RUN, stage) == folder for stage, folder in before.items())
    monkeypatch.setenv("REFLECT_RL_THREADS", "2")
    assert {s for s in before if stage_dir(RUN, s) == before[s]} == {"data", "probes"}


def test_unknown_stages_and_those_that_a_variant_lacks_are_named():
    with pytest.raises(ReflectRLError, match="unknown stage 'warmup'; choose one of: data, reflector"):
        stage_dir(RUN, "warmup")
    with pytest.raises(ReflectRLError, match="'rl_only' has no warm-up; choose one that has"):
        stage_dir(dataclasses.replace(RUN, variant="rl_only"), "policy")


# --- run folders ---


def test_a_run_folder_says_what_it_belongs_to(monkeypatch, tmp_path):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))
    for _ in range(2):
        with identity.locked_run_dir(RUN, "rl") as folder:
            assert folder == stage_dir(RUN, "rl")
    found = files.read_json(folder / "config.json")
    assert found["settings"]["rl"]["clip"] == 0.2 and found["settings"]["group"] == "reflect_rl"
    assert found["threads"] == 1 and found["code"] == identity.stage_code(RUN, "rl")
    assert files.read_json(folder / "provenance.json")["packages"]["torch"]


def test_the_lock_is_released_when_the_work_fails(monkeypatch, tmp_path):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))
    with pytest.raises(ZeroDivisionError):
        with identity.locked_run_dir(RUN, "rl"):
            _ = 1 / 0
    with identity.locked_run_dir(RUN, "rl"):
        pass


def test_a_place_that_cannot_be_written_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path / "file"))
    with pytest.raises(ReflectRLError, match="cannot write .*REFLECT_RL_HOME"):
        with identity.locked_run_dir(RUN, "rl"):
            pass


def visit(folder, name, both_ready):
    both_ready.wait()
    with identity.locked_run_dir(RUN, "data"):
        for word in ("in", "out"):
            with open(folder / "diary", "a") as diary:
                diary.write(f"{word} {name}\n")
            time.sleep(0.2)


def test_two_processes_are_let_in_one_after_the_other(monkeypatch, tmp_path):
    """Interleaved, both would come in before one goes out."""
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))
    context = multiprocessing.get_context("fork")  # quick: nothing is imported again
    both_ready = context.Barrier(2, timeout=60)
    both = [context.Process(target=visit, args=(tmp_path, name, both_ready)) for name in "ab"]
    for process in both:
        process.start()
    for process in both:
        process.join(timeout=60)
    assert [process.exitcode for process in both] == [0, 0]
    diary = [line.split() for line in (tmp_path / "diary").read_text().splitlines()]
    assert [word for word, _ in diary] == ["in", "out", "in", "out"]
    assert diary[0][1] == diary[1][1] != diary[2][1] == diary[3][1]
