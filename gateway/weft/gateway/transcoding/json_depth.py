"""Refuses JSON that is nested too deep, before a parser sees it.

Parsers recurse: the native one runs out of stack and takes the process with it at some 20,000 levels.
"""

from __future__ import annotations

from itertools import accumulate

MAX_DEPTH = 200  # levels; ProtoJSON parsers stop at 100 messages, two levels each inside lists

_KEPT = b'"[]{}'
_DROPPED = bytes(set(range(256)) - set(_KEPT))
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def too_deep(body: bytes) -> bool:
    """Whether a document is nested deeper than MAX_DEPTH.

    A malformed one is read as a parser would read it, up to where that stops.
    """
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    # Without its escapes a string ends at the next quote: what stands outside is every second piece.
    unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(unescaped.translate(None, _DROPPED).split(b'"')[::2])
    return max(accumulate(map(_STEP.__getitem__, outside)), default=0) > MAX_DEPTH
