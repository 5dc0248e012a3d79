"""The keys of a command that is not kdx-train, from plain data to a dataclass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from kdx.config.errors import ConfigError, unknown
from kdx.ranges import explain

T = TypeVar("T")


def check_keys(kind: Any, plain: Mapping[str, Any]) -> list[str]:
    """Return the names of the fields of a dataclass. ConfigError for a key that is none of them."""
    keys = [item.name for item in fields(kind)]
    for key in plain:
        if key not in keys:
            raise ConfigError(unknown(key, keys))
    return keys


def typed(kind: type[T], plain: Mapping[str, Any]) -> T:
    """Return the dataclass with these values, None where there is none.

    Raises:
        ConfigError: For an unknown key, or a value that the annotation excludes.
    """
    values = {name: plain.get(name) for name in check_keys(kind, plain)}
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise ConfigError(explain(error)) from None
