"""ListTasks: pages by keyset, those that changed last first."""

from __future__ import annotations

import base64
import binascii
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import orjson

from weft import rpc
from weft.gateway.doors.a2a import protocol
from weft.gateway.doors.a2a.store import Filter
from weft.gateway.doors.a2a.tasks import Task

if TYPE_CHECKING:
    from weft.gateway.doors.a2a.operations import Request

_PAGE = 50
_MOST = 100
_MOST_HISTORY = 2**31 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


async def list_tasks(request: Request) -> bytes:
    """ListTasks."""
    params = request.params
    size = params.number("pageSize", 1, _MOST) or _PAGE
    history = params.number("historyLength", 0, _MOST_HISTORY)
    chosen = Filter(
        context_id=params.text("contextId") or None,
        state=_state(params.text("status")),
        since=params.time("statusTimestampAfter"),
    )
    after = _position(token) if (token := params.text("pageToken")) else None
    store = request.parts.store
    agent = request.skills.agent
    tasks = await store.page(request.owner, agent, chosen, size + 1, after)
    total = await store.count(request.owner, agent, chosen)
    shown = tasks[:size]
    more = _token(shown[-1]) if len(tasks) > size else ""
    artifacts = params.flag("includeArtifacts")
    return b'{"tasks":[%s],"nextPageToken":%s,"pageSize":%d,"totalSize":%d}' % (
        b",".join(each.render(history, artifacts=artifacts) for each in shown),
        orjson.dumps(more),
        size,
        total,
    )


def _state(name: str) -> str | None:
    if not name or name == "TASK_STATE_UNSPECIFIED":
        return None
    if name not in protocol.STATES:
        raise rpc.InvalidArgument("is no state of a task", field="status")
    return name


def _token(last: Task) -> str:
    since = (last.status_time - _EPOCH) // _MICROSECOND
    return base64.urlsafe_b64encode(f"{since}/{last.id}".encode()).decode().rstrip("=")


def _position(token: str) -> tuple[datetime, uuid.UUID]:
    try:
        text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
        since, _, task_id = text.partition("/")
        return _EPOCH + int(since) * _MICROSECOND, uuid.UUID(task_id)
    except (binascii.Error, ValueError, OverflowError):
        raise rpc.InvalidArgument("is none of this list", field="pageToken") from None
