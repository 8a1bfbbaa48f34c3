"""What the driver and the server say, in the errors of `weft.rpc`. The one place that knows both.

A wrong statement or a missing table is a bug and passes unchanged: the RPC server logs it and tells
the caller nothing of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta

import asyncpg

from weft import rpc

_RETRY_AFTER = timedelta(milliseconds=500)
_UNAVAILABLE = "DATABASE_UNAVAILABLE"
# SQLSTATE or its class (PostgreSQL, Appendix A) of a server that is going down or coming up.
_SERVER_AWAY = ("08", "57P01", "57P02", "57P03", "57P05")
_DANGLING = "Something this depends on is not there, or something depends on it."
_NOT_STORABLE = "A value is of a form that cannot be stored."
# asyncpg's own words for a connection that was closed under a caller's hands.
_CLOSED = ("connection is closed", "connection was closed", "connection has been released")


def broke(failed: BaseException) -> bool:
    """Whether the connection was lost or could not be made: the statement may or may not have run."""
    if isinstance(failed, asyncpg.PostgresError):
        return (failed.sqlstate or "").startswith(_SERVER_AWAY)
    if isinstance(failed, asyncpg.InterfaceError):
        return any(words in str(failed) for words in _CLOSED)
    # asyncpg's state machine trips when the server goes away between two of its messages.
    return isinstance(failed, OSError | asyncpg.InternalClientError) and not isinstance(
        failed, TimeoutError
    )


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns driver errors raised in the block into rpc errors."""
    try:
        yield
    except (
        OSError,  # TimeoutError is one
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
    ) as failed:
        error = _translate(failed)
        if error is None:
            raise
        raise error from failed


def _translate(failed: Exception) -> rpc.Error | None:
    if isinstance(failed, TimeoutError):
        return rpc.DeadlineExceeded("The database did not answer in time.")
    if broke(failed):
        return rpc.Unavailable(
            "The database is not reachable now.", reason=_UNAVAILABLE, retry_after=_RETRY_AFTER
        )
    if not isinstance(failed, asyncpg.PostgresError):
        return None
    return _by_state(failed, failed.sqlstate or "")


def _by_state(failed: asyncpg.PostgresError, state: str) -> rpc.Error | None:
    # The server's detail is left out: it holds values, which may be secret.
    constraint = getattr(failed, "constraint_name", None)
    where = {"constraint": str(constraint)} if constraint else {}
    table: tuple[tuple[tuple[str, ...], Callable[[], rpc.Error]], ...] = (
        (("53",), _out_of_resources),
        (("28", "3D"), lambda: rpc.FailedPrecondition(f"The database refuses: {failed}.")),
        (("40001", "40P01", "55P03"), rpc.Aborted),
        (("57014",), lambda: rpc.DeadlineExceeded("The database gave up on a long statement.")),
        (("23505",), lambda: rpc.AlreadyExists(metadata=where)),
        (("23001", "23503", "23P01"), lambda: rpc.FailedPrecondition(_DANGLING, metadata=where)),
        (("22", "23502", "23514"), lambda: rpc.InvalidArgument(_NOT_STORABLE, metadata=where)),
    )
    for states, error in table:
        if state.startswith(states):
            return error()
    return None


def _out_of_resources() -> rpc.Error:
    return rpc.Unavailable(
        "The database is out of resources.", reason=_UNAVAILABLE, retry_after=_RETRY_AFTER
    )
