"""What the application asks of a door that serves methods by their gRPC path."""

from __future__ import annotations

from typing import Protocol

from weft import rpc
from weft.gateway.doors.calls import Calls
from weft.gateway.http.exchange import Exchange
from weft.gateway.transcoding.catalog import Method


class Door(Protocol):
    """A way in."""

    @property
    def name(self) -> str:
        """For metrics and traces."""

    async def serve(self, calls: Calls, exchange: Exchange, method: Method) -> rpc.Error | None:
        """Serves a request and returns the error that was told, if one was, once the answer had begun.

        Raises:
            rpc.Error: nothing was sent yet; `fail` tells it.
        """

    async def fail(self, exchange: Exchange, error: rpc.Error) -> None:
        """Answers with an error, in the form that this door's callers read."""
