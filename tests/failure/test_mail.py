"""A customer's answer survives the death of every process between."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from tests.broker import servers
from tests.failure.conftest import Process
from tests.ports import free_port

from weft import rpc
from weft.agents import Mesh
from weft.rpc.testing import wait_until
from weft.support.v1 import mailbox_pb2, mailbox_pb2_grpc
from weft.v1 import broker_pb2, broker_pb2_grpc, message_pb2

pytestmark = [pytest.mark.failure, pytest.mark.timeout(180)]

OTHERS = ("supervisor", "triage", "research", "solution", "quality", "escalation")
MAILS = 12


@dataclass
class House:
    """Registry, broker, Redis and the fleet: the mailbox in a process, all others in another."""

    folder: Path
    database_url: str
    redis: servers.Server
    registry: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")
    broker: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")
    parts: dict[str, Process] = field(default_factory=dict)

    def start(self, part: str) -> None:
        settings = {
            "WEFT_DATABASE_URL": self.database_url,
            "WEFT_REDIS_URL": self.redis.url,
            "WEFT_REGISTRY": self.registry,
            "WEFT_REGISTRY_LISTEN": self.registry,
            "WEFT_REGISTRY_METRICS": "127.0.0.1:0",
            "WEFT_REGISTRY_COLD_START": "0s",
            "WEFT_BROKER": self.broker,
            "WEFT_BROKER_LISTEN": self.broker,
            "WEFT_BROKER_METRICS": "127.0.0.1:0",
            "WEFT_AGENTS_METRICS": "127.0.0.1:0",
        }
        only = {"mailbox": ("mailbox",), "others": OTHERS}.get(part, ())
        command = ("agents", "serve", "support") if only else (part,)
        chosen = [word for agent in only for word in ("--only", f"support-{agent}")]
        self.parts[part] = Process(self.folder / f"{part}.log", *command, *chosen, **settings)

    async def quicken(self) -> None:
        """What is in the hands of the dead waits for 3 s instead of 30."""
        policy = message_pb2.QueuePolicy()
        policy.visibility_timeout.FromTimedelta(timedelta(seconds=3))
        async with rpc.Channel(self.broker) as channel:
            stub = broker_pb2_grpc.BrokerServiceStub(channel)
            for queue in ("support-supervisor", "support-mailbox"):
                await stub.SetQueue(
                    broker_pb2.SetQueueRequest(queue=queue, policy=policy), wait_for_ready=True
                )

    async def kill(self, part: str) -> None:
        """Kills a part and starts it again."""
        if part == "redis":
            self.redis.kill()
            await self.redis.start()
            return
        self.parts[part].kill()
        self.start(part)


@pytest_asyncio.fixture
async def mesh(
    fresh_xds: None, database_url: str, tmp_path: Path, short_folder: Path
) -> AsyncIterator[House]:
    redis = servers.Server(
        await servers.find_program(), short_folder / "mail", appendfsync="always"
    )
    await redis.start()
    made = House(tmp_path, database_url, redis)
    try:
        for part in ("registry", "broker"):
            made.start(part)
        await made.quicken()
        for part in ("mailbox", "others"):
            made.start(part)
        yield made
    finally:
        for process in made.parts.values():
            process.end()
        redis.kill()


async def test_every_mail_is_answered_once_whatever_dies(mesh: House) -> None:
    sent = [str(uuid.uuid4()) for _ in range(MAILS)]
    async with Mesh(mesh.registry) as callers:
        box = callers.stub(mailbox_pb2_grpc.MailboxServiceStub)

        async def send(mail_id: str) -> None:
            """Until it is taken: the same mail again is the same mail."""
            mail = mailbox_pb2.Mail(
                mail_id=mail_id, address="ann@example.com", text="I am still waiting on my card?"
            )
            while True:
                try:
                    await box.Receive(mailbox_pb2.ReceiveRequest(mail=mail), timeout=5)
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.1)
                else:
                    return

        await send(sent[0])
        for number, mail_id in enumerate(sent[1:]):
            sending = asyncio.create_task(send(mail_id))
            part = ("broker", "others", "redis", "mailbox", "registry")[number % 5]
            if number < 10:
                await mesh.kill(part)
            await sending

        async def answered() -> bool:
            return len(await outgoing()) >= MAILS

        async def outgoing() -> list[mailbox_pb2.Mail]:
            with contextlib.suppress(grpc.aio.AioRpcError):
                listed = await box.ListMails(
                    mailbox_pb2.ListMailsRequest(address="ann@example.com", page_size=500)
                )
                return [mail for mail in listed.mails if mail.outgoing]
            return []

        # A message that was in the hands of the dead waits for its visibility timeout.
        await wait_until(answered, timedelta(seconds=90))
        conversations = Counter(mail.conversation_id for mail in await outgoing())
    assert len(conversations) == MAILS
    assert set(conversations.values()) == {1}
