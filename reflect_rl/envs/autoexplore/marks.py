"""What a reflection knows of the file that was just read, and what a policy does with its advice: by their words alone."""

from collections.abc import Mapping, Sequence

from reflect_rl.envs.play import advised_action

ADVISED, UNREAD, ANOTHER = "as advised", "names it unread", "another of its kind"
OTHER, NONE = "another kind", "no legal advice"
RESPONSES = (ADVISED, UNREAD, ANOTHER, OTHER, NONE)


def recognition(told: Mapping[str, str], said: Mapping[str, str]) -> dict[str, bool]:
    """How a reflection on a file that was just read does beside the teacher's; both as `EnvSpec.facts_of` has them.

    `recall`, where the file answers, or else `false_positives`: whether it is called the answer. `evidence`: whether the
    comparison word by word is the teacher's. Empty where no file was read.
    """
    if "match" not in told:
        return {}
    of = "recall" if told["match"] == "the file" else "false_positives"
    return {of: said.get("match") == "the file", "evidence": said.get("evidence") == told["evidence"]}


def response(reflection: str, actions: Sequence[str], action: int) -> str:
    """What a policy that takes a legal action, given by its index, does with its advice: one of `RESPONSES`.

    `names it unread`: a file that it is told to read. `another of its kind`: it reads, names or enters something else.
    """
    advised = advised_action(reflection, actions)
    if advised is None:
        return NONE
    if advised == action:
        return ADVISED
    verb, _, name = actions[advised].partition(" ")
    if verb == "cat" and actions[action] == f"id {name}":
        return UNREAD
    return ANOTHER if actions[action].startswith(f"{verb} ") else OTHER
