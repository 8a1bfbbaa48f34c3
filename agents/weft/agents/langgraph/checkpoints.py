"""LangGraph's checkpoints in PostgreSQL: one statement for each thing that is stored, under a lease where there is one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import asyncpg
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
    get_serializable_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from weft import rpc
from weft.agents.langgraph.leases import FENCE, Lease, LeaseLost, ThreadTaken, leased
from weft.postgres import Database

SCHEMA = "langgraph"
SQL = "weft.agents.langgraph.sql"

_PAGE = 50  # checkpoints read at a time
_SHORT = 256  # characters of a text that is stored with each checkpoint, and not once for all
_PATIENCE = timedelta(seconds=10)
_PAUSE = 0.1  # seconds before a statement is tried again
_NUL = "\\u0000"

T = TypeVar("T")


class AsyncpgSaver(BaseCheckpointSaver[str]):
    """A checkpoint saver for graphs that are run by `ainvoke` and `astream`.

    Its methods raise rpc errors: Unavailable when the database is away for longer than its patience, LeaseLost when a
    thread was written to under a lease that another worker has taken over, ThreadTaken when it was written to without
    one while somebody has it.

    Args:
        database: with the queries of weft.agents.langgraph.sql, as `opened` makes it.
        serde: how values are serialized; None: as LangGraph does.
        patience: for how long a database that is away is waited for.
    """

    def __init__(
        self,
        database: Database,
        *,
        serde: SerializerProtocol | None = None,
        patience: timedelta = _PATIENCE,
    ) -> None:
        super().__init__(serde=serde)
        self._database = database
        self._patience = patience.total_seconds()

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(
        cls,
        url: str,
        *,
        serde: SerializerProtocol | None = None,
        patience: timedelta = _PATIENCE,
        pool_size: int = 10,
    ) -> AsyncIterator[AsyncpgSaver]:
        """A saver on a PostgreSQL database, whose schema `langgraph` is brought up to date.

        Args:
            url: of the database.
            serde: see the class.
            patience: see the class.
            pool_size: connections at most.

        Raises:
            rpc.Error: the database cannot be opened.
        """
        async with await Database.opened(url, SCHEMA, SQL, pool_size=pool_size) as database:
            yield cls(database, serde=serde, patience=patience)

    def lease(
        self, thread: str, *, life: timedelta = timedelta(seconds=10)
    ) -> contextlib.AbstractAsyncContextManager[Lease]:
        """Leases a thread, as long as the context: run its graph with `lease.config`.

        No other worker can write to it meanwhile, nor this one after it has lost the lease: it is cancelled then.

        Args:
            thread: its id.
            life: how long it is kept for a worker that says nothing.

        Raises:
            ThreadTaken: another worker has it.
            LeaseLost: it was lost.
        """
        return leased(self._database, thread, life)

    async def has(self, config: RunnableConfig) -> bool:
        """Whether the checkpoint a config names is stored."""
        thread, ns, id_ = _place(config)
        found: bool = await self._insist(
            lambda: self._database.fetchval("has_checkpoint", thread, ns, id_)
        )
        return found

    # Reading

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint a config names, the newest of its thread where it names none."""
        row = await self._insist(lambda: self._database.fetchrow("get_checkpoint", *_place(config)))
        return None if row is None else self._tuple(row)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Checkpoints from the newest on; None: of all threads."""
        named = config["configurable"] if config else {}
        wanted = (
            named.get("thread_id"),
            named.get("checkpoint_ns"),
            named.get("checkpoint_id"),
            get_checkpoint_id(before) if before else None,
            _json(filter) if filter else None,
        )
        after: tuple[str | None, ...] = (None, None, None)
        while limit is None or limit > 0:
            count = _PAGE if limit is None else min(limit, _PAGE)
            args = (*wanted, count, *after)
            rows = await self._insist(lambda: self._database.fetch("list_checkpoints", *args))  # noqa: B023 awaited here
            for row in rows:
                yield self._tuple(row)
            if len(rows) < count:
                return
            after = (rows[-1]["id"], rows[-1]["thread"], rows[-1]["ns"])
            limit = None if limit is None else limit - count

    def _tuple(self, row: asyncpg.Record) -> CheckpointTuple:
        loads = self.serde.loads_typed
        checkpoint: Checkpoint = loads((row["type"], row["body"]))
        for channel, kind, blob in _columns(row, "value_channels", "value_types", "value_blobs"):
            checkpoint["channel_values"][channel] = loads((kind, blob))
        parent = _config(row, row["parent"]) if row["parent"] else None
        writes = _columns(row, "write_tasks", "write_channels", "write_types", "write_blobs")
        return CheckpointTuple(
            config=_config(row, row["id"]),
            checkpoint=checkpoint,
            metadata=json.loads(row["metadata"]),
            parent_config=parent,
            pending_writes=[
                (task, channel, loads((kind, blob))) for task, channel, kind, blob in writes
            ],
        )

    # Writing

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Stores a checkpoint, and the values that are new in it."""
        thread, ns, parent = _place(config)
        fence = _fence(config)
        values = checkpoint["channel_values"]
        # What is small is stored with each checkpoint: that costs less than a row of its own.
        apart = {
            name: str(version)
            for name, version in checkpoint["channel_versions"].items()
            if name in values and not _small(values[name])
        }
        # A value without a version is one of no channel's: nothing but the checkpoint can keep it.
        inline = {name: value for name, value in values.items() if name not in apart}
        kind, body = self.serde.dumps_typed({**checkpoint, "channel_values": inline})
        blobs = [
            (name, str(version), *self.serde.dumps_typed(values[name]))
            for name, version in new_versions.items()
            if name in apart
        ]
        await self._put(
            "put_checkpoint",
            fence,
            *(thread, fence, ns, checkpoint["id"], parent, kind, body),
            _json(get_serializable_checkpoint_metadata(config, metadata)),
            *(list(apart), list(apart.values())),
            *([row[column] for row in blobs] for column in range(4)),
        )
        return {
            "configurable": {
                "thread_id": thread,
                "checkpoint_ns": ns,
                "checkpoint_id": checkpoint["id"],
            }
        }

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Stores what a task wrote."""
        thread, ns, id_ = _place(config)
        fence = _fence(config)
        rows = {
            WRITES_IDX_MAP.get(channel, number): (channel, *self.serde.dumps_typed(value))
            for number, (channel, value) in enumerate(writes)
        }
        await self._put(
            "put_writes",
            fence,
            *(thread, fence, ns, id_, task_id, task_path, list(rows)),
            *([row[column] for row in rows.values()] for column in range(3)),
        )

    def get_next_version(self, current: str | None, channel: None) -> str:
        """The version after `current`. It ends in chance: two branches of a thread do not share one."""
        del channel
        number = 0 if current is None else int(str(current).partition(".")[0])
        return f"{number + 1:032}.{random.random():.16f}"  # noqa: S311 no secret

    # Tidying up

    async def adelete_thread(self, thread_id: str) -> None:
        """Deletes a thread. Raises ThreadTaken while somebody has leased it."""
        await self._put("delete_thread", None, str(thread_id))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copies all of a thread. Raises ThreadTaken while somebody has leased the target."""
        await self._put("copy_thread", None, str(source_thread_id), str(target_thread_id))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Deletes the checkpoints of runs."""
        async with self._database.transaction() as begun:
            places = await begun.fetch("delete_runs", [str(each) for each in run_ids])
            for thread, ns in places:
                await begun.execute("delete_unused_blobs", thread, ns)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Deletes all checkpoints of threads, or all but the newest of each namespace ("delete", "keep_latest").

        What a DeltaChannel of the newest is rebuilt from is kept.

        Raises:
            ValueError: there is no such strategy.
            ThreadTaken: a thread is to be deleted that somebody has leased.
        """
        if strategy == "delete":
            for thread in thread_ids:
                await self.adelete_thread(thread)
            return
        if strategy != "keep_latest":
            raise ValueError(f"{strategy!r} is neither 'keep_latest' nor 'delete'")
        for thread in thread_ids:
            for ns, id_, counters in await self._database.fetch("heads", str(thread)):
                kept = await self._rebuilding(thread, ns, id_, set(json.loads(counters or "{}")))
                async with self._database.transaction() as begun:
                    await begun.execute("delete_older", str(thread), ns, id_, kept)
                    await begun.execute("delete_unused_blobs", str(thread), ns)

    async def _rebuilding(self, thread: str, ns: str, head: str, channels: set[str]) -> list[str]:
        """The ancestors of a checkpoint down to those that have values of all `channels`."""
        kept: list[str] = []
        place: RunnableConfig | None = {
            "configurable": {"thread_id": thread, "checkpoint_ns": ns, "checkpoint_id": head}
        }
        while place is not None and channels:
            found = await self.aget_tuple(place)
            if found is None:
                break
            kept.append(found.checkpoint["id"])
            channels -= found.checkpoint["channel_values"].keys()
            place = found.parent_config
        return kept

    # Statements

    async def _put(self, query: str, fence: int | None, *args: Any) -> None:
        allowed = await self._insist(lambda: self._database.fetchval(query, *args))
        if not allowed:
            raise ThreadTaken if fence is None else LeaseLost

    async def _insist(self, act: Callable[[], Awaitable[T]]) -> T:
        """Does what may be done twice, and again while the database is away."""
        away: rpc.Error = rpc.DeadlineExceeded("The database did not answer in time.")
        try:
            async with asyncio.timeout(self._patience) as patience:
                while True:
                    try:
                        return await act()
                    except rpc.Unavailable as failed:
                        away = failed
                    await asyncio.sleep(_PAUSE)
        except TimeoutError:
            if patience.expired():
                raise away from None
            raise


def _place(config: RunnableConfig) -> tuple[str, str, str | None]:
    """Thread, namespace and id of the checkpoint that a config names."""
    named = config["configurable"]
    return str(named["thread_id"]), named.get("checkpoint_ns", ""), get_checkpoint_id(config)


def _fence(config: RunnableConfig) -> int | None:
    fence: int | None = config["configurable"].get(FENCE)
    return fence


def _config(row: asyncpg.Record, id_: str) -> RunnableConfig:
    named = {"thread_id": row["thread"], "checkpoint_ns": row["ns"], "checkpoint_id": id_}
    return {"configurable": named}


def _columns(row: asyncpg.Record, *names: str) -> Iterable[tuple[Any, ...]]:
    """The rows of arrays side by side; null: there are none."""
    return zip(*(row[name] or () for name in names), strict=True)


def _small(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _SHORT
    return value is None or isinstance(value, bool | int | float)


def _json(value: object) -> str:
    # PostgreSQL's jsonb holds no NUL.
    return json.dumps(value, default=str).replace(_NUL, "")
