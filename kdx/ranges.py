"""Annotated types for value ranges in constructor signatures, the decorator that validates them, and ShapeError.

A constructor's signature is the schema of its YAML. A range is therefore written once, as an annotation:
`kdx.config.signatures` reads it without importing the module, and `validated` checks it when the object is created.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, ValidationError, validate_call

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Number = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Text = Annotated[str, Field(min_length=1)]
Resolution = Annotated[int, Field(ge=4, le=4096)]

T = TypeVar("T", bound=type)


class ShapeError(ValueError):
    """A plug-in returned a tensor or array of the wrong shape or type; the message names it, both shapes and the remedy."""


def explain(error: ValidationError) -> str:
    """Return pydantic's first error as one line: location, message and value."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where + ': ' if where else ''}{first['msg']}, got {first['input']!r}"


def validated(cls: T) -> T:
    """Return the class with a constructor that raises ValueError if an argument does not match its annotation."""
    original: Callable[..., None] = cls.__init__  # type: ignore[misc]  # a class decorator replaces __init__
    checked = validate_call(config=ConfigDict(arbitrary_types_allowed=True))(original)

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            checked(self, *args, **kwargs)
        except ValidationError as error:
            raise ValueError(f"{cls.__name__}: {explain(error)}") from None

    __init__.__wrapped__ = original  # type: ignore[attr-defined]  # as functools.wraps
    __init__.__doc__ = original.__doc__
    cls.__init__ = __init__  # type: ignore[misc]  # as above
    return cls
