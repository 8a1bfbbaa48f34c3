"""ListTasks: pages by keyset, those that changed last first."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime, timedelta

import orjson

from weft import rpc
from weft.gateway.doors.a2a import protocol
from weft.gateway.doors.a2a.request import Request
from weft.gateway.doors.a2a.shelf import Filter
from weft.gateway.jobs import Job

_PAGE = 50
_MOST = 100
_MOST_HISTORY = 2**31 - 1
_MOST_BYTES = 16 * 1024 * 1024  # of a page; it ends with the task that exceeds it
_MOST_NUMBER = 2**62
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


async def list_tasks(request: Request) -> bytes:
    """ListTasks."""
    params = request.params
    size = params.number("pageSize", 1, _MOST) or _PAGE
    history = params.number("historyLength", 0, _MOST_HISTORY)
    chosen = Filter(
        context_id=params.text("contextId"),
        state=_state(params.text("status")),
        since=params.time("statusTimestampAfter"),
    )
    after = _position(token) if (token := params.text("pageToken")) else None
    shelf = request.parts.shelf
    agent = request.skills.agent
    jobs = await shelf.page(request.owner, agent, chosen, size + 1, after)
    total = await shelf.count(request.owner, agent, chosen)
    artifacts = params.flag("includeArtifacts")
    shown: list[bytes] = []
    length = 0
    for job in jobs[:size]:
        task = await shelf.whole(job) if artifacts else shelf.bare(job)
        shown.append(task.render(history, artifacts=artifacts))
        length += len(shown[-1])
        if length > _MOST_BYTES:
            break
    more = _token(jobs[len(shown) - 1]) if len(jobs) > len(shown) else ""
    return b'{"tasks":[%s],"nextPageToken":%s,"pageSize":%d,"totalSize":%d}' % (
        b",".join(shown),
        orjson.dumps(more),
        size,
        total,
    )


def _state(name: str) -> str:
    if not name or name == "TASK_STATE_UNSPECIFIED":
        return ""
    if name not in protocol.STATES:
        raise rpc.InvalidArgument("is no state of a task", field="status")
    return name


def _token(last: Job) -> str:
    since = (last.state_time - _EPOCH) // _MICROSECOND
    return base64.urlsafe_b64encode(f"{since}/{last.number}".encode()).decode().rstrip("=")


def _position(token: str) -> tuple[datetime, int]:
    try:
        text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
        since, _, last = text.partition("/")
        moment, number = _EPOCH + int(since) * _MICROSECOND, int(last)
    except (binascii.Error, ValueError, OverflowError):
        number = -1
    if not 0 <= number < _MOST_NUMBER:
        raise rpc.InvalidArgument("is none of this list", field="pageToken")
    return moment, number
