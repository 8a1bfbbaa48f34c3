"""A broker in one process: Redis, queues, publishing, delivery, topics and archive, put together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Coroutine
from datetime import timedelta
from types import TracebackType
from typing import Literal, Protocol, Self

from weft import rpc
from weft.broker.archive import Archiver, History
from weft.broker.bells import Bells
from weft.broker.clock import Clock
from weft.broker.dead_letters import DeadLetters
from weft.broker.delivery import Delivery
from weft.broker.figures import Figures
from weft.broker.functions import SOURCE, Functions
from weft.broker.marks import Marks
from weft.broker.publishing import Payloads, Publishing, Requests, Rounds
from weft.broker.queue_admin import QueueAdmin
from weft.broker.queues import Queues
from weft.broker.redis import Redis
from weft.broker.senders import Senders
from weft.broker.service import BrokerService
from weft.broker.topics import Broadcasts, Topics
from weft.broker.windows import Windows
from weft.postgres import Database
from weft.telemetry import Telemetry, probe

log = logging.getLogger("weft.broker")

DEFAULT_ADDRESS = "127.0.0.1:7072"
_SCHEMA = "broker"
_SQL = "weft.broker.sql"
_MAX_CALLS = 1_000_000  # consumers' streams last for ever
_MAX_MESSAGE = 8 * 1024 * 1024
_FRAME = 1024 * 1024  # what a frame takes beyond its largest message
_GRACE = timedelta(seconds=5)


class Broker:
    """A running broker: `async with Broker(redis_url=..., database_url=...) as broker: broker.address`.

    Args:
        redis_url: where messages are; see weft.broker.redis.url.
        database_url: PostgreSQL for the archive and large messages, schema "broker"; empty: there is neither.
        address: "host:port" to serve on; port 0 takes any.
        unknown_recipients: what becomes of a message to a queue that nobody made.
        max_message: largest message, in bytes.
        beat: how often it tells the other brokers that it lives; after six that are missed they take over.
        grace: how long consumers may settle what they have in hand at stop.
        telemetry: where calls and messages are counted; None: nowhere.
    """

    def __init__(
        self,
        *,
        redis_url: str,
        database_url: str = "",
        address: str = DEFAULT_ADDRESS,
        unknown_recipients: Literal["reject", "create"] = "reject",
        max_message: int = _MAX_MESSAGE,
        beat: timedelta = timedelta(seconds=1),
        grace: timedelta = _GRACE,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.address = address
        self.instance = f"broker-{secrets.token_hex(6)}"
        self._redis_url = redis_url
        self.database_url = database_url
        self.unknown_recipients = unknown_recipients
        self.max_message = max_message
        self.beat = beat
        self._grace = grace
        self.telemetry = telemetry
        self._stop = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._running = asyncio.create_task(self._run(started), name="broker")
        await asyncio.wait((self._running, started), return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            await self._running
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Drains: consumers settle what they have in hand; returns when all is closed."""
        self._stop.set()
        await self.wait()

    async def wait(self) -> None:
        """Returns when the broker has stopped; raises what made it fail."""
        if self._running is not None:
            await asyncio.shield(self._running)

    async def _run(self, started: asyncio.Future[None]) -> None:
        async with contextlib.AsyncExitStack() as stack:
            database = await self._database(stack)
            redis = await Redis.connect(self._redis_url, library=SOURCE)
            stack.push_async_callback(redis.close)
            parts = _Parts(self, redis, database)
            redis.listen(parts.bells.heard, parts.bells.reset)
            await parts.queues.load()
            await parts.senders.load()
            await parts.marks.load()
            server = rpc.Server(
                self.address,
                telemetry=self.telemetry,
                max_concurrency=_MAX_CALLS,
                max_message_bytes=self.max_message + _FRAME,
                trace_roots=False,
            )
            service = BrokerService(parts.handlers)
            server.add(service.add_to, service)
            await server.start()
            stack.push_async_callback(server.stop)
            self.address = server.address
            log.info(
                "broker is serving", extra={"address": self.address, "instance": self.instance}
            )
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(part.run()) for part in parts.running]
                running += [tasks.create_task(work) for work in parts.watching]
                started.set_result(None)
                await self._stop.wait()
                # The other brokers must go on counting with this one until it has nothing in hand any more.
                await parts.delivery.drain(self._grace)
                parts.publishing.end_streams()
                await server.stop(self._grace)
                await parts.rounds.settle()
                await parts.delivery.close()
                for task in running:
                    task.cancel()

    async def _database(self, stack: contextlib.AsyncExitStack) -> Database | None:
        if not self.database_url:
            return None
        database = await Database.opened(self.database_url, _SCHEMA, _SQL)
        stack.push_async_callback(database.close)
        return database


