"""Long-lived calls of the registry, and how they are ended from the outside."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from weft import rpc


class RegistryStopping(rpc.Unavailable):
    """The registry is stopping; connect again."""

    reason = "REGISTRY_STOPPING"


class Stream:
    """One call."""

    __slots__ = ("_error", "_scope")

    def __init__(self, scope: asyncio.Timeout) -> None:
        self._scope: asyncio.Timeout | None = scope
        self._error: rpc.Error | None = None

    def end(self, error: rpc.Error) -> None:
        """Ends the call with an error, wherever it waits. A call that is over or ending is left alone."""
        if self._scope is not None and self._error is None:
            self._error = error
            self._scope.reschedule(asyncio.get_running_loop().time())

    def over(self) -> rpc.Error | None:
        """Closes the handle; the error the call was ended with, if it was."""
        self._scope = None
        return self._error


class Streams:
    """All open calls of a registry."""

    def __init__(self) -> None:
        self._open: set[Stream] = set()
        self._closed = False

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Stream]:
        """The block of one call.

        Raises:
            rpc.Error: the error given to `Stream.end`.
            RegistryStopping: the registry stops.
        """
        if self._closed:
            raise RegistryStopping
        scope = asyncio.timeout(None)
        stream = Stream(scope)
        self._open.add(stream)
        try:
            async with scope:
                yield stream
        except TimeoutError:
            error = stream.over()
            if error is None:
                raise
            raise error from None
        finally:
            stream.over()
            self._open.discard(stream)

    def __len__(self) -> int:
        return len(self._open)

    def close(self) -> None:
        """Ends every call, and every one that comes later."""
        self._closed = True
        for stream in tuple(self._open):
            stream.end(RegistryStopping())
