"""The operations of A2A, whatever binding they came by."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType

from weft import rpc
from weft.gateway.doors.a2a import messages, protocol
from weft.gateway.doors.a2a.content import Shape
from weft.gateway.doors.a2a.entry import converse, enter
from weft.gateway.doors.a2a.following import follow
from weft.gateway.doors.a2a.listing import list_tasks
from weft.gateway.doors.a2a.messages import Sent
from weft.gateway.doors.a2a.params import Params
from weft.gateway.doors.a2a.protocol import TaskNotCancelable, TaskNotFound, UnsupportedOperation
from weft.gateway.doors.a2a.push_configs import (
    create_config,
    delete_config,
    get_config,
    list_configs,
    read_config,
)
from weft.gateway.doors.a2a.running import Run, Runner, Watch
from weft.gateway.doors.a2a.sending import Events
from weft.gateway.doors.a2a.skills import Skill, SkillSet
from weft.gateway.doors.a2a.store import Store
from weft.gateway.doors.a2a.tasks import Owner, Task, new_id
from weft.gateway.doors.a2a.webhooks import Webhooks
from weft.gateway.doors.calls import Calls
from weft.gateway.guards import caller_deadline
from weft.gateway.http.exchange import Exchange

_LONGEST = timedelta(days=1)
_MOST_HISTORY = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What operations work with."""

    calls: Calls
    store: Store
    runner: Runner
    webhooks: Webhooks


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An operation that a caller asked for."""

    exchange: Exchange
    skills: SkillSet
    params: Params
    owner: Owner
    parts: Parts
    extended_card: Callable[[], bytes]

    async def task(self, name: str = "id") -> Task:
        """The task that a parameter names.

        Raises:
            TaskNotFound: the caller has none of that id here.
        """
        return await find(self, self.params.needed(name))


Answer = bytes | Events
Operation = Callable[[Request], Awaitable[Answer]]


async def find(request: Request, task_id: str) -> Task:
    """A task of the caller, as it is now."""
    agent, owner = request.skills.agent, request.owner
    run = request.parts.runner.find(task_id)
    if run is not None:
        if run.task.owner == owner and agent in {run.task.agent, "-"}:
            return run.task
        raise TaskNotFound
    task = await request.parts.store.find(task_id, owner, agent)
    if task is None:
        raise TaskNotFound
    return task


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """A message on its way."""

    run: Run
    watch: Watch
    first: bytes
    """The task as it was when it began."""


async def send_message(request: Request) -> Answer:
    """SendMessage: to its end, or as far as the caller waits."""
    sent = messages.read(request.params)
    if sent.as_message:
        return b'{"message":' + await _message(request, sent) + b"}"
    wanted = request.params.inner("configuration")
    history = _history(wanted)
    begun = await _begin(request, sent, store_first=wanted.flag("returnImmediately"))
    run = begun.run
    if wanted.flag("returnImmediately"):
        await run.stored()
    else:
        patience = caller_deadline(request.exchange.headers, maximum=_LONGEST)
        try:
            async with asyncio.timeout(None if patience is None else patience.seconds()):
                await run.over()
        except TimeoutError:  # the task goes on
            await run.stored()
    return b'{"task":' + run.task.render(history) + b"}"


async def stream_message(request: Request) -> Answer:
    """SendStreamingMessage."""
    sent = messages.read(request.params)
    if sent.as_message:
        return _once(b'{"message":' + await _message(request, sent) + b"}")
    begun = await _begin(request, sent, store_first=True)
    await begun.run.stored()
    return _events(begun)


async def get_task(request: Request) -> Answer:
    """GetTask."""
    history = _history(request.params)
    return (await request.task()).render(history)


async def cancel_task(request: Request) -> Answer:
    """CancelTask."""
    task = await request.task()
    if not await request.parts.runner.cancel(task):
        raise TaskNotCancelable
    return (await find(request, task.id)).render()


async def subscribe(request: Request) -> Answer:
    """SubscribeToTask: the task as it is, then what happens to it until it ends."""
    task = await request.task()
    if task.ended:
        raise UnsupportedOperation("The task has ended; nothing more will happen to it.")
    return follow(request.parts.runner, request.parts.store, task.id)


async def extended_card(request: Request) -> Answer:
    """GetExtendedAgentCard."""
    return request.extended_card()


OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {
        "SendMessage": send_message,
        "SendStreamingMessage": stream_message,
        "GetTask": get_task,
        "ListTasks": list_tasks,
        "CancelTask": cancel_task,
        "SubscribeToTask": subscribe,
        "CreateTaskPushNotificationConfig": create_config,
        "GetTaskPushNotificationConfig": get_config,
        "ListTaskPushNotificationConfigs": list_configs,
        "DeleteTaskPushNotificationConfig": delete_config,
        "GetExtendedAgentCard": extended_card,
    }
)


async def _begin(request: Request, sent: Sent, *, store_first: bool) -> _Begun:
    before = await find(request, sent.task_id) if sent.task_id else None
    if before is not None:
        _check_continues(sent, before)
    skill, shape, wire = _typed(request, sent, before.skill if before else "")
    pushed = request.params.inner("configuration").inner("taskPushNotificationConfig")
    config = await read_config(request.parts.webhooks, pushed) if pushed else None
    await enter(request.parts.calls, request.exchange, skill.method, wire)
    task = before or Task(
        id=new_id(),
        context_id=sent.context_id or new_id(),
        owner=request.owner,
        agent=request.skills.agent,
        skill=skill.id,
    )
    if before is not None:
        if not await request.parts.store.resume(task):
            raise UnsupportedOperation("The task has gone on meanwhile; look at it again.")
        if config is not None:
            await request.parts.store.add_config(task, config)
        if task.told:
            task.history.append(task.told)
        task.become(protocol.WORKING)
    task.history.append(sent.kept(task.id, task.context_id))
    converse(request.exchange, task)
    run = Run(task, skill, shape, wire)
    begun = _Begun(run=run, watch=run.watch(), first=b'{"task":' + task.render() + b"}")
    request.parts.runner.start(
        request.exchange,
        run,
        config=config if before is None else None,
        store_first=store_first,
        resumed=before is not None,
    )
    return begun


def _check_continues(sent: Sent, task: Task) -> None:
    if sent.context_id and sent.context_id != task.context_id:
        raise rpc.InvalidArgument("is not that of the task", field="message.contextId")
    if task.ended:
        raise UnsupportedOperation("The task has ended; begin another one.")
    if not task.settled:
        raise UnsupportedOperation("The task is being worked on; wait, or cancel it.")


def _typed(request: Request, sent: Sent, continued: str) -> tuple[Skill, Shape, bytes]:
    skill = request.skills.choose(sent.skill, continued, only_text=sent.given.only_text)
    shape = Shape(skill, sent.accepted, text=bool(sent.given.texts))
    return skill, shape, sent.given.request(skill)


async def _message(request: Request, sent: Sent) -> bytes:
    """Calls a skill and answers with a Message; no task is made of it."""
    skill, shape, wire = _typed(request, sent, "")
    if sent.task_id or skill.method.server_streaming:
        raise UnsupportedOperation("Only a skill with one answer, and no task, gives a message.")
    await enter(request.parts.calls, request.exchange, skill.method, wire)
    reply = await request.parts.calls.unary(request.exchange, skill.method, wire)
    parts = b",".join(shape.parts(reply))
    return protocol.message(new_id(), parts, context_id=sent.context_id or new_id())


async def _events(begun: _Begun) -> Events:
    try:
        yield [begun.first]
        async for batch in begun.watch.batches():
            yield batch
        if begun.run.failure is not None:
            raise begun.run.failure
    finally:
        begun.run.leave(begun.watch)


async def _once(event: bytes) -> Events:
    yield [event]


def _history(params: Params) -> int | None:
    return params.number("historyLength", 0, _MOST_HISTORY)
