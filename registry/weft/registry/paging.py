"""Page tokens of ListAgents: opaque to callers, bound to the filter they were made for."""

from __future__ import annotations

import base64
import binascii

from weft import rpc
from weft.v1 import agent_pb2

DEFAULT_SIZE = 100
MAX_SIZE = 1_000


def size(asked: int) -> int:
    """The page size to use.

    Raises:
        rpc.InvalidArgument: it is negative.
    """
    if asked < 0:
        raise rpc.InvalidArgument("must not be negative", field="page_size")
    return min(asked, MAX_SIZE) or DEFAULT_SIZE


def token(last: str, state: agent_pb2.InstanceState.ValueType) -> str:
    """The token of the page behind the agent `last`."""
    return base64.urlsafe_b64encode(f"1:{state}:{last}".encode()).decode()


def behind(page_token: str, state: agent_pb2.InstanceState.ValueType) -> str:
    """The name the page begins behind; empty for the first page.

    Raises:
        rpc.InvalidArgument: the token is not one of ours, or of a list with another filter.
    """
    if not page_token:
        return ""
    try:
        raw = base64.b64decode(page_token.encode(), altchars=b"-_", validate=True)
        version, made_for, last = raw.decode().split(":", 2)
    except (binascii.Error, UnicodeError, ValueError):
        raise rpc.InvalidArgument("is not a token of this list", field="page_token") from None
    if (version, made_for) != ("1", str(state)):
        raise rpc.InvalidArgument("was made for another filter", field="page_token")
    return last
