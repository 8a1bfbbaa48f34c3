"""Page sizes and page tokens (AIP-158): a token is opaque to callers, and bound to the list and filter it was made for."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence

from weft.rpc.errors import InvalidArgument

Position = Sequence[str | int | float]


def page_size(asked: int, *, default: int, most: int, field: str = "page_size") -> int:
    """The page size to use.

    Raises:
        InvalidArgument: it is negative.
    """
    if asked < 0:
        raise InvalidArgument("must not be negative", field=field)
    return min(asked, most) or default


def page_token(last: Position, *, made_for: str) -> str:
    """A token of the page behind the entry at `last`, for the list `made_for` names."""
    return base64.urlsafe_b64encode(json.dumps([made_for, *last]).encode()).decode()


def page_begin(token: str, *, made_for: str, like: Position) -> Position | None:
    """The position the page begins behind; None: the first page. `like` shows the types a position has.

    Raises:
        InvalidArgument: the token is not one of ours, or of a list with another filter.
    """
    if not token:
        return None
    try:
        raw = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
        purpose, *last = json.loads(raw)
    except (binascii.Error, UnicodeError, ValueError, TypeError, RecursionError):
        raise InvalidArgument("is not a token of this list", field="page_token") from None
    if purpose != made_for:
        raise InvalidArgument("was made for another filter", field="page_token")
    if [type(value) for value in last] != [type(value) for value in like] or not all(
        map(_is_position, last)
    ):
        raise InvalidArgument("is not a token of this list", field="page_token")
    return tuple(last)


def _is_position(value: str | float) -> bool:
    """Whether a database could hold it."""
    if isinstance(value, int):
        return -(1 << 63) <= value < 1 << 63
    return not isinstance(value, str) or "\0" not in value
