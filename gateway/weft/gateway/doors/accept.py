"""Which of several forms of an answer a caller prefers (RFC 9110, 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence


def preferred(accepted: bytes, offered: Sequence[bytes]) -> bytes:
    """The offered media type that a caller likes best; of equals, and where it likes none, the first.

    Args:
        accepted: the Accept header; empty: anything.
        offered: lower-case media types.
    """
    if not accepted or accepted == b"*/*":
        return offered[0]
    ranges = [_read(part) for part in accepted.lower().split(b",")]
    best, most = offered[0], 0.0
    for each in offered:
        quality = _quality(each, ranges)
        if quality > most:
            best, most = each, quality
    return best


def _read(part: bytes) -> tuple[bytes, float]:
    kind, *parameters = part.split(b";")
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        if name.strip() == b"q":
            try:
                return kind.strip(), min(1.0, max(0.0, float(value)))
            except ValueError:
                return kind.strip(), 0.0
    return kind.strip(), 1.0


def _quality(offer: bytes, ranges: Sequence[tuple[bytes, float]]) -> float:
    """The most specific range that matches counts."""
    family = offer.partition(b"/")[0] + b"/*"
    for wanted in (offer, family, b"*/*"):
        for kind, quality in ranges:
            if kind == wanted:
                return quality
    return 0.0
