"""Redis' part of a backup: a snapshot (RDB) of each primary, taken as a replica takes it.

A snapshot is the state of one moment, whatever goes on meanwhile; key by key, a message that moves between two keys would be
missed. It goes back by way of a server that reads it, key by key: so it may go to another server, a cluster or out of one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import redis.asyncio
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from weft import embedded
from weft.broker.redis import errors
from weft.broker.redis.url import Account, Address, Url, parse
from weft.cli import primaries
from weft.cli.backup.manifest import RedisPart
from weft.cli.failures import Failure
from weft.cli.primaries import Primary

Report = Callable[[str], None]

_PATIENCE = timedelta(minutes=5)  # for one answer; the fork for a large snapshot takes its time
_CHUNK = 1 << 20  # bytes
_BATCH = 64  # keys
_BROKER = "weft-broker"
_REFUSED = (errors.StoreUnfit, errors.ReplyError, RedisError)
_AWAY = (errors.StoreUnavailable, OSError, RedisConnectionError, RedisTimeoutError)
_MAGIC = (b"REDIS", b"VALKEY")


async def dump(url: str, folder: Path, report: Report) -> RedisPart:
    """Takes a snapshot of each primary.

    Raises:
        Failure: one cannot be reached, or gives no snapshots.
    """
    with _told():
        where = parse(url)
        found = await primaries.of(where)
        async with primaries.client(found[0], where, _PATIENCE) as client:
            facts = await client.info("server")
        files = [f"redis-{number}.rdb" for number in range(len(found))]
        report(f"redis: taking a snapshot of {', '.join(str(each.address) for each in found)}")
        # All at once, so that they are of about one moment.
        async with asyncio.TaskGroup() as tasks:
            for primary, file in zip(found, files, strict=True):
                tasks.create_task(_snapshot(primary.address, where.account, folder / file))
    return RedisPart(
        files=files,
        vendor="valkey" if facts.get("server_name") == "valkey" else "redis",
        version=str(facts.get("valkey_version") or facts["redis_version"]),
        database=where.database,
    )


async def refuse_unfit(url: str, *, force: bool) -> None:
    """Looks at the Redis that snapshots are to go to.

    Raises:
        Failure: brokers use it; it has keys, and not `force`.
    """
    with _told():
        where = parse(url)
        for primary in await primaries.of(where):
            async with primaries.client(primary, where, _PATIENCE) as client:
                if any(each["name"] == _BROKER for each in await client.client_list()):
                    raise Failure(
                        f"A broker is connected to Redis at {primary.address}. Stop it first."
                    )
                count = await client.dbsize()
            if count and not force:
                raise Failure(
                    f"Redis at {primary.address} is not empty: it has {count:,} keys. Name an empty one, "
                    "or replace what is there: --force."
                )


async def restore(url: str, part: RedisPart, folder: Path, report: Report) -> int:
    """Brings back all keys with what they expire by, and the functions; how many keys. What was there is gone.

    Raises:
        Failure: the server refuses; a part of it is there then.
    """
    count = 0
    with _told():
        where = parse(url)
        async with contextlib.AsyncExitStack() as stack:
            target = _Target(await primaries.of(where), where, stack)
            await target.begin()
            for file in part.files:
                source = await stack.enter_async_context(
                    embedded.serving_snapshot(folder / file, vendor=part.vendor)
                )
                source = source.replace("?db=0", f"?db={part.database}")
                async with embedded.redis_client(source, timeout=_PATIENCE) as reader:
                    total = await reader.dbsize()
                    await target.load_functions(await reader.function_dump())
                    async for keys in _keys(reader):
                        count += await target.put(reader, keys)
                        report(f"redis: {count:,} keys of {file}, which has {total:,}")
    return count


class _Target:
    """The primaries that keys go to, each by its slot."""

    def __init__(
        self, primaries: Sequence[Primary], where: Url, stack: contextlib.AsyncExitStack
    ) -> None:
        self._primaries = primaries
        self._where = where
        self._stack = stack
        self._clients: list[redis.asyncio.Redis] = []

    async def begin(self) -> None:
        """Connects, and makes room."""
        for primary in self._primaries:
            client = await self._stack.enter_async_context(
                primaries.client(primary, self._where, _PATIENCE)
            )
            await client.flushdb()
            self._clients.append(client)

    async def load_functions(self, dumped: bytes) -> None:
        """Loads the functions of a snapshot, over those of the same name."""
        for client in self._clients:
            await _restore_functions(client, dumped)

    async def put(self, reader: redis.asyncio.Redis, keys: Sequence[bytes]) -> int:
        """Copies keys; how many there were still."""
        async with reader.pipeline(transaction=False) as asked:
            for key in keys:
                asked.dump(key)
                asked.pexpiretime(key)  # type: ignore[arg-type]  # bytes are as good as str
            told = await asked.execute()
        pipelines = [client.pipeline(transaction=False) for client in self._clients]
        count = 0
        for key, content, expires in zip(keys, told[::2], told[1::2], strict=True):
            if content is None:  # its time has come meanwhile
                continue
            until = max(int(expires), 0)
            pipelines[self._owner(key)].restore(key, until, content, absttl=True, replace=True)
            count += 1
        for pipeline in pipelines:
            await pipeline.execute()
        return count

    def _owner(self, key: bytes) -> int:
        slot = key_slot(key)
        for number, primary in enumerate(self._primaries):
            if any(first <= slot <= last for first, last in primary.slots):
                return number
        raise Failure(f"No primary of the cluster has slot {slot}.")


async def _restore_functions(client: redis.asyncio.Redis, dumped: bytes) -> None:
    # The client's own function_restore takes a str, which bytes that are no text cannot be made into.
    await client.execute_command("FUNCTION RESTORE", dumped, "REPLACE")  # type: ignore[no-untyped-call]


async def _keys(reader: redis.asyncio.Redis) -> AsyncIterator[list[bytes]]:
    batch: list[bytes] = []
    async for key in reader.scan_iter(count=_BATCH * 4):
        batch.append(key)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


async def _snapshot(address: Address, account: Account, path: Path) -> None:
    """Writes what a primary sends to a replica that has nothing (redis.io/docs/latest/commands/sync)."""
    async with asyncio.timeout(_PATIENCE.total_seconds()):
        if address.port:
            reader, writer = await asyncio.open_connection(address.host, address.port, limit=_CHUNK)
        else:
            reader, writer = await asyncio.open_unix_connection(address.host, limit=_CHUNK)
    with contextlib.closing(writer):
        if account.password:
            names = (account.user,) if account.user else ()
            await _ask(reader, writer, address, "AUTH", *names, account.password)
        # No replica that brokers might count on: it gets a snapshot and nothing more.
        await _ask(reader, writer, address, "REPLCONF", "rdb-only", "1")
        # Without the capability `eof` the snapshot has its length before it, and is begun at once.
        writer.write(_command("SYNC"))
        size = await _length(reader, address)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            left = size
            while left:
                async with asyncio.timeout(_PATIENCE.total_seconds()):
                    part = await reader.read(min(left, _CHUNK))
                if not part:
                    raise Failure(f"Redis at {address} broke off its snapshot.")
                if left == size and not part.startswith(_MAGIC):
                    raise Failure(f"What Redis at {address} sends is no snapshot.")
                left -= len(part)
                await asyncio.to_thread(file.write, part)
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())


async def _length(reader: asyncio.StreamReader, address: Address) -> int:
    """The bytes of the snapshot that follows. Empty lines say that it is being made."""
    while True:
        async with asyncio.timeout(_PATIENCE.total_seconds()):
            line = (await reader.readline()).strip()
        if line.startswith(b"$") and line[1:].isdigit():
            return int(line[1:])
        if line or reader.at_eof():
            said = line.decode(errors="replace") or "nothing"
            raise Failure(
                f"Redis at {address} gives no snapshot (SYNC): it says {said}. Managed services often do not: "
                "use their own backups for Redis, and `weft backup --only postgres` for the rest."
            )


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: Address, *words: str
) -> None:
    writer.write(_command(*words))
    async with asyncio.timeout(_PATIENCE.total_seconds()):
        line = await reader.readline()
    if line.strip() != b"+OK":
        raise Failure(f"Redis at {address} refuses: {line.decode(errors='replace').strip()}")


def _command(*words: str) -> bytes:
    parts = [f"*{len(words)}\r\n".encode()]
    parts += [b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words]
    return b"".join(parts)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turns what goes wrong into what a person can act upon."""
    try:
        yield
    except Exception as failed:
        first: BaseException = failed
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        if isinstance(first, _REFUSED) and not isinstance(first, _AWAY):
            raise Failure(f"Redis refuses: {first}") from failed
        if isinstance(first, _AWAY):
            raise Failure(f"Redis cannot be reached: {first}") from failed
        if first is failed:
            raise
        raise first from failed