class _Runs(Protocol):
    async def run(self) -> None:
        """Goes on in the background for ever."""


class _Parts:
    """What a broker is made of, for one run."""

    def __init__(self, broker: Broker, redis: Redis, database: Database | None) -> None:
        clock = Clock()
        bells = self.bells = Bells(redis, broker.instance)
        functions = Functions(
            redis,
            broker.instance,
            bells,
            archive=database is not None,
            telemetry=broker.telemetry,
        )
        queues = self.queues = Queues(redis, functions, bells)
        senders = self.senders = Senders(redis, functions, bells, clock)
        payloads = Payloads(database)
        delivery = self.delivery = Delivery(
            redis=redis,
            functions=functions,
            queues=queues,
            bells=bells,
            clock=clock,
            payloads=payloads,
            instance=broker.instance,
            beat=broker.beat,
        )
        self.rounds = Rounds(functions, clock, post=delivery.post)
        self.publishing = publishing = Publishing(
            rounds=self.rounds,
            queues=queues,
            clock=clock,
            payloads=payloads,
            senders=senders,
            unknown_recipients=broker.unknown_recipients,
            max_message=broker.max_message,
        )
        topics = Topics(
            redis=redis,
            queues=queues,
            bells=bells,
            publishing=publishing,
            payloads=payloads,
            delivery=delivery,
            clock=clock,
        )
        self.marks = Marks(
            redis=redis,
            functions=functions,
            queues=queues,
            bells=bells,
            database=database,
            telemetry=broker.telemetry,
        )
        self.handlers: list[object] = [
            publishing,
            Requests(publishing=publishing, run=redis.run, bells=bells, clock=clock),
            delivery,
            topics,
            Broadcasts(
                queues=queues,
                publishing=publishing,
                payloads=payloads,
                senders=senders,
                clock=clock,
                max_message=broker.max_message,
            ),
            senders,
            DeadLetters(
                redis=redis, functions=functions, queues=queues, payloads=payloads, clock=clock
            ),
            QueueAdmin(
                queues=queues,
                functions=functions,
                clock=clock,
                consumers=delivery.consumers,
                marks=self.marks,
            ),
            History(redis=redis, queues=queues, payloads=payloads, database=database),
        ]
        self.running: list[_Runs] = [
            queues,
            senders,
            Windows(functions, queues),
            delivery,
            topics,
            self.marks,
        ]
        self.watching: list[Coroutine[None, None, None]] = []
        if broker.telemetry is not None:
            metrics = broker.telemetry.metrics
            figures = Figures(
                queues=queues,
                functions=functions,
                clock=clock,
                consumers=delivery.consumers,
                metrics=metrics,
            )
            self.watching = [figures.run(), probe(metrics, "redis", lambda: redis.run(0, "PING"))]
            if database is not None:
                self.watching.append(probe(metrics, "postgres", database.ping))
        if database is not None:
            archiver = Archiver(
                redis=redis,
                database=database,
                database_url=broker.database_url,
                queues=queues,
                payloads=payloads,
            )
            self.running += [payloads, archiver]
