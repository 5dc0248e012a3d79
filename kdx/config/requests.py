"""The keys of a command that is not kdx-train, from plain data to a dataclass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from kdx.config.errors import ConfigError, unknown
from kdx.ranges import explain

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def check_keys(kind: type[DataclassInstance], plain: Mapping[str, Any]) -> None:
    """Raise ConfigError for a key that is no field of the dataclass."""
    keys = [item.name for item in fields(kind)]
    for key in plain:
        if key not in keys:
            raise ConfigError(unknown(key, keys))


def typed(kind: type[T], plain: Mapping[str, Any]) -> T:
    """Return the dataclass with these values, None where there is none.

    Raises:
        ConfigError: For an unknown key, or a value that the annotation excludes.
    """
    check_keys(kind, plain)
    try:
        return TypeAdapter(kind).validate_python({item.name: plain.get(item.name) for item in fields(kind)})
    except ValidationError as error:
        raise ConfigError(explain(error)) from None
