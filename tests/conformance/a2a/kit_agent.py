"""The agent that the A2A conformance kit steers by the ids of its messages, and a mesh with it alone."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
from a2a.types import a2a_pb2 as pb
from google.protobuf import json_format
from tests.conformance.a2a.fleet import compiled, gateway_of

from weft import rpc
from weft.agents import Host
from weft.gateway import Gateway
from weft.gateway.doors.a2a import A2aSettings
from weft.registry import Registry
from weft.rpc.testing import wait_until

_FILE = {"filename": "output.txt", "mediaType": "text/plain"}
# Longer prefixes before those that they begin with.
_PARTS: dict[str, dict[str, Any]] = {
    "tck-artifact-text": {"text": "Generated text content"},
    "tck-artifact-file-url": {"url": "https://example.com/output.txt", **_FILE},
    "tck-artifact-file": {"raw": "VGVzdCBmaWxl", **_FILE},
    "tck-artifact-data": {"data": {"key": "value", "count": 42}},
    "tck-stream-003": {"text": "Stream task lifecycle"},
    "tck-stream-ordering-001": {"text": "Ordered output"},
    "tck-stream": {"text": "Stream hello from TCK"},
}


def answer(message: pb.Message) -> pb.SendMessageResponse:
    """What the kit's scenarios ask for.

    Raises:
        rpc.Error: so do they.
    """
    given = message.message_id
    if given.startswith("tck-input-required"):
        raise rpc.FailedPrecondition("Which one?", reason="INPUT_REQUIRED")
    if given.startswith("tck-auth-required"):
        raise rpc.Unauthenticated("Sign in.", reason="AUTH_REQUIRED")
    if given.startswith("tck-reject-task"):
        raise rpc.InvalidArgument("rejected")
    if given.startswith("tck-message-response"):
        said = pb.Message(message_id=f"re-{given}", role=pb.ROLE_AGENT)
        said.parts.add(text="Direct message response")
        return pb.SendMessageResponse(message=said)
    found = (part for prefix, part in _PARTS.items() if given.startswith(prefix))
    part = json_format.ParseDict(next(found, {"text": "Hello from TCK"}), pb.Part())
    task = pb.Task(artifacts=[pb.Artifact(parts=[part])])
    return pb.SendMessageResponse(task=task)


def agent() -> object:
    """The servicer."""
    # Code that protoc makes of kit.proto looks for this module at the top.
    sys.modules.setdefault("a2a_pb2", pb)
    _, services = compiled("kit")

    class Kit(services.KitServiceServicer):  # type: ignore[misc,name-defined]
        async def Answer(self, request: pb.Message, context: Any) -> pb.SendMessageResponse:
            return answer(request)

    return Kit()


@contextlib.asynccontextmanager
async def mesh(database_url: str, **further: Any) -> AsyncIterator[Gateway]:
    """A gateway, whose A2A callers mean this agent where they name none."""
    async with (
        Registry(
            database_url=database_url, address="127.0.0.1:0", cold_start=timedelta(0)
        ) as registry,
        Host(registry=registry.address) as host,
        gateway_of(
            registry.address, database_url, a2a=A2aSettings(agent="kit"), **further
        ) as gateway,
    ):
        host.add(agent())
        await host.start()
        async with httpx.AsyncClient(base_url=gateway.url) as http:

            async def served() -> bool:
                return (await http.get("/.well-known/agent-card.json")).status_code == 200

            await wait_until(served)
        yield gateway
