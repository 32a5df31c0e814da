"""The environments by name: the library's own, those of other packages, and those that are registered by hand."""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import gymnasium as gym

from reflect_rl.core.errors import ReflectRLError, unknown
from reflect_rl.envs.base import EnvSpec

GROUP = "reflect_rl.environments"  # entry points of other packages: name = "package.module:SPEC", or a function's name

_registered: dict[str, EnvSpec] = {}
_built_in: dict[str, EntryPoint] = {}


def offer(name: str, spec: str, gym_id: str) -> None:
    """List an environment of the library's own without importing it; `spec` is `"package.module:object"`."""
    _built_in[name] = EntryPoint(name, spec, GROUP)
    gym.register(gym_id, entry_point=lambda **options: get(name).make(**options), order_enforce=False)


def names() -> tuple[str, ...]:
    """All environments: the library's own, those of other packages, and those registered since."""
    return tuple(dict.fromkeys((*_built_in, *_of_packages(), *_registered)))


@cache
def _of_packages() -> tuple[str, ...]:
    """Those of other packages, which are looked up once, since that takes some 10 ms."""
    return tuple(sorted(entry_points(group=GROUP).names))


def get(name: str) -> EnvSpec:
    """The environment of that name, imported now where it was only listed.

    Raises:
        ReflectRLError: there is none (the message lists the choices), or its package offers no proper `EnvSpec`.
    """
    if name not in names():
        raise unknown("environment", name, names())
    return _registered.get(name) or _add(_imported(name))


def register(spec: EnvSpec, replace: bool = False) -> EnvSpec:
    """Make an environment known to the library by `spec.name`, and to Gymnasium by `spec.gym_id`; returns the spec.

    Nothing is played here; `envs.check` does that.

    Args:
        replace: whether it takes the place of one of the same name, as when a notebook's cell is run again.

    Raises:
        ReflectRLError: it is no `EnvSpec`, or the name is taken.
    """
    require_spec(spec)
    if _registered.get(spec.name) is spec:
        return spec
    if not replace and (spec.name in names() or spec.gym_id in gym.registry):
        taken = f"there is an environment {spec.name!r} ({spec.gym_id}) already"
        raise ReflectRLError(f"{taken}; take another name, or register(spec, replace=True) to take its place")
    gym.registry.pop(spec.gym_id, None)
    return _add(spec)


def require_spec(spec: Any) -> None:
    """Raise a `ReflectRLError` where something is no `EnvSpec`."""
    if not isinstance(spec, EnvSpec):
        raise ReflectRLError(f"{spec!r:.200} is no EnvSpec; see reflect_rl.envs.EnvSpec for what one needs")


def _add(spec: EnvSpec) -> EnvSpec:
    _registered[spec.name] = spec
    if spec.gym_id not in gym.registry:
        gym.register(spec.gym_id, entry_point=spec.make, order_enforce=False, kwargs={"horizon": spec.horizon})
    return spec


def _imported(name: str) -> EnvSpec:
    """What the library or another package offers under a name."""
    points = {point.value: point for point in entry_points(group=GROUP, name=name)}
    points |= {_built_in[name].value: _built_in[name]} if name in _built_in else {}
    if len(points) > 1:
        raise ReflectRLError(f"environment {name!r} is offered more than once: by {', '.join(points)}; uninstall one")
    (value, point), *_ = points.items()
    try:
        found = point.load()
        spec = found if isinstance(found, EnvSpec) or not callable(found) else found()
        require_spec(spec)
    except Exception as error:
        raise ReflectRLError(f"environment {name!r} cannot be imported from {value}: {error!r}") from error
    if spec.name != name:
        raise ReflectRLError(f"the environment of {value} is listed as {name!r} and calls itself {spec.name!r}")
    return spec
