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
REFUSES = "DATABASE_REFUSES"
"""Reason of the error where the server lets nobody in as this user, or has no such database."""
# SQLSTATE or its class (PostgreSQL, Appendix A) of a connection that is lost or cannot be had: a server that goes down
# or comes up, one that cuts whoever is idle in a transaction or takes too long over it.
_SERVER_AWAY = ("08", "57P", "25P03", "25P04")
# These are also said of a statement; of a connection, which FATAL tells, they mean that it cannot be had now: 55000 is
# a database that takes no connections, as while it is restored or renamed.
_AWAY_WHERE_FATAL = ("55000", "58", "XX000")
# A server that stands by and does not take changes (yet), and one whose disk fails.
_CANNOT_NOW = ("25006", "58")
_DANGLING = "Something this depends on is not there, or something depends on it."
_NOT_STORABLE = "A value is of a form that cannot be stored."
DRIVER_ERRORS = (
    OSError,  # TimeoutError is one
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""All that the driver raises. What passes untranslated is a bug, here or in the server."""
# asyncpg's own words for a connection that was closed under a caller's hands.
_CLOSED = ("connection is closed", "connection was closed", "connection has been released")


def broke(failed: BaseException) -> bool:
    """Whether the connection was lost or could not be made: the statement may or may not have run."""
    if isinstance(failed, asyncpg.PostgresError):
        state = failed.sqlstate or ""
        return state.startswith(_SERVER_AWAY) or (
            state.startswith(_AWAY_WHERE_FATAL) and _ended_connection(failed)
        )
    if isinstance(failed, asyncpg.InterfaceError):
        return any(words in str(failed) for words in _CLOSED)
    # asyncpg's state machine trips when the server goes away between two of its messages.
    return isinstance(failed, OSError | asyncpg.InternalClientError) and not isinstance(
        failed, TimeoutError
    )


def _ended_connection(failed: asyncpg.PostgresError) -> bool:
    # The field "V": the severity in no language but its own.
    return getattr(failed, "severity_en", None) in {"FATAL", "PANIC"}


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns driver errors raised in the block into rpc errors."""
    try:
        yield
    except DRIVER_ERRORS as failed:
        error = _translate(failed)
        if error is None:
            raise
        raise error from failed


def _translate(failed: Exception) -> rpc.Error | None:
    if isinstance(failed, TimeoutError):
        return rpc.DeadlineExceeded("The database did not answer in time.")
    if broke(failed):
        return _away()
    if not isinstance(failed, asyncpg.PostgresError):
        return None
    return _by_state(failed, failed.sqlstate or "")


def _by_state(failed: asyncpg.PostgresError, state: str) -> rpc.Error | None:
    # The server's detail is left out: it holds values, which may be secret.
    constraint = getattr(failed, "constraint_name", None)
    where = {"constraint": str(constraint)} if constraint else {}
    table: tuple[tuple[tuple[str, ...], Callable[[], rpc.Error]], ...] = (
        (("53",), _out_of_resources),
        (_CANNOT_NOW, _away),
        (("28", "3D"), lambda: _refuses(failed)),
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


def _away() -> rpc.Error:
    return rpc.Unavailable(
        "The database is not reachable now.", reason=_UNAVAILABLE, retry_after=_RETRY_AFTER
    )


def _refuses(failed: asyncpg.PostgresError) -> rpc.Error:
    return rpc.FailedPrecondition(f"The database refuses: {failed}.", reason=REFUSES)


def _out_of_resources() -> rpc.Error:
    return rpc.Unavailable(
        "The database is out of resources.", reason=_UNAVAILABLE, retry_after=_RETRY_AFTER
    )
