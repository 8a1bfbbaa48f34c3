"""Stores, runners and agents of the tests of jobs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from weft import rpc
from weft.gateway.jobs import Bells, JobOutcomeUnknown, Jobs, JobTooLate, NewJob, Owner
from weft.gateway.jobs.bells import CHANNEL
from weft.postgres import Database, Listener
from weft.rpc.testing import wait_until
from weft.v1.identity_pb2 import Identity

ANN = Owner(tenant="acme", subject="user:ann")
BOB = Owner(tenant="acme", subject="user:bob")
ANN_ELSEWHERE = Owner(tenant="other", subject="user:ann")
SAY = "/weft.echo.v1.EchoService/Say"
SAY_ONCE = "/weft.echo.v1.EchoService/SayOnce"
REPEAT = "/weft.echo.v1.EchoService/Repeat"


def new_job(owner: Owner = ANN, **further: Any) -> NewJob:
    values: dict[str, Any] = {
        "owner": owner,
        "agent": "echo",
        "method": SAY,
        "request": b"",
        "identity": Identity(subject=owner.subject, tenant=owner.tenant).SerializeToString(),
        "time": timedelta(minutes=1),
        "keep": timedelta(hours=1),
        "repeatable": True,
    }
    return NewJob(**(values | further))


@dataclass(frozen=True, kw_only=True)
class Store:
    """A store of jobs as one process has it."""

    database: Database
    bells: Bells
    jobs: Jobs
    said: list[str] = field(default_factory=list)


@contextlib.asynccontextmanager
async def opened(database_url: str, **further: Any) -> AsyncIterator[Store]:
    async with await Database.connect(database_url, schema="gateway") as database:
        await database.migrate("weft.gateway.sql")
        bells = Bells()
        said: list[str] = []

        def hear(payload: str | None) -> None:
            said.append(payload or "")
            bells.hear(payload)

        listener = Listener(database_url, CHANNEL, hear)
        listening = asyncio.create_task(listener.run())
        await wait_until(listener.listening.is_set)
        yield Store(
            database=database, bells=bells, jobs=Jobs(database, bells, **further), said=said
        )
        listening.cancel()
        await asyncio.wait({listening})


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    async with opened(database_url) as made:
        yield made


Opening = Callable[..., contextlib.AbstractAsyncContextManager[Store]]


@pytest.fixture
def opening(database_url: str) -> Opening:
    """Opens stores of further processes on the same database."""
    return lambda **further: opened(database_url, **further)


@pytest.fixture
def lost_statuses() -> Callable[[], tuple[bytes, bytes, bytes]]:
    """How jobs end that nobody will run any more: too late, unknown, cancelled."""
    errors = (JobTooLate(), JobOutcomeUnknown(), rpc.Cancelled())

    def made() -> tuple[bytes, bytes, bytes]:
        late, unknown, cancelled = (rpc.status_proto(e).SerializeToString() for e in errors)
        return late, unknown, cancelled

    return made
