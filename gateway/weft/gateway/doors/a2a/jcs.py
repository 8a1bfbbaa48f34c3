"""JSON Canonicalization Scheme (RFC 8785): one spelling for each JSON value, so that it can be signed."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

_LEAST_PLAIN, _MOST_PLAIN = 1e-6, 1e21  # ECMAScript writes other numbers with an exponent


def canonical(value: Any) -> str:
    """The canonical form of a value as `json.loads` gives it.

    Raises:
        ValueError: it has NaN or an infinity in it.
    """
    if isinstance(value, dict):
        members = sorted(value.items(), key=lambda member: member[0].encode("utf-16-be"))
        return (
            "{" + ",".join(f"{canonical(name)}:{canonical(each)}" for name, each in members) + "}"
        )
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return json.dumps(value, ensure_ascii=False)
    return _number(float(value))


def _number(value: float) -> str:
    if value == 0:
        return "0"
    text = json.dumps(value, allow_nan=False)  # the shortest digits that mean it
    if _LEAST_PLAIN <= abs(value) < _MOST_PLAIN:
        return format(Decimal(text), "f").removesuffix(".0")
    digits, _, exponent = text.partition("e")
    return f"{digits}e{int(exponent):+d}"
