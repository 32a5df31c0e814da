"""The environments by name: the library's own, those of other packages, and those that are registered by hand."""

import re
from importlib.metadata import EntryPoint, entry_points

import gymnasium as gym

from reflect_rl.core.errors import ReflectRLError, unknown
from reflect_rl.envs.base import Drawing, EnvSpec, Reported
from reflect_rl.envs.labels import Labels

GROUP = "reflect_rl.environments"  # entry points of other packages: name = "package.module:SPEC", or a function's name

_registered: dict[str, EnvSpec] = {}
_built_in: dict[str, EntryPoint] = {}


def offer(name: str, spec: str, gym_id: str, env: str) -> None:
    """List an environment of the library's own without importing it: `spec` and `env` are `"package.module:object"`."""
    _built_in[name] = EntryPoint(name, spec, GROUP)
    gym.register(gym_id, entry_point=env, order_enforce=False)


def names() -> tuple[str, ...]:
    """All environments: the library's own, those of other packages, and those registered since."""
    return tuple(dict.fromkeys((*_built_in, *sorted(entry_points(group=GROUP).names), *_registered)))


def get(name: str) -> EnvSpec:
    """The environment of that name, imported now where it was only listed.

    Raises:
        ReflectRLError: there is none (the message lists the choices), or its package offers no proper `EnvSpec`.
    """
    if name not in _registered:
        if name not in names():
            raise unknown("environment", name, names())
        _add(_imported(name))
    return _registered[name]


def register(spec: EnvSpec, replace: bool = False) -> EnvSpec:
    """Make an environment known to the library by `spec.name`, and to Gymnasium by `spec.gym_id`; returns the spec.

    Nothing is played here; `envs.check` does that.

    Args:
        replace: whether it takes the place of one of the same name, as when a notebook's cell is run again.

    Raises:
        ReflectRLError: a field is missing or wrong (the message names all of them), or the name is taken.
    """
    wrong = wrong_fields(spec)
    if wrong:
        raise ReflectRLError(f"the environment cannot be registered: {'; '.join(wrong)}")
    known = _registered.get(spec.name) is spec
    if not (replace or known) and (spec.name in names() or spec.gym_id in gym.registry):
        raise ReflectRLError(
            f"there is an environment {spec.name!r} ({spec.gym_id}) already; take another name, or "
            "register(spec, replace=True) to take its place"
        )
    if not known:
        gym.registry.pop(spec.gym_id, None)
    return _add(spec)


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
    except Exception as error:
        raise ReflectRLError(f"environment {name!r} cannot be imported from {value}: {error!r}") from error
    wrong = wrong_fields(spec)
    if not wrong and spec.name != name:
        wrong = [f"it is listed as {name!r} and calls itself {spec.name!r}"]
    if wrong:
        raise ReflectRLError(f"environment {name!r} of {value} is not as it should be: {'; '.join(wrong)}")
    return spec


FUNCTIONS = ("make", "tasks", "expert_action", "teacher")  # required
CHOICES = ("first_tasks", "good_actions", "safe_actions", "slips", "phase", "oracle_action", "oracle_steps")
CHOICES += ("task_source", "manifest")  # functions or None


def wrong_fields(spec: EnvSpec) -> list[str]:
    """What is wrong with a spec as far as can be told without playing, in words."""
    if not isinstance(spec, EnvSpec):
        return [f"{spec!r} is no EnvSpec; give EnvSpec(name=..., make=..., tasks=..., expert_action=..., teacher=...)"]
    wrong = [f"{name} should be a function" for name in (*FUNCTIONS, "parallel") if not callable(getattr(spec, name))]
    wrong += [f"{name} should be a function or None" for name in CHOICES if not callable(getattr(spec, name) or dict)]
    for name in ("settings", "selection_settings", "stages"):
        value = getattr(spec, name)
        if not isinstance(value, tuple) or not all(isinstance(v, str) for v in value) or len(set(value)) < len(value):
            wrong.append(f"{name}={value!r} should be a tuple of names, each once, such as ('full',)")
    outside = [name for name in (spec.headline, *spec.selection_settings) if name not in spec.settings]
    least = (spec.horizon, spec.claims_horizon)
    keys = [key for key in spec.defaults if not re.fullmatch(r"[a-z_]+\.[a-z_]+", str(key))]
    drawn = spec.draw is None or isinstance(spec.draw, Drawing) or (isinstance(spec.draw, str) and ":" in spec.draw)
    rates = all(isinstance(number, Reported) and 0 <= number.rate <= 1 for number in spec.reported)
    for fine, complaint in (
        (re.fullmatch(r"[A-Za-z][\w-]*", str(spec.name)), f"name {spec.name!r} should be letters, digits, _ and -"),
        (spec.settings, "settings should name at least one family of tasks"),
        (not outside, f"headline and selection_settings should be among the settings, {outside} are not"),
        (all(isinstance(h, int) and h >= 1 for h in least), f"horizons {least} should be whole numbers from 1 on"),
        (not keys, f"defaults {keys} should have keys such as 'rl.horizon'"),
        (isinstance(spec.labels, Labels), "labels should be a `Labels`, such as labels.IN_ORDER"),
        (_compiles(spec.tokenizer_pattern), f"tokenizer_pattern {spec.tokenizer_pattern!r} is no regular expression"),
        (drawn, "draw should be a Drawing, or 'package.module:object'"),
        (rates, "reported should hold `Reported` with rates between 0 and 1"),
    ):
        if not fine:
            wrong.append(complaint)
    return wrong


def _compiles(pattern: str) -> bool:
    try:
        return re.compile(pattern) is not None
    except (re.error, TypeError):
        return False
