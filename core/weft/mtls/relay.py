"""A socket of this process alone behind which a server is that wants mTLS, for clients that cannot check who it is."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable

_CHUNK = 64 * 1024


@contextlib.asynccontextmanager
async def relayed(
    address: str,
    context: ssl.SSLContext,
    check: Callable[[asyncio.BaseTransport], None],
) -> AsyncIterator[str]:
    """Connects to "IP:port", and yields the target at which gRPC reaches it, by one connection.

    Args:
        address: where.
        context: by what.
        check: sees that the server is one that is expected there, such as `check_server`; raises WrongServer.

    Raises:
        OSError: it cannot be reached, or is not one of those that are expected there.
    """
    host, _, port = address.rpartition(":")
    far = await asyncio.open_connection(host.strip("[]"), int(port), ssl=context)
    folder = await asyncio.to_thread(tempfile.mkdtemp, prefix="weft-relay-")
    copying: set[asyncio.Task[None]] = set()

    def joined(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for source, sink in ((reader, far[1]), (far[0], writer)):
            copying.add(asyncio.create_task(_copy(source, sink)))

    try:
        check(far[1].transport)
        server = await asyncio.start_unix_server(joined, f"{folder}/door")
        try:
            yield f"unix:{folder}/door"
        finally:
            server.close()
    finally:
        far[1].transport.abort()
        for task in copying:
            task.cancel()
        await asyncio.gather(*copying, return_exceptions=True)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while chunk := await source.read(_CHUNK):
            sink.write(chunk)
            await sink.drain()
    finally:
        sink.close()
