"""An honest expert: it goes by the names that it has seen and by what it has read."""

from collections.abc import Iterator

from reflect_rl.envs.autoexplore.env import AutoExplore
from reflect_rl.envs.autoexplore.repository import joined, parent, view

NAMED, SUBFOLDER, UNTOLD, DEPARTMENT, AT_TOP, OTHERWISE_NAMED, REST = range(7)  # what is looked into first


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


def _unread(env: AutoExplore) -> Iterator[tuple[tuple, int, str]]:
    """Files to be read and folders to be entered, of those that were seen: (what comes first, place in the list, path)."""
    asked, at = env.question, env.at
    has_entered = len(env.entered) > 1
    for folder in sorted(env.entered):
        held, far = asked.folders[folder], len(way(at, folder))
        for i, name in enumerate(held.files):
            path = joined(folder, name)
            if path not in env.read:
                untold = UNTOLD if folder or has_entered else AT_TOP
                ranks = {"named": NAMED, "open": untold, "other": OTHERWISE_NAMED, "not": REST}
                yield (ranks[asked.reader.file_fit(asked.text, name)], far, 0.0), i, path
        for i, name in enumerate(held.folders):
            path = joined(folder, name)
            if path not in env.entered:
                fit, share = asked.reader.folder_fit(asked.text, name)
                yield ({"named": SUBFOLDER, "likely": DEPARTMENT, "not": REST}[fit], far, -share), i, path


def towards(env: AutoExplore, path: str, *verbs: str) -> int:
    """Index of the next step on the way to a file or folder, and beside it of the first of the verbs that it allows."""
    moves, name = way(env.at, parent(path)), path.rpartition("/")[2]
    wanted = [("cd", moves[0])] if moves else [(verb, name) for verb in verbs]
    return next(env.moves.index(move) for move in wanted if move in env.moves)


def expert_action(env: AutoExplore) -> int:
    """Index of the next action: name the file that was found, else go on looking where it is most likely."""
    path = found(env)
    if left := [] if path else sorted(_unread(env)):
        return towards(env, left[0][-1], "cat", "cd")
    return towards(env, path or min(env.read), "id")  # where all was read and nothing answers, any


def good_actions(env: AutoExplore) -> tuple[int, ...]:
    """The expert's action, those towards what is as likely, and naming the right file once it was read."""
    left = [] if found(env) else sorted(_unread(env))
    alike = [towards(env, path, "cat", "cd") for first, _, path in left if first == left[0][0]]
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
