"""Push notifications: a settled task is told where its caller asked for it, at least once.

What is to be told stands in PostgreSQL until it was told, so a gateway that dies loses nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import timedelta

import httpx

from weft import rpc
from weft.gateway.doors.a2a.protocol import MEDIA_TYPE
from weft.gateway.doors.a2a.store import Push, Store
from weft.gateway.doors.a2a.webhooks import UrlRefused, Webhooks

log = logging.getLogger("weft.gateway")

_TIMEOUT = 10.0  # seconds for one request
_IDLE = 1.0  # seconds between looks for what is to be told
_BATCH = 20
_ATTEMPTS = 10
_FIRST = 2.0  # seconds until the second attempt; doubles
_LONGEST = 600.0


class Pusher:
    """Tells of tasks.

    Args:
        store: knows what is to be told.
        webhooks: checks URLs.
    """

    def __init__(self, store: Store, webhooks: Webhooks) -> None:
        self._store = store
        self._webhooks = webhooks

    async def run(self) -> None:
        """Tells what is to be told, for ever; for a task of its own."""
        async with httpx.AsyncClient(
            timeout=_TIMEOUT, follow_redirects=False, trust_env=False
        ) as client:
            while True:
                try:
                    pushes = await self._store.claim(_BATCH)
                    await asyncio.gather(*(self._push(client, each) for each in pushes))
                except rpc.Error:
                    log.warning("A2A pushes cannot be looked up now", exc_info=True)
                    pushes = []
                if len(pushes) < _BATCH:
                    await asyncio.sleep(_IDLE * random.uniform(0.5, 1.0))  # noqa: S311 jitter

    async def _push(self, client: httpx.AsyncClient, push: Push) -> None:
        task = await self._store.read(push.task_id)
        if task is None:
            return
        problem = await self._tell(client, push, b'{"task":' + task.render() + b"}")
        if not problem:
            await self._store.told(push, None)
            return
        over = push.attempts >= _ATTEMPTS
        log.warning(
            "a push is given up" if over else "a push failed; it is tried again",
            extra={"task": task.id, "config": push.config.id, "problem": problem},
        )
        wait = min(_LONGEST, _FIRST * 2 ** (push.attempts - 1)) * random.uniform(0.5, 1.0)  # noqa: S311 jitter
        await self._store.told(push, None if over else timedelta(seconds=wait))

    async def _tell(self, client: httpx.AsyncClient, push: Push, body: bytes) -> str:
        """Makes one attempt; returns what went wrong."""
        config = push.config
        try:
            target = await self._webhooks.resolve(config.url)
            headers = {"host": target.host, "content-type": MEDIA_TYPE.decode()}
            if config.scheme:
                headers["authorization"] = f"{config.scheme} {config.credentials}".strip()
            if config.token:
                headers["x-a2a-notification-token"] = config.token
            request = client.build_request(
                "POST",
                target.url,
                content=body,
                headers=headers,
                extensions={"sni_hostname": target.name},
            )
            async with asyncio.timeout(_TIMEOUT):
                response = await client.send(request, stream=True)
                await response.aclose()
        except (UrlRefused, rpc.Unavailable) as refused:
            return refused.message
        except (httpx.HTTPError, TimeoutError, ValueError) as failed:
            return type(failed).__name__
        return "" if response.is_success else f"HTTP {response.status_code}"
