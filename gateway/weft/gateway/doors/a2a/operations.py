"""The operations of A2A, whatever binding they came by."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from types import MappingProxyType

import orjson

from weft import rpc
from weft.gateway.doors.a2a import messages, protocol
from weft.gateway.doors.a2a.content import Shape
from weft.gateway.doors.a2a.entry import admit
from weft.gateway.doors.a2a.following import follow
from weft.gateway.doors.a2a.listing import list_tasks
from weft.gateway.doors.a2a.messages import Sent
from weft.gateway.doors.a2a.params import Params
from weft.gateway.doors.a2a.protocol import TaskNotCancelable, UnsupportedOperation
from weft.gateway.doors.a2a.push_configs import (
    create_config,
    delete_config,
    get_config,
    list_configs,
    read_config,
)
from weft.gateway.doors.a2a.request import Request
from weft.gateway.doors.a2a.sending import Events
from weft.gateway.doors.a2a.shelf import Shelf
from weft.gateway.doors.a2a.skills import Skill
from weft.gateway.doors.a2a.tasks import Note, Task, new_id
from weft.gateway.guards import caller_deadline
from weft.gateway.guards.idempotency import KEY, parse_key
from weft.gateway.jobs import Job, NewJob, State
from weft.gateway.jobs.model import new_id as new_job_id
from weft.rpc.call import IDENTITY_KEY

_LONGEST = timedelta(days=1)
_CANCELLING = 5.0  # seconds that a call may take to be dropped
_MOST_HISTORY = 2**31 - 1


Answer = bytes | Events
Operation = Callable[[Request], Awaitable[Answer]]


async def send_message(request: Request) -> Answer:
    """SendMessage: to its end, or as far as the caller waits."""
    sent = messages.read(request.params)
    if sent.as_message:
        return b'{"message":' + await _message(request, sent) + b"}"
    wanted = request.params.inner("configuration")
    history = _history(wanted)
    at_once = wanted.flag("returnImmediately")
    task = await _begin(request, sent, stored=at_once)
    if at_once:
        return b'{"task":' + task.render(history) + b"}"
    if stored := not task.job.state.settled:
        task = await _settled(request, task.job)
    job = task.job
    if job.response is not None and (said := task.shape.message(job.response)) is not None:
        if stored:  # before it was known to be none
            await request.parts.shelf.jobs.delete(job.owner, job.id)
        return b'{"message":' + orjson.dumps({"contextId": job.context} | said) + b"}"
    return b'{"task":' + task.render(history) + b"}"


async def _settled(request: Request, job: Job) -> Task:
    """A task as it is when it has settled, or when its caller waits no longer."""
    patience = caller_deadline(request.exchange.headers, maximum=_LONGEST)
    seconds = _LONGEST.total_seconds() if patience is None else patience.seconds()
    shelf = request.parts.shelf
    return await shelf.whole(await shelf.jobs.wait(job.owner, job.id, seconds))


async def stream_message(request: Request) -> Answer:
    """SendStreamingMessage."""
    sent = messages.read(request.params)
    if sent.as_message:
        return _once(b'{"message":' + await _message(request, sent) + b"}")
    task = await _begin(request, sent, stored=True)
    parts = request.parts
    return follow(parts.shelf, task, parts.closing, until_settled=True)


async def get_task(request: Request) -> Answer:
    """GetTask."""
    history = _history(request.params)
    return (await request.parts.shelf.whole(await request.task())).render(history)


async def cancel_task(request: Request) -> Answer:
    """CancelTask."""
    job = await request.task()
    if job.state.ended:
        raise TaskNotCancelable
    shelf = request.parts.shelf
    job = await shelf.jobs.cancel(job.owner, job.id)
    if not job.state.ended:
        job = await shelf.jobs.wait(job.owner, job.id, _CANCELLING)
    if job.state.ended and job.state is not State.CANCELLED:
        raise TaskNotCancelable
    return (await shelf.whole(job)).render()


async def subscribe(request: Request) -> Answer:
    """SubscribeToTask: the task as it is, then what happens to it until it ends."""
    job = await request.task()
    if job.state.ended:
        raise UnsupportedOperation("The task has ended; nothing more will happen to it.")
    parts = request.parts
    return follow(parts.shelf, await parts.shelf.whole(job), parts.closing)


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


async def _begin(request: Request, sent: Sent, *, stored: bool) -> Task:
    parts, owner = request.parts, request.owner
    before = None
    if sent.task_id:
        before = await parts.shelf.find(owner, sent.task_id, request.skills.agent)
        _check_continues(sent, before)
    skill, shape, wire = _typed(request, sent, before.method[1:] if before else "")
    method = skill.method
    pushed = request.params.inner("configuration").inner("taskPushNotificationConfig")
    config = read_config(parts.targets, pushed) if pushed else None
    key = request.exchange.header(KEY.encode())
    time, keep = parts.asking.times(request.exchange.headers)
    context = before.context if before else sent.context_id or new_id()
    call = await admit(parts.calls, request.exchange, method, time, owner, context)
    task_id = before.id if before else new_job_id()
    note = Note(
        accepted=sent.accepted,
        text=bool(sent.given.texts),
        history=_history_of(parts.shelf, before),
    )
    note.history.append(sent.kept(task_id, context))
    identity = call.first(IDENTITY_KEY)
    work = await parts.guarded.admitted(method, call, wire, headers=request.exchange.answer_headers)
    new = NewJob(
        id=task_id,
        owner=owner,
        agent=method.agent.name,
        method=method.path,
        request=wire,
        identity=identity if isinstance(identity, bytes) else b"",
        time=time,
        keep=keep,
        streams=method.server_streaming,
        repeatable=method.idempotency.repeatable,
        resumable=True,
        conversation=call.conversation,
        traceparent=call.traceparent,
        key=parse_key(key.decode("latin-1")) if key and before is None else "",
        kind=protocol.NAME,
        context=context,
        note=note.encode(),
        subscriber=config,
    )
    if before is None:
        job = await parts.direct.begin(
            new, work, stored=stored, unless=lambda reply: shape.message(reply) is not None
        )
        if job.id != task_id:  # of a key that was used before
            return await parts.shelf.whole(job)
    else:
        if config is not None:
            await parts.shelf.jobs.subscribe(owner, task_id, config)
        found = await parts.direct.resume(new, work)
        if found is None:
            raise UnsupportedOperation("The task has gone on meanwhile; look at it again.")
        job = found
    return Task(job, note, shape)


def _history_of(shelf: Shelf, before: Job | None) -> list[bytes]:
    """The messages of a task that is continued."""
    if before is None:
        return []
    task = shelf.bare(before)
    return [*task.note.history, *([task.told] if task.told else [])]


def _check_continues(sent: Sent, job: Job) -> None:
    if sent.context_id and sent.context_id != job.context:
        raise rpc.InvalidArgument("is not that of the task", field="message.contextId")
    if job.state.ended:
        raise UnsupportedOperation("The task has ended; begin another one.")
    if job.state is not State.WAITING:
        raise UnsupportedOperation("The task is being worked on; wait, or cancel it.")


def _typed(request: Request, sent: Sent, continued: str) -> tuple[Skill, Shape, bytes]:
    skill = request.skills.choose(sent.skill, continued, only_text=sent.given.only_text)
    shape = Shape(skill, sent.accepted, text=bool(sent.given.texts))
    return skill, shape, sent.given.request(skill)


async def _message(request: Request, sent: Sent) -> bytes:
    """Calls a skill and answers with a Message; no task is made of it."""
    skill, shape, wire = _typed(request, sent, "")
    method = skill.method
    if sent.task_id or method.server_streaming:
        raise UnsupportedOperation("Only a skill with one answer, and no task, gives a message.")
    parts = request.parts
    context = sent.context_id or new_id()
    time = method.skill.default_timeout
    await admit(parts.calls, request.exchange, method, time, request.owner, context)
    reply = await parts.calls.unary(request.exchange, method, wire)
    if (said := shape.message(reply)) is not None:
        return orjson.dumps({"contextId": context} | said)
    made = b",".join(part for chunk in shape.chunks(reply) for part in chunk.parts)
    return protocol.message(new_id(), made, context_id=context)


async def _once(event: bytes) -> Events:
    yield [event]


def _history(params: Params) -> int | None:
    return params.number("historyLength", 0, _MOST_HISTORY)
