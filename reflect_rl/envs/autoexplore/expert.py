"""An honest expert: it goes by the names that it has seen and by what it has read."""

from reflect_rl.envs.autoexplore.env import AutoExplore
from reflect_rl.envs.autoexplore.repository import joined, parent, view

#: what is looked into first; folders by how often they were entered: never, once, twice
(
    NAMED,
    NAMED_FOLDER,
    UNTOLD,
    OF_KIND,
    DEPARTMENT,
    LEAVE,
    OTHERWISE_NAMED,
    AGAIN,
    UNLIKELY,
    UNFIT,
    REST,
    LEAVE_AT_LAST,
) = range(12)
FOLDERS = {
    name: (first, AGAIN, REST) for name, first in (("named", NAMED_FOLDER), ("kind", OF_KIND), ("likely", DEPARTMENT))
}
FOLDERS["not"] = UNLIKELY, REST, REST


def way(start: str, end: str) -> list[str]:
    """The `cd`s from a folder to another: names of folders, or `..`."""
    a, b = (path.split("/") if path else [] for path in (start, end))
    shared = 0
    while shared < min(len(a), len(b)) and a[shared] == b[shared]:
        shared += 1
    return [".."] * (len(a) - shared) + b[shared:]


def found(env: AutoExplore) -> str | None:
    """The path of a file that was read and answers the question."""
    asked = env.question
    texts = {path: view(asked.repository.files[path], asked.letters) for path in sorted(env.read)}
    return next((path for path, text in texts.items() if asked.reader.answers(asked.text, text)), None)


def _left(env: AutoExplore) -> list[tuple[tuple, tuple[str, str]]]:
    """What is left to be done in the folder where the player stands, (what comes first, the move), sorted.

    It shows in the observation alone: a folder is left for later once what is likely in it was read, and on a second visit
    everything is.
    """
    asked, at = env.question, env.at
    held, found = asked.folders[at], []
    for i, name in enumerate(held.files):
        if joined(at, name) not in env.read:
            fit = asked.reader.file_fit(asked.text, joined(at, name))
            rank = {"named": NAMED, "open": UNTOLD, "other": OTHERWISE_NAMED, "not": UNFIT}[fit]
            found.append(((rank, 0.0), i, ("cat", name)))
    for i, name in enumerate(held.folders):
        if not env.is_done(joined(at, name)):
            fit, share = asked.reader.folder_fit(asked.text, name)
            visits = min(env.visits.get(joined(at, name), 0), 2)
            found.append(((FOLDERS[fit][visits], -share), i, ("cd", name)))
    if at:
        found.append(((LEAVE if env.visits[at] == 1 else LEAVE_AT_LAST, 0.0), 0, ("cd", "..")))
    return [(first, move) for first, _, move in sorted(found)]


def towards(env: AutoExplore, path: str, *verbs: str) -> int:
    """Index of the next step on the way to a file or folder, and beside it of the first of the verbs that it allows."""
    moves, name = way(env.at, parent(path)), path.rpartition("/")[2]
    wanted = [("cd", moves[0])] if moves else [(verb, name) for verb in verbs]
    return next(env.moves.index(move) for move in wanted if move in env.moves)


def expert_action(env: AutoExplore) -> int:
    """Index of the next action: name the file that was found, else go on looking where it is most likely."""
    if path := found(env):
        return towards(env, path, "id")
    if left := _left(env):
        return env.moves.index(left[0][1])
    return towards(env, min(env.read), "id")  # where all was read and nothing answers, any


def good_actions(env: AutoExplore) -> tuple[int, ...]:
    """The expert's action, those that are as likely, and naming the right file once it was read."""
    left = [] if found(env) else _left(env)
    alike = [env.moves.index(move) for first, move in left if first == left[0][0]]
    right = [i for i, (verb, name) in enumerate(env.moves) if verb == "id" and _is_target(env, name)]
    return tuple(dict.fromkeys([expert_action(env), *alike] + right * (env.question.target in env.read)))


def slips(env: AutoExplore) -> tuple[int, ...]:
    """Reading a file that neither answers nor is among the likeliest: what one recovers from."""
    good = good_actions(env)
    reads = [i for i, (verb, name) in enumerate(env.moves) if verb == "cat" and not _is_target(env, name)]
    return tuple(i for i in reads if i not in good)


def safe_actions(env: AutoExplore) -> tuple[int, ...]:
    """All but naming a wrong file."""
    return tuple(i for i, (verb, name) in enumerate(env.moves) if verb != "id" or _is_target(env, name))


def _is_target(env: AutoExplore, name: str) -> bool:
    return joined(env.at, name) == env.question.target


def phase(env: AutoExplore) -> str:
    """What comes next: `walk`, `read` or `name`."""
    return {"cd": "walk", "cat": "read", "id": "name"}[env.moves[expert_action(env)][0]]


def oracle_action(env: AutoExplore) -> int:
    """The next action of one who knows the file: no reading."""
    return towards(env, env.question.target, "id")
