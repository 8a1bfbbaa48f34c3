"""Spans of time as people write them: "250ms", "30s", "5m", "2h", "7d"."""

from __future__ import annotations

import re
from typing import Final

from google.protobuf.duration_pb2 import Duration

_FORM: Final = re.compile(r"(\d{1,12})(?:\.(\d{1,9}))?(ms|s|m|h|d)")
_NANOS: Final = {
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3_600 * 10**9,
    "d": 86_400 * 10**9,
}


def duration(text: str) -> Duration:
    """The span that a text says.

    Raises:
        ValueError: it says none.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'{text!r} is no span of time, such as "30s", "5m", "2h" or "7d"')
    whole, part, unit = match.groups()
    nanos = int(whole) * _NANOS[unit]
    if part:
        nanos += int(part) * _NANOS[unit] // 10 ** len(part)
    return Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)


def shown(span: Duration) -> str:
    """A span in its largest whole unit."""
    nanos = span.seconds * 10**9 + span.nanos
    for unit in ("d", "h", "m", "s", "ms"):
        if nanos and nanos % _NANOS[unit] == 0:
            return f"{nanos // _NANOS[unit]}{unit}"
    return f"{nanos / 10**9:.9f}".rstrip("0").rstrip(".") + "s"
