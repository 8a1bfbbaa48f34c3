"""How a WebSocket says how its call ended: one close code for each gRPC status.

1000 is OK; any other status is 4000 and its number, in the range that RFC 6455 (7.4.2) leaves to applications. What a
connection itself did wrong has codes of RFC 6455: 1002 broke the protocol, 1007 text that is not UTF-8, 1009 a
message that is too large, 1011 no answer to a ping.
"""

from __future__ import annotations

from weft import rpc

OK = 1000
_STATUS = 4000
_LONGEST_REASON = 123  # bytes: RFC 6455, 5.5, less the code


def code(error: rpc.Error | None) -> int:
    """The close code of a call that ended so; None: with OK."""
    if error is None:
        return OK
    number: int = error.code.value[0]
    return _STATUS + number


def reason(error: rpc.Error | None) -> str:
    """What the close frame says beside its code, for people; the whole error came in a message before."""
    if error is None:
        return ""
    text = f"{error.reason}: {error.message}".encode()[:_LONGEST_REASON]
    return text.decode(errors="ignore")
