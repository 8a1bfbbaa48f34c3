"""Conversations in Redis, one list of serialized messages each. The only place that touches their keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import redis.asyncio
from redis.exceptions import RedisError, WatchError

from weft import rpc
from weft.support.v1.supervisor_pb2 import Message

MOST_MESSAGES = 200
_KEPT = timedelta(days=30)


class ConversationsUnavailable(rpc.Unavailable):
    """Conversations cannot be reached now; try again."""

    reason = "CONVERSATIONS_UNAVAILABLE"


class Conversations:
    """What was said, by conversation.

    Args:
        client: of Redis, with replies in bytes.
    """

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client

    async def read(self, conversation_id: str) -> list[Message]:
        """Messages of a conversation, oldest first; empty for an unknown one.

        Raises:
            ConversationsUnavailable: Redis cannot be reached.
        """
        async with _translated():
            kept = await self._client.lrange(_key(conversation_id), 0, -1)
        return [Message.FromString(one) for one in kept if isinstance(one, bytes)]

    async def answered(self, mail_id: str) -> bytes | None:
        """What `append` kept as the answer to a mail; None: nothing yet.

        Raises:
            ConversationsUnavailable: Redis cannot be reached.
        """
        async with _translated():
            kept = await self._client.get(_mail_key(mail_id))
        return kept if isinstance(kept, bytes) else None

    async def append(
        self, conversation_id: str, *messages: Message, mail_id: str = "", answer: bytes = b""
    ) -> None:
        """Adds messages at once, keeps the latest 200, for 30 days from now; with them the answer to a mail.

        Raises:
            ConversationsUnavailable: Redis cannot be reached; the messages may be stored or not.
        """
        key = _key(conversation_id)
        async with _translated(), self._client.pipeline(transaction=True) as pipeline:
            if mail_id:
                pipeline.set(_mail_key(mail_id), answer, ex=_KEPT)
            _add(pipeline, key, *messages)
            await pipeline.execute()

    async def append_once(
        self, conversation_id: str, message: Message, *, mail_id: str, answer: bytes
    ) -> bytes:
        """Adds a message with the answer to a mail, as `append` does, unless there is one; the answer that is kept.

        Raises:
            ConversationsUnavailable: Redis cannot be reached; the message may be stored or not.
        """
        key, kept_at = _key(conversation_id), _mail_key(mail_id)
        async with _translated(), self._client.pipeline(transaction=True) as pipeline:
            while True:
                await pipeline.watch(kept_at)
                kept = await pipeline.get(kept_at)
                if isinstance(kept, bytes):
                    return kept
                pipeline.multi()  # type: ignore[no-untyped-call]
                _add(pipeline, key, message)
                pipeline.set(kept_at, answer, ex=_KEPT)
                try:
                    await pipeline.execute()
                except WatchError:
                    continue  # somebody else was first
                return answer

    async def expect(self, run: str, tenant: str, conversation_id: str) -> None:
        """Keeps that a conversation waits for what a person decides in a run of a tenant, for 30 days.

        Raises:
            ConversationsUnavailable: Redis cannot be reached.
        """
        async with _translated():
            await self._client.set(_run_key(run, tenant), conversation_id, ex=_KEPT)

    async def expecting(self, run: str, tenant: str) -> str:
        """The conversation that waits for a run of a tenant; empty: none does.

        Raises:
            ConversationsUnavailable: Redis cannot be reached.
        """
        async with _translated():
            kept = await self._client.get(_run_key(run, tenant))
        return kept.decode() if isinstance(kept, bytes) else ""


def _add(pipeline: redis.asyncio.client.Pipeline, key: str, *messages: Message) -> None:
    pipeline.rpush(key, *(message.SerializeToString() for message in messages))
    pipeline.ltrim(key, -MOST_MESSAGES, -1)
    pipeline.expire(key, _KEPT)


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except (RedisError, OSError) as failed:
        raise ConversationsUnavailable from failed


def _mail_key(mail_id: str) -> str:
    return f"weft:support:mail:{mail_id}"


def _run_key(run: str, tenant: str) -> str:
    return f"weft:support:run:{run}:{tenant}"


def _key(conversation_id: str) -> str:
    return f"weft:support:conversation:{conversation_id}"
