"""Keeps the brokers' function library in a server: in every primary, and again after a failover."""

from __future__ import annotations

import logging
import re

from weft.broker.redis.connection import Connection

_LOG = logging.getLogger("weft.broker")
_FIRST_LINE = re.compile(r"#!\w+\s+name=(\w+)")


async def load(connection: Connection, source: str) -> None:
    """Loads a library unless the server has the same code. Functions are stored and replicated by Redis itself."""
    named = _FIRST_LINE.match(source)
    if named is None:
        raise ValueError("a function library begins with `#!lua name=<name>`")
    found = await connection.send("FUNCTION", "LIST", "LIBRARYNAME", named[1], "WITHCODE")
    for library in found:
        fields = dict(zip(library[::2], library[1::2], strict=True))
        if fields.get(b"library_code") == source.encode():
            return
    await connection.send("FUNCTION", "LOAD", "REPLACE", source)
    _LOG.info("Loaded the functions of Weft into Redis at %s", connection.address)
