"""Push notifications: what A2A tells of a task that has settled. Queue, sender and checks of URLs are those of all jobs."""

from __future__ import annotations

import orjson

from weft.gateway.doors.a2a.protocol import MEDIA_TYPE
from weft.gateway.doors.a2a.shelf import Shelf
from weft.gateway.jobs.webhooks import Form, Refused, Told


def push_form(shelf: Shelf) -> Form:
    """Makes what is told (specification, 4.3.3): the task as it is now, with the credentials of its config."""

    async def told(job: str, subscriber: str) -> Told:
        found = await shelf.told(job, subscriber)
        if found is None:
            raise Refused("the task or its config is gone", final=True)
        task = await shelf.whole(found[0])
        settings = orjson.loads(found[1])
        headers = {"content-type": MEDIA_TYPE.decode()}
        if settings["scheme"]:
            sent = f"{settings['scheme']} {settings['credentials']}".strip()
            headers["authorization"] = sent
        if settings["token"]:
            headers["x-a2a-notification-token"] = settings["token"]
        return Told(body=task.event(), headers=headers)

    return told
