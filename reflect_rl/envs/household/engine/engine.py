"""TextWorld's PDDL engine, played fast: its own library decides what is legal, what happens and whether a game is won.

The translation of a game is kept on disk, and texts are made from the few facts that they can depend on. The outputs are
those of the original, which a test shows.
"""

import gc
import gzip
import json
import re
import sys
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from hashlib import sha256
from pathlib import Path

from reflect_rl.core import files, paths
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.household.engine import patches
from reflect_rl.envs.household.games import package

VERSION = "2"  # of the files that `translated` keeps
TASK = re.compile(r"Your task is to: (.*?)\.")
ANY_TASK = "Your task is to: UNKNOWN GOAL."
NAMED = re.compile(r"\[\{(\w+)\.name \|[^]]*\]")  # in a command: the one thing of which something is true
GAMES_IN_MEMORY = 512

Fact = tuple[str, ...]  # a predicate and the ids that it is true of


@dataclass
class Game:
    """A translated game, ready for the library.

    Attributes:
        sas: the planning task as the library reads it.
        facts: all that is true at the start.
        kinds: id -> PDDL type. names: id -> name in texts. parameters: action -> its (name, type) pairs.
        text_predicates: the predicates that texts can depend on.
        intro: what the player reads first. task: the sentence in it that sets the task.
        logic: TextWorld's own grammar and types.
        commands: operator -> its text, for those met so far.
    """

    sas: bytes
    facts: frozenset[Fact]
    kinds: dict[str, str]
    names: dict[str, str]
    parameters: dict[str, list[list[str]]]
    text_predicates: frozenset[str]
    intro: str
    task: str
    logic: object
    commands: dict[str, str] = field(default_factory=dict)

    @cached_property
    def infos(self) -> dict:
        return _infos(self.names, self.kinds)


def _infos(names: dict[str, str], kinds: dict[str, str]) -> dict:
    """id -> what the grammar knows of it."""
    made = {}
    for name, text in names.items():
        info = made[name] = package("textworld.generator.game").EntityInfo(name, kinds[name])
        info.name, info.definite, info.indefinite = text, "the", "a"
    return made


def read_game(path: Path) -> dict:
    """A `game.tw-pddl` file; raises ReflectRLError where it is missing or is no such file."""
    try:
        game = json.loads(path.read_text())
        if not all(isinstance(game[key], str) for key in ("pddl_domain", "grammar", "pddl_problem")):
            raise ValueError("its parts are not text")
        if TASK.search(game["grammar"]) is None:
            raise ValueError("it sets no task")
    except OSError as error:
        raise ReflectRLError(f"no game at {path} ({error.strerror}); check ALFWORLD_DATA, or unset it") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ReflectRLError(
            f"game file {path} is damaged ({error}); delete its folder, or mend ALFWORLD_DATA"
        ) from error
    return game


@cache
def _logic(domain: str, grammar: str):
    return package("textworld.envs.pddl.logic").GameLogic(domain=domain, grammar=grammar)


@cache
def _translator():
    """The library that reads the first state of new games and plays none."""
    return patches.planner().load_lib()


def _fact(atom: str) -> tuple[bool, Fact]:
    """`Atom holds(agent1, mug)` -> (True, ("holds", "agent1", "mug"))."""
    sign, rest = atom.split(" ", 1)
    name, arguments = rest[:-1].split("(", 1)
    return sign != "NegatedAtom", (name, *filter(None, arguments.split(", ")))


def _derive(logic, symbol: str, facts, kinds: dict, infos: dict, mapping: dict[tuple[str, str], str]) -> str:
    """A text of the game's grammar; `mapping`: (placeholder, its type) -> id."""
    patches.quick_texts()
    words = package("textworld.logic")
    typed = words.GameLogic()
    typed.types = logic.types
    context = {
        "state": words.State(
            typed, [words.Proposition(f[0], [words.Variable(name, kinds[name]) for name in f[1:]]) for f in facts]
        ),
        "facts": [],
        "variables": {name: infos[value] for (name, _), value in mapping.items()},
        "mapping": {
            words.Placeholder(name, kind): words.Variable(value, kind) for (name, kind), value in mapping.items()
        },
        "entity_infos": infos,
    }
    return logic.grammar.derive(symbol, context)


def _translate(game: dict, grammar: str) -> dict:
    """All that is made from a game file once, as JSON."""
    downward, pddl = package("fast_downward"), package("textworld.envs.pddl.logic")
    arguments, collecting = sys.argv, gc.isenabled()
    gc.disable()  # which takes a third of the translator's time: millions of small objects that live
    try:
        task, sas = downward.pddl2sas(game["pddl_domain"], game["pddl_problem"])
    finally:
        sys.argv = arguments  # the translator overwrites it
        if collecting:
            gc.enable()
    kinds = {o.name: o.type_name for o in task.objects}
    facts = {(a.predicate, *a.args) for a in task.init if hasattr(a, "predicate") and a.predicate != "="}
    library = _translator()
    library.load_sas(sas.encode())
    atoms = (pddl.Atom * library.get_state_size())()
    library.get_state(atoms)
    facts |= {fact for positive, fact in (_fact(atom.name) for atom in atoms) if positive}
    mentioned = sorted({name for fact in facts for name in fact[1:]})
    ids = {name: package("textworld.generator.game").EntityInfo(name, kinds[name]) for name in mentioned}
    demangler = package("alfworld.agents.utils.misc").Demangler(game_infos=ids)
    names = {name: demangler.demangle_alfred_name(name) for name in mentioned}
    types = [[t.name, list(t.supertype_names)] for t in task.types]
    logic = _with_types(_logic(game["pddl_domain"], grammar), types)
    queried = {name.removeprefix("not_") for name in re.findall(r"(\w+)\(", grammar)}
    return {
        "sas": sas,
        "facts": sorted(map(list, facts)),
        "kinds": kinds,
        "names": names,
        "parameters": {a.name: [[p.name.strip("?"), p.type_name] for p in a.parameters] for a in task.actions},
        "types": types,
        "text_predicates": sorted(queried | {f"not_{name}" for name in queried}),
        "intro": _derive(logic, "#intro#", facts, kinds, _infos(names, kinds), {}),
    }


