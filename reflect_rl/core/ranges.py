"""Ranges of settings, and the dataclasses that hold their fields to them (checked by pydantic)."""

import functools
from dataclasses import dataclass
from typing import Annotated, Any, Literal, dataclass_transform, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError

from reflect_rl.core.errors import ReflectRLError, unknown


def whole(low: int, high: int = 10**9) -> Any:
    """The type of whole numbers from `low` to `high`; booleans are none."""
    text = f"a whole number from {low} " + (f"to {high:,}" if high != 10**9 else "on")
    return Annotated[int, Field(strict=True, ge=low, le=high, description=text)]


def real(low: float, high: float, above: bool = False, below: bool = False) -> Any:
    """The type of numbers from `low` to `high`, without `low` itself where `above`, without `high` where `below`."""
    upper = "and below" if below else "and at most" if above else "to"
    text = f"a number {'above' if above else 'from'} {low:g} {upper} {high:g}"
    bounds = {"gt" if above else "ge": low, "lt" if below else "le": high}
    read = BeforeValidator(lambda value: float(value) if isinstance(value, str) else value)  # YAML 1.1: 3e-3 is text
    return Annotated[float, read, Field(strict=True, allow_inf_nan=False, description=text, **bounds)]


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
_COUNTS = "a list of whole numbers from 1 on, such as [15,20]"
Counts = Annotated[tuple[Count, ...], Field(min_length=1, description=_COUNTS)]
_SHARES = "a list of numbers from 0 to 1 that sum to at most 1, such as [0.2,0.1]"
Shares = Annotated[tuple[Fraction, ...], AfterValidator(_at_most_all), Field(description=_SHARES)]

_hints = functools.cache(functools.partial(get_type_hints, include_extras=True))
_adapter = functools.cache(TypeAdapter)


def in_range(key: str, hint: Any, value: Any) -> Any:
    """A value as its type holds it; raises ReflectRLError with the setting, the value and the range."""
    try:
        return _adapter(hint).validate_python(value)
    except ValidationError as error:
        if get_origin(hint) is Literal:
            raise unknown(key, value, get_args(hint)) from error
        text = next(item.description for item in hint.__metadata__ if hasattr(item, "description"))
        raise ReflectRLError(f"setting {key}={value!r} should be {text}") from error


def check(cls: type, section: str, name: str, value: Any) -> Any:
    """One setting of a section as its dataclass will hold it.

    Raises:
        ReflectRLError: the section has no such setting, or the value is out of its range.
    """
    if name not in _hints(cls):
        raise unknown(f"setting of {section}", name, _hints(cls))
    return in_range(f"{section}.{name}", _hints(cls)[name], value)


@dataclass_transform(frozen_default=True)
class Settings:
    """Makes each subclass a frozen dataclass that holds its fields to their ranges; `section` stands in the errors."""

    def __init_subclass__(cls, section: str):
        cls.section = section
        dataclass(frozen=True)(cls)

    def __post_init__(self):
        for name in _hints(type(self)):
            object.__setattr__(self, name, check(type(self), self.section, name, getattr(self, name)))
