"""The one exception for everything a user can put right."""


class ReflectRLError(Exception):
    """Bad input or a state that the user can mend: one line that names the thing, the value and the way out."""


def unknown(kind: str, value: object, choices) -> ReflectRLError:
    """The error for a name that is not among `choices`, which it lists."""
    return ReflectRLError(f"unknown {kind} {value!r}; choose one of: {', '.join(map(str, choices))}")
