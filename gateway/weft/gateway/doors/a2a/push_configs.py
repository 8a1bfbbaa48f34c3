"""Operations on push notification configs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from weft import rpc
from weft.gateway.doors.a2a.params import Params
from weft.gateway.doors.a2a.protocol import ConfigNotFound, Json
from weft.gateway.doors.a2a.store import PushConfig
from weft.gateway.doors.a2a.tasks import new_id
from weft.gateway.doors.a2a.webhooks import Webhooks

if TYPE_CHECKING:
    from weft.gateway.doors.a2a.operations import Request

_MOST = 10  # configs of a task


async def read_config(webhooks: Webhooks, params: Params) -> PushConfig:
    """The config in a request.

    Raises:
        rpc.InvalidArgument: it is malformed, or its URL may not be called.
    """
    authentication = params.inner("authentication")
    config = PushConfig(
        id=params.text("id") or new_id(),
        url=params.needed("url"),
        token=_header(params, "token"),
        scheme=_header(authentication, "scheme"),
        credentials=_header(authentication, "credentials"),
    )
    await webhooks.resolve(config.url)
    return config


async def create_config(request: Request) -> bytes:
    """CreateTaskPushNotificationConfig."""
    task = await request.task("taskId")
    config = await read_config(request.parts.webhooks, request.params)
    known = {each.id for each in await request.parts.store.configs(task)}
    if len(known | {config.id}) > _MOST:
        raise rpc.FailedPrecondition(f"A task has at most {_MOST} of them.", reason="TOO_MANY")
    await request.parts.store.add_config(task, config)
    return _render(task.id, config)


async def get_config(request: Request) -> bytes:
    """GetTaskPushNotificationConfig."""
    task = await request.task("taskId")
    wanted = request.params.needed("id")
    for config in await request.parts.store.configs(task):
        if config.id == wanted:
            return _render(task.id, config)
    raise ConfigNotFound


async def list_configs(request: Request) -> bytes:
    """ListTaskPushNotificationConfigs; there are few, so all are on one page."""
    task = await request.task("taskId")
    shown = [_render(task.id, each) for each in await request.parts.store.configs(task)]
    return b'{"configs":[' + b",".join(shown) + b"]}"


async def delete_config(request: Request) -> bytes:
    """DeleteTaskPushNotificationConfig; one that is not there is deleted already."""
    task = await request.task("taskId")
    await request.parts.store.delete_config(task, request.params.needed("id"))
    return b"{}"


def _header(params: Params, name: str) -> str:
    """A value that goes into a header."""
    value = params.text(name)
    if value and not (value.isascii() and value.isprintable()):
        raise rpc.InvalidArgument("must be visible ASCII characters", field=params.path(name))
    return value


def _render(task_id: str, config: PushConfig) -> bytes:
    shown: Json = {"id": config.id, "taskId": task_id, "url": config.url}
    if config.token:
        shown["token"] = config.token
    if config.scheme or config.credentials:
        shown["authentication"] = {"scheme": config.scheme, "credentials": config.credentials}
    return orjson.dumps(shown)
