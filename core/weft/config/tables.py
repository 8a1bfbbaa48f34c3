"""Tables of the settings file as dataclasses, one for each name: `[models.NAME]` and their like."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def read_tables(given: object, kind: Callable[..., T], what: str) -> dict[str, T]:
    """Tables by name.

    Args:
        given: the tables, or the same in JSON.
        kind: a dataclass with `name`, whose other fields are what a table holds: text, numbers, bool, tuples of text
            or of integers, and Literal.
        what: the settings are called.

    Raises:
        ValueError: something cannot be used; the message names it.
    """
    return {name: made(name, table, kind) for name, table in tables_of(given, what).items()}


def tables_of(given: object, what: str) -> dict[str, Mapping[str, Any]]:
    """The same as they are given. Raises ValueError."""
    tables: object = json.loads(given) if isinstance(given, str) else given
    if not isinstance(tables, Mapping):
        raise ValueError(f"must be tables, [{what}.NAME]")  # noqa: TRY004 all that is wrong is told alike
    for name, table in tables.items():
        if not isinstance(table, Mapping):
            raise ValueError(f"{name}: must be a table, [{what}.{name}]")  # noqa: TRY004 same
    return {str(name): table for name, table in tables.items()}


def tables_as_json(tables: Mapping[str, Any]) -> str:
    """What `read_tables` reads."""
    return json.dumps({name: said(table) for name, table in tables.items()})


def said(table: Any) -> dict[str, Any]:
    """What a table says that is not said anyway."""
    return {
        each.name: getattr(table, each.name)
        for each in dataclasses.fields(table)
        if each.name != "name" and getattr(table, each.name) != each.default
    }


def made(name: str, table: Mapping[str, Any], kind: Callable[..., T]) -> T:
    """What one table says. Raises ValueError."""
    hints = get_type_hints(kind)
    values: dict[str, Any] = {"name": name}
    for key, value in table.items():
        if key not in hints or key == "name":
            raise ValueError(f"{name}: there is no setting {key!r}")
        values[key] = _value(name, key, hints[key], value)
    try:
        return kind(**values)
    except TypeError:
        missing = [each for each in hints if each not in values]
        raise ValueError(f"{name}: give {missing[0]} =") from None
    except ValueError as wrong:
        raise ValueError(f"{name}: {wrong}") from None


def _value(name: str, key: str, hint: Any, value: object) -> object:
    if get_origin(hint) is Literal:
        if value in get_args(hint):
            return value
        named = ", ".join(filter(None, get_args(hint)))
        raise ValueError(f"{name}: {key} must be one of {named}")
    if get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        given = value if isinstance(value, list) else [value]
        if all(type(each) is inner for each in given):
            return tuple(given)
    elif type(value) is hint:
        return value
    elif hint is float and type(value) is int:
        return float(value)
    raise ValueError(f"{name}: {key} cannot be {value!r}"[:200])
