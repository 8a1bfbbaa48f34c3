"""JSON out of what a model said."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, NoReturn

_MOST_TOLD = 20
_FENCED = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL | re.IGNORECASE)


class Unfit(ValueError):
    """What a model gave does not make a message.

    Attributes:
        faults: where and what, each path such as "$.findings[0].offset".
    """

    def __init__(self, faults: Iterable[tuple[str, str]]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(f"{path}: {text}" for path, text in self.faults[:_MOST_TOLD]))


def json_of(text: str) -> Any:
    """The JSON value that a text is or holds: in a fenced block, or from its first brace on.

    Raises:
        Unfit: there is none.
    """
    found = text.strip()
    if not found:
        raise Unfit([("$", "there is no JSON: the answer is empty")])
    if fenced := _FENCED.search(found):
        found = fenced[1].strip()
    elif found[0] not in '{["' and "{" in found:
        found = found[found.index("{") :]
    try:
        value, end = _decoder().raw_decode(found)
    except json.JSONDecodeError as wrong:
        at = f"line {wrong.lineno} column {wrong.colno}"
        raise Unfit([("$", f"is no JSON: {wrong.msg} at {at}")]) from None
    except (ValueError, RecursionError) as wrong:
        raise Unfit([("$", f"is no JSON: {wrong}")]) from None
    if found[0] == "{" and "{" in found[end:]:
        raise Unfit([("$", "there is more than one JSON object")])
    return value


def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(object_pairs_hook=_once, parse_constant=_not_json)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:80]!r} is there twice")
    return found


def _not_json(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON value")
