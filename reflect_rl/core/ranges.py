"""Ranges of settings, and dataclasses that hold their fields to them (pydantic's)."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pydantic
from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError

from reflect_rl.core.errors import ReflectRLError, unknown


def whole(low: int, high: int = 10**9) -> Any:
    """The type of whole numbers from `low` to `high`; booleans are none."""
    text = f"a whole number from {low} to {high:,}".replace(f" to {10**9:,}", " on")
    return Annotated[int, Field(strict=True, ge=low, le=high, description=text)]


def _number(value: Any) -> Any:
    """YAML 1.1 reads 3e-3 as text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def real(low: float, high: float, above: bool = False, below: bool = False) -> Any:
    """The type of numbers from `low` to `high`, without `low` itself where `above`, without `high` where `below`."""
    bounds = {"gt" if above else "ge": low, "lt" if below else "le": high}
    text = f"a number {'above' if above else 'from'} {low:g} {'and below' if below else 'to'} {high:g}"
    text = text if not above or below else text.replace(" to ", " and at most ")
    return Annotated[
        float, BeforeValidator(_number), Field(strict=True, allow_inf_nan=False, description=text, **bounds)
    ]


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _at_most_all(shares: tuple[float, ...]) -> tuple[float, ...]:
    if sum(shares) > 1 + 1e-9:
        raise ValueError
    return shares


Count = whole(1)
Natural = whole(0)
Seed = whole(0, 2**32 - 1)
Fraction = real(0, 1)
LearningRate = real(0, 1, above=True)
Flag = Annotated[bool, Field(strict=True, description="true or false")]
Text = Annotated[str, Field(strict=True, description="text")]
Counts = Annotated[
    tuple[Count, ...],
    BeforeValidator(_tuple),
    Field(min_length=1, description="a list of whole numbers from 1 on, such as [15,20]"),
]
Shares = Annotated[
    tuple[Fraction, ...],
    BeforeValidator(_tuple),
    AfterValidator(_at_most_all),
    Field(description="a list of numbers from 0 to 1 that sum to at most 1, such as [0.2,0.1]"),
]


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


@functools.cache
def _adapter(hint: Any) -> TypeAdapter:
    return TypeAdapter(hint)


def in_range(key: str, hint: Any, value: Any) -> Any:
    """A value as its type holds it; raises ReflectRLError with the setting, the value and the range."""
    try:
        return _adapter(hint).validate_python(value)
    except ValidationError as error:
        if get_origin(hint) is Literal:
            raise unknown(key, value, get_args(hint)) from error
        text = next(item.description for item in hint.__metadata__ if getattr(item, "description", None))
        raise ReflectRLError(f"setting {key}={value!r} should be {text}") from error


def check(cls: type, section: str, name: str, value: Any) -> Any:
    """One setting of a section as its dataclass will hold it.

    Raises:
        ReflectRLError: the section has no such setting, or the value is out of its range.
    """
    if name not in _hints(cls):
        raise unknown(f"setting of {section}", name, _hints(cls))
    return in_range(f"{section}.{name}", _hints(cls)[name], value)


def settings(section: str) -> Callable[[type], type]:
    """Make a frozen dataclass whose fields are held to their ranges; `section` stands in its errors."""

    def decorate(cls: type) -> type:
        made = pydantic.dataclasses.dataclass(frozen=True, config=pydantic.ConfigDict(extra="forbid"))(cls)
        validated = made.__init__

        @functools.wraps(validated)
        def __init__(self, *args, **kwargs):
            try:
                validated(self, *args, **kwargs)
            except ValidationError as error:
                names = [field.name for field in dataclasses.fields(made)]
                for name, value in (dict(zip(names, args, strict=False)) | kwargs).items():
                    check(made, section, name, value)
                raise ReflectRLError(f"settings of {section}: {error.errors()[0]['msg']}") from error

        made.__init__ = __init__
        return made

    return decorate
