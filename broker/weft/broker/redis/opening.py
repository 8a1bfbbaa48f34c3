"""Opens connections and says who we are."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

from weft.broker.redis.connection import Argument, Connection
from weft.broker.redis.errors import ConnectionLost, ReplyError, StoreUnfit
from weft.broker.redis.url import Account, Address

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 1.0
_NAME = "weft-broker"

AnyConnection = TypeVar("AnyConnection", bound=Connection)


async def connect(make: Callable[[], AnyConnection], address: Address) -> AnyConnection:
    """Connects to an address.

    Raises:
        ConnectionLost: nobody answers there.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            if address.port:
                _, made = await loop.create_connection(make, address.host, address.port)
            else:
                _, made = await loop.create_unix_connection(make, address.host)
    except (OSError, TimeoutError) as error:
        raise ConnectionLost(f"Redis at {address} cannot be reached: {error}") from error
    return made


async def introduce(connection: Connection, account: Account) -> None:
    """Says who we are."""
    if account.password:
        names = (account.user,) if account.user else ()
        await connection.send("AUTH", *names, account.password)
    # An account may lack CLIENT; the name only helps to find us in a list.
    with contextlib.suppress(ReplyError, StoreUnfit):
        await connection.send("CLIENT", "SETNAME", _NAME)


async def ask(address: Address, account: Account, *command: Argument) -> Any:
    """The answer of a server to one question, over a connection of its own.

    Raises:
        StoreUnavailable: it does not answer.
        StoreUnfit: it does not know us.
    """
    connection = await connect(lambda: Connection(address, _ANSWER_SECONDS), address)
    try:
        await introduce(connection, account)
        return await connection.send(*command)
    finally:
        await connection.close()
