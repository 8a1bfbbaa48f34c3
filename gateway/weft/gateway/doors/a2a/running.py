"""Tasks that this gateway works on: it calls the skill, keeps what comes, tells who watches.

A task lives on when its caller hangs up. Its id is told to nobody before it is stored; one that ends at once is stored once,
with its result. Who is to end it is decided in PostgreSQL, so a task can be cancelled at any gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator
from datetime import timedelta

import orjson

from weft import rpc
from weft.gateway.doors.a2a import errors, protocol
from weft.gateway.doors.a2a.content import Shape
from weft.gateway.doors.a2a.skills import Skill
from weft.gateway.doors.a2a.store import PushConfig, Store
from weft.gateway.doors.a2a.tasks import Artifact, Task, new_id
from weft.gateway.doors.calls import Calls
from weft.gateway.http.exchange import Exchange

log = logging.getLogger("weft.gateway")

_AT_ONCE = 0.05  # seconds within which a task may end without having been stored before
_PROGRESS = 1.0  # seconds between what is stored of a task while it goes on
_BEAT = 2.0  # seconds
_RETRY = 1.0  # seconds between attempts to store how a task ended
_ATTEMPTS = 20
_UNREAD = 1_000  # events a watcher may leave unread
_MOST = 4 * 1024 * 1024  # bytes of answers that a task may hold
_FORGOTTEN = 1_000  # rows a statement forgets

_LOST = orjson.dumps(
    {
        "messageId": "lost",
        "role": "ROLE_AGENT",
        "parts": [{"text": "The gateway that worked on this task is gone."}],
    }
)
_REJECTING = (rpc.InvalidArgument, rpc.PermissionDenied, rpc.Unauthenticated, rpc.OutOfRange)
# Reasons by which an agent says that it needs more: the next message of the task calls it again.
_WAITING = {"INPUT_REQUIRED": protocol.INPUT_REQUIRED, "AUTH_REQUIRED": protocol.AUTH_REQUIRED}


class Watch:
    """Events of a task for one caller."""

    def __init__(self) -> None:
        self._events: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._over = False

    def tell(self, event: bytes) -> None:
        """Something happened. Who does not read for long is told no more, and can subscribe again."""
        if len(self._events) >= _UNREAD:
            self.end()
        elif not self._over:
            self._events.append(event)
            self._news.set()

    def end(self) -> None:
        """Nothing more will happen."""
        self._over = True
        self._news.set()

    async def batches(self) -> AsyncGenerator[list[bytes], None]:
        """Events as they come, those that came together at once."""
        while True:
            await self._news.wait()
            self._news.clear()
            events = list(self._events)
            self._events.clear()
            if events:
                yield events
            if self._over and not self._events:
                return


class Run:
    """A task that is worked on.

    Attributes:
        task: as it is now.
        failure: why it could not be stored; nobody knows of it then.
    """

    def __init__(self, task: Task, skill: Skill, shape: Shape, request: bytes) -> None:
        self.task = task
        self.skill = skill
        self.shape = shape
        self.request = request
        self.failure: rpc.Error | None = None
        self.call: asyncio.Task[None] | None = None
        self.saved_at = 0.0
        self.size = 0
        self._stored = asyncio.Event()
        self._over = asyncio.Event()
        self._watches: set[Watch] = set()

    @property
    def is_stored(self) -> bool:
        """Whether its id may be told."""
        return self._stored.is_set()

    async def stored(self) -> None:
        """Returns when its id may be told; raises why it may not."""
        await self._stored.wait()
        if self.failure is not None:
            raise self.failure

    async def over(self) -> None:
        """Returns when it has settled; raises why nobody knows of it."""
        await self._over.wait()
        if self.failure is not None:
            raise self.failure

    def watch(self) -> Watch:
        """From now on."""
        watch = Watch()
        if self._over.is_set():
            watch.end()
        self._watches.add(watch)
        return watch

    def leave(self, watch: Watch) -> None:
        """Who watched does no more."""
        self._watches.discard(watch)

    def publish(self, event: bytes) -> None:
        """Tells who watches."""
        for watch in self._watches:
            watch.tell(event)

    def note_stored(self) -> None:
        """It is stored now."""
        self.saved_at = time.monotonic()
        self._stored.set()

    def finish(self) -> None:
        """It has settled."""
        self._stored.set()
        self._over.set()
        for watch in self._watches:
            watch.end()


class Runner:
    """Works on tasks.

    Args:
        calls: the way to agents.
        store: keeps tasks.

    Attributes:
        closing: set when nobody is to wait for anything that may never come.
    """

    def __init__(self, calls: Calls, store: Store) -> None:
        self._calls = calls
        self._store = store
        self._runs: dict[str, Run] = {}
        self._working: set[asyncio.Task[None]] = set()
        self.closing = asyncio.Event()

    def find(self, task_id: str) -> Run | None:
        """A task that this gateway works on, once its id may be told."""
        run = self._runs.get(task_id)
        return run if run is not None and run.is_stored else None

    def start(
        self,
        exchange: Exchange,
        run: Run,
        *,
        config: PushConfig | None = None,
        store_first: bool = False,
        resumed: bool = False,
    ) -> None:
        """Begins to work on a task.

        Args:
            exchange: the request that began it, admitted for its skill; it may end before the task does.
            run: what to do.
            config: where to tell of it.
            store_first: whether its id is told before it ends.
            resumed: whether it is stored already.
        """
        self._runs[run.task.id] = run
        if resumed:
            run.note_stored()
        early = (store_first or config is not None) and not resumed
        work = asyncio.create_task(self._work(exchange, run, config, early=early))
        self._working.add(work)
        work.add_done_callback(self._working.discard)

    async def _work(
        self, exchange: Exchange, run: Run, config: PushConfig | None, *, early: bool
    ) -> None:
        try:
            if early:
                await self._create(run, config)
            run.call = asyncio.create_task(self._call(_detached(exchange), run))
            if not run.is_stored:
                await asyncio.wait({run.call}, timeout=_AT_ONCE)
                if not run.call.done():
                    await self._create(run, None)
            if not run.call.done():
                await asyncio.wait({run.call})
            _conclude(run.task, run.call)
            await self._settle(run)
        except rpc.Error as failed:
            run.failure = failed
        except Exception:
            log.exception("a task cannot be kept", extra={"task": run.task.id})
            run.failure = rpc.Internal()
        finally:
            if run.call is not None and not run.call.done():
                run.call.cancel()
                await asyncio.wait({run.call})
            del self._runs[run.task.id]
            run.finish()

    async def _create(self, run: Run, config: PushConfig | None) -> None:
        await self._store.create(run.task, config)
        run.note_stored()

    async def _settle(self, run: Run) -> None:
        """Stores how a task ended, then tells it."""
        if not run.is_stored:
            await self._store.create(run.task)
        elif not await self._saved(run.task):
            ended = await self._store.read(run.task.id)
            if ended is not None:
                run.task = ended
        run.publish(run.task.status_update())

    async def _saved(self, task: Task) -> bool:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await self._store.save(task)
            except (rpc.Unavailable, rpc.DeadlineExceeded):
                if attempt == _ATTEMPTS:
                    log.exception("how a task ended is lost", extra={"task": task.id})
                    raise
                await asyncio.sleep(_RETRY)
        return False

    async def _call(self, exchange: Exchange, run: Run) -> None:
        method = run.skill.method
        artifact = Artifact(id=new_id(), name=method.name)
        if not method.server_streaming:
            reply = await self._calls.unary(exchange, method, run.request)
            self._add(run, artifact, reply, last=True)
            return
        messages = self._calls.stream(exchange, method, run.request)
        async with contextlib.aclosing(messages):
            async for message in messages:
                self._add(run, artifact, message, last=False)
                if run.is_stored and time.monotonic() > run.saved_at + _PROGRESS:
                    await self._store.save(run.task)
                    run.saved_at = time.monotonic()

    def _add(self, run: Run, artifact: Artifact, reply: bytes, *, last: bool) -> None:
        run.size += len(reply)
        if run.size > _MOST:
            raise rpc.OutOfRange(f"The answer is larger than {_MOST} bytes.", reason="TOO_LARGE")
        parts = run.shape.parts(reply)
        append = bool(artifact.parts)
        if not append:
            run.task.artifacts.append(artifact)
        artifact.parts += parts
        chunk = artifact.render(parts)
        run.publish(run.task.artifact_update(chunk, append=append, last=last))

    async def cancel(self, task: Task) -> bool:
        """Cancels a task, wherever it is worked on; false: it has ended."""
        run = self._runs.get(task.id)
        if not await self._store.cancel(task):
            return False
        if run is not None:
            _let_go(run)
            await run.over()
        return True

    async def run(self) -> None:
        """Keeps the leases, ends what others left behind, forgets what is too old; for a task of its own."""
        while True:
            try:
                await self._beat()
            except rpc.Error:
                log.warning("A2A tasks cannot be looked after now", exc_info=True)
            await asyncio.sleep(_BEAT)

    async def _beat(self) -> None:
        stored = [task_id for task_id, run in self._runs.items() if run.is_stored]
        if stored:
            kept = await self._store.renew(stored)
            for task_id in stored:
                run = self._runs.get(task_id)
                if run is not None and task_id not in kept:
                    _let_go(run)
        await self._store.fail_lost(_LOST)
        while await self._store.forget(_FORGOTTEN):
            pass

    async def close(self, grace: timedelta) -> None:
        """Lets tasks end, and gives up those that do not."""
        if self._working:
            await asyncio.wait(self._working, timeout=grace.total_seconds())
        for run in self._runs.values():
            _let_go(run)
        if self._working:
            await asyncio.wait(self._working)


def _let_go(run: Run) -> None:
    """Lets the agent stop; whoever works on the task finds out how it stands."""
    if run.call is not None:
        run.call.cancel()


def _conclude(task: Task, call: asyncio.Task[None]) -> None:
    """The state in which a task ends whose call is over."""
    if call.cancelled():
        _fail(task, protocol.FAILED, rpc.Cancelled("The task was given up."))
        return
    failed = call.exception()
    if failed is None:
        task.become(protocol.COMPLETED)
    elif not isinstance(failed, rpc.Error):
        log.error("a task failed", exc_info=failed, extra={"task": task.id})
        _fail(task, protocol.FAILED, rpc.Internal())
    elif failed.reason in _WAITING:
        _fail(task, _WAITING[failed.reason], failed)
    elif isinstance(failed, rpc.Cancelled):
        _fail(task, protocol.CANCELED, failed)
    else:
        _fail(
            task, protocol.REJECTED if isinstance(failed, _REJECTING) else protocol.FAILED, failed
        )


def _fail(task: Task, state: str, error: rpc.Error) -> None:
    told = protocol.message(
        new_id(),
        b'{"text":' + orjson.dumps(error.message) + b"}",
        context_id=task.context_id,
        task_id=task.id,
        metadata=errors.as_metadata(error),
    )
    task.become(state, told)


def _detached(exchange: Exchange) -> Exchange:
    """The same request, whose caller never hangs up."""
    alone = Exchange(
        {
            "method": exchange.method,
            "raw_path": exchange.path.encode("latin-1"),
            "query_string": b"",
            "headers": exchange.headers,
        },
        asyncio.get_running_loop().create_future,
        exchange.send,
    )
    alone.call = exchange.call
    return alone
