"""Operations on push notification configs: subscribers of the job that a task is."""

from __future__ import annotations

import orjson

from weft import rpc
from weft.gateway.doors.a2a.params import Params
from weft.gateway.doors.a2a.protocol import ConfigNotFound, Json
from weft.gateway.doors.a2a.request import Request
from weft.gateway.doors.a2a.tasks import new_id
from weft.gateway.jobs import Subscriber
from weft.gateway.jobs.webhooks import Targets

_MOST = 10  # configs of a task


def read_config(targets: Targets, params: Params) -> Subscriber:
    """The config in a request.

    Raises:
        rpc.InvalidArgument: it is malformed, or its URL may not be called.
    """
    authentication = params.inner("authentication")
    settings = {
        "token": _header(params, "token"),
        "scheme": _header(authentication, "scheme"),
        "credentials": _header(authentication, "credentials"),
    }
    url = params.needed("url")
    targets.check(url, field=params.path("url"))
    return Subscriber(id=params.text("id") or new_id(), url=url, settings=orjson.dumps(settings))


async def create_config(request: Request) -> bytes:
    """CreateTaskPushNotificationConfig."""
    job = await request.task("taskId")
    config = read_config(request.parts.targets, request.params)
    jobs = request.parts.shelf.jobs
    known = {each.id for each in await jobs.subscribers(job.owner, job.id)}
    if len(known | {config.id}) > _MOST:
        raise rpc.FailedPrecondition(f"A task has at most {_MOST} of them.", reason="TOO_MANY")
    await jobs.subscribe(job.owner, job.id, config)
    return _render(job.id, config)


async def get_config(request: Request) -> bytes:
    """GetTaskPushNotificationConfig."""
    job = await request.task("taskId")
    wanted = request.params.needed("id")
    for config in await request.parts.shelf.jobs.subscribers(job.owner, job.id):
        if config.id == wanted:
            return _render(job.id, config)
    raise ConfigNotFound


async def list_configs(request: Request) -> bytes:
    """ListTaskPushNotificationConfigs; there are few, so all are on one page."""
    job = await request.task("taskId")
    found = await request.parts.shelf.jobs.subscribers(job.owner, job.id)
    shown = [_render(job.id, each) for each in found]
    return b'{"configs":[' + b",".join(shown) + b"]}"


async def delete_config(request: Request) -> bytes:
    """DeleteTaskPushNotificationConfig; one that is not there is deleted already."""
    job = await request.task("taskId")
    wanted = request.params.needed("id")
    await request.parts.shelf.jobs.unsubscribe(job.owner, job.id, wanted)
    return b"{}"


def _header(params: Params, name: str) -> str:
    """A value that goes into a header."""
    value = params.text(name)
    if value and not (value.isascii() and value.isprintable()):
        raise rpc.InvalidArgument("must be visible ASCII characters", field=params.path(name))
    return value


def _render(task_id: str, config: Subscriber) -> bytes:
    shown: Json = {"id": config.id, "taskId": task_id, "url": config.url}
    settings = orjson.loads(config.settings)
    if settings["token"]:
        shown["token"] = settings["token"]
    if settings["scheme"] or settings["credentials"]:
        shown["authentication"] = {
            "scheme": settings["scheme"],
            "credentials": settings["credentials"],
        }
    return orjson.dumps(shown)