def _with_types(logic, types: list[list]):
    for name, supertypes in types:
        try:
            logic.types.add(package("textworld.logic").Type(name, supertypes))
        except ValueError:
            pass  # an earlier game of this logic has added it
    return logic


@lru_cache(maxsize=GAMES_IN_MEMORY)
def translated(path: Path) -> Game:
    """A game file, translated now or as it was translated before; games with equal problems share a translation.

    Raises:
        ReflectRLError: the file is missing, damaged, or no game that can be played.
    """
    game = read_game(path)
    sentence = TASK.search(game["grammar"])
    grammar = game["grammar"].replace(sentence[0], ANY_TASK)
    key = sha256("\0".join((VERSION, game["pddl_domain"], grammar, game["pddl_problem"])).encode()).hexdigest()
    kept = paths.cache("household") / "translations" / f"{key}.json.gz"
    try:
        parts = json.loads(gzip.decompress(kept.read_bytes()))
    except (OSError, EOFError, ValueError):  # not there, or damaged
        try:
            parts = _translate(game, grammar)
        except ReflectRLError:
            raise
        except Exception as error:  # the translator raises all kinds of things, bare assertions among them
            reason = f"{type(error).__name__} {error}".strip()
            raise ReflectRLError(
                f"game file {path} cannot be played ({reason}); delete its folder, or mend ALFWORLD_DATA"
            ) from error
        files.write_bytes(kept, gzip.compress(json.dumps(parts).encode(), compresslevel=1, mtime=0))
    logic = _with_types(_logic(game["pddl_domain"], grammar), parts.pop("types"))
    parts |= {
        "sas": parts["sas"].encode(),
        "facts": frozenset(map(tuple, parts["facts"])),
        "text_predicates": frozenset(parts["text_predicates"]),
    }
    parts["intro"] = parts["intro"].replace(ANY_TASK, sentence[0])
    return Game(**parts, task=sentence[1], logic=logic)


class Engine:
    """One copy of the planning library; plays one game at a time, and any number of games one after the other.

    A copy maps memory that is never given back, so engines are reused (`workers`).

    Attributes:
        commands: the admissible commands, sorted.
        won: whether the goal holds now.
        facts: all that is true now, `not_...` included where something has ceased to be true.
    """

    def __init__(self):
        self._downward = patches.planner()
        self._library = self._downward.load_lib()

    def reset(self, path: Path) -> str:
        """Start a game; returns its intro."""
        self.game = translated(path)
        self._library.load_sas(self.game.sas)
        self.facts = set(self.game.facts)
        self._text_facts = {fact for fact in self.facts if fact[0] in self.game.text_predicates}
        self._update()
        return self.game.intro

    def step(self, command: str) -> str:
        """Play a command; returns the feedback, `Nothing happens.` where it is none of `commands`."""
        known = self._operators.get(command.strip())
        if known is None:
            return "Nothing happens."
        identity, operator, size = known
        effects = (self._downward.Atom * size)()
        self._library.apply_operator(identity, effects)
        for atom in effects:
            positive, (name, *arguments) = _fact(atom.name)
            now, gone = (name, f"not_{name}") if positive else (f"not_{name}", name)
            for facts in (self.facts, self._text_facts):
                facts.discard((gone, *arguments))
            self.facts.add((now, *arguments))
            if now in self.game.text_predicates:
                self._text_facts.add((now, *arguments))
        self._update()
        return self._feedback(operator)

    def _update(self) -> None:
        operators = (self._downward.Operator * self._library.get_applicable_operators_count())()
        self._library.get_applicable_operators(operators)
        found: dict[str, tuple[int, str, int]] = {}
        for operator in operators:
            name = operator.name
            found.setdefault(self._command(name), (operator.id, name, operator.nb_effect_atoms))
        self._operators = found
        self.commands = tuple(sorted(found))
        self.won = bool(self._library.check_goal())

    def _arguments(self, operator: str) -> tuple[str, dict[tuple[str, str], str]]:
        action, *values = operator.split()
        return action, {
            (n, kind): value for (n, kind), value in zip(self.game.parameters[action], values, strict=False)
        }

    def _command(self, operator: str) -> str:
        if operator not in self.game.commands:
            action, arguments = self._arguments(operator)
            template = NAMED.sub(r"{\1}", self.game.logic.actions[action].template)
            named = {name: self.game.names[value] for (name, _), value in arguments.items()}
            self.game.commands[operator] = template.format(**named)
        return self.game.commands[operator]

    def _feedback(self, operator: str) -> str:
        """The text of what an operator has just done, from the facts that it can depend on.

        Those are on its objects and receptacles; where it has none but agent and place, on all of them.
        """
        action, arguments = self._arguments(operator)
        about = {value for (_, kind), value in arguments.items() if kind in ("receptacle", "object")}
        facts = [fact for fact in self._text_facts if not about or not about.isdisjoint(fact)]
        game = self.game
        return _derive(game.logic, game.logic.actions[action].feedback_rule, facts, game.kinds, game.infos, arguments)
