"""Single calls to a broker, and to the next one if it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc

from weft import rpc
from weft.agents.messaging.addresses import Addresses
from weft.rpc import error_from_call
from weft.rpc.errors import DETAILS_KEY
from weft.v1 import broker_pb2_grpc

if TYPE_CHECKING:
    from weft.mtls import Credentials

_WAIT = timedelta(seconds=30)


class Calls:
    """Calls brokers; each call may reach them more than once. Close it by `close`.

    Args:
        brokers: "host:port" of each broker, joined by commas.
        mtls: what it shows to them; None: connections are not encrypted.
    """

    def __init__(self, brokers: str | Sequence[str], *, mtls: Credentials | None = None) -> None:
        self._addresses = Addresses(brokers, mtls)
        # Kept for good: closing one would cancel the calls of others that still wait on it.
        self._channels: dict[str, rpc.Channel] = {}

    async def close(self) -> None:
        """Disconnects; calls that wait are cancelled."""
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()

    async def __call__(self, name: str, request: Any) -> Any:
        """Calls a method of the broker until the current deadline passes, 30 s where there is none.

        Raises:
            rpc.Error: what the broker answers, or Unavailable when none is there.
        """
        with rpc.Deadline.after(_WAIT).min(rpc.Deadline.current()).applied() as deadline:
            while True:
                address = self._addresses.current
                if address not in self._channels:
                    self._channels[address] = self._addresses.channel()
                stub = broker_pb2_grpc.BrokerServiceStub(self._channels[address])
                try:
                    answer = await getattr(stub, name)(request)
                except grpc.aio.AioRpcError as failed:
                    if not _lost(failed):
                        raise error_from_call(failed) from None
                    # Of many that wait on one broker, only the first moves on.
                    pause = self._addresses.failed(address)
                    if deadline.seconds() <= pause:
                        raise error_from_call(failed) from None
                    await asyncio.sleep(pause)
                else:
                    self._addresses.worked()
                    return answer


def _lost(failed: grpc.aio.AioRpcError) -> bool:
    """Whether it was the connection that failed, not the broker that refused.

    Of a connection that breaks under an answer gRPC may say UNKNOWN ("Stream removed") or INTERNAL; what a broker says
    has details.
    """
    code = failed.code()
    if code in {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}:
        return all(key != DETAILS_KEY for key, _ in failed.trailing_metadata() or ())
    return code is grpc.StatusCode.UNAVAILABLE
