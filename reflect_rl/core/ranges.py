"""The types of settings with their ranges, which pydantic checks, and what makes a dataclass of them."""

import functools
from dataclasses import dataclass
from typing import Annotated, Any, Literal, dataclass_transform, get_args, get_origin, get_type_hints

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

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


Count = whole(1)
Natural = whole(0)
Seed = whole(0, 2**32 - 1)
Fraction = real(0, 1)
LearningRate = real(0, 1, above=True)
Flag = Annotated[bool, Field(strict=True, description="true or false")]
Text = Annotated[str, Field(strict=True, description="text")]
Counts = Annotated[tuple[Count, ...], Field(min_length=1, description="a list of whole numbers from 1 on: [15,20]")]
Shares = Annotated[tuple[Fraction, ...], Field(description="a list of numbers from 0 to 1, such as [0.2,0.1]")]
Mixture = Annotated[
    tuple[Fraction, ...],
    BeforeValidator(lambda value: value if isinstance(value, list | tuple) else (value,)),
    Field(min_length=1, description="a number from 0 to 1, or a list of them: [0,0.3]"),
]
_hints = functools.cache(functools.partial(get_type_hints, include_extras=True))
_adapter = functools.cache(TypeAdapter)


def check(cls: type, section: str, name: str, value: Any) -> Any:
    """One setting as its dataclass will hold it; raises ReflectRLError on an unknown one and out of its range."""
    if name not in _hints(cls):
        raise unknown(f"setting of {section}", name, _hints(cls))
    hint, key = _hints(cls)[name], f"{section}.{name}".lstrip(".")
    try:
        return _adapter(hint).validate_python(value)
    except ValidationError as error:
        if get_origin(hint) is Literal:
            raise unknown(key, value, get_args(hint)) from error
        raise ReflectRLError(f"setting {key}={value!r} should be {hint.__metadata__[-1].description}") from error


@dataclass_transform(frozen_default=True)
class Settings:
    """Makes each subclass a frozen dataclass that holds its fields to their ranges; `section` stands in the errors."""

    def __init_subclass__(cls, section: str):
        cls.section = section
        dataclass(frozen=True)(cls)

    def __post_init__(self):
        for name in _hints(type(self)):
            object.__setattr__(self, name, check(type(self), self.section, name, getattr(self, name)))
