"""The client of the A2A SDK talks to the gateway on all three bindings."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import pytest
from a2a.client import ClientConfig, create_client
from a2a.types import a2a_pb2 as pb
from a2a.utils import errors
from google.protobuf.json_format import MessageToDict, ParseDict
from tests.conformance.a2a.fleet import Fleet
from tests.gateway.doors.a2a_client import ASK, COUNT, URI, Receiver

BINDINGS = ("JSONRPC", "HTTP+JSON", "GRPC")


@contextlib.asynccontextmanager
async def client(fleet: Fleet, binding: str, *, streaming: bool = False) -> AsyncIterator[Any]:
    async with httpx.AsyncClient(timeout=20) as http:
        config = ClientConfig(
            streaming=streaming,
            httpx_client=http,
            supported_protocol_bindings=[binding],
            use_client_preference=True,
            grpc_channel_factory=grpc.aio.insecure_channel,
        )
        made = await create_client(f"{fleet.gateway.url}/a2a/scenarios", config)
        # Callers by gRPC name the agent by the tenant that the card tells them.
        transport = getattr(made._transport, "_base", made._transport)
        assert type(transport).__name__ == {
            "JSONRPC": "JsonRpcTransport",
            "HTTP+JSON": "RestTransport",
            "GRPC": "GrpcTransport",
        }.get(binding)
        try:
            yield made
        finally:
            await made.close()


def request(part: dict[str, Any], skill: str, **configuration: Any) -> pb.SendMessageRequest:
    message = {
        "messageId": "m",
        "role": "ROLE_USER",
        "parts": [part],
        "metadata": {URI: {"skill": skill}},
    }
    return ParseDict({"message": message, "configuration": configuration}, pb.SendMessageRequest())


async def begin(sdk: Any, text: str, **configuration: Any) -> pb.Task:
    """The task of a text, as the client is answered without streaming."""
    told = [each async for each in sdk.send_message(request({"text": text}, ASK, **configuration))]
    task: pb.Task = told[0].task
    return task


@pytest.mark.parametrize("binding", BINDINGS)
async def test_send_get_and_list(scenarios: Fleet, binding: str) -> None:
    async with client(scenarios, binding) as sdk:
        task = await begin(sdk, "hello")
        assert task.status.state == pb.TASK_STATE_COMPLETED
        assert task.artifacts[0].parts[0].text == "said: hello"
        assert await sdk.get_task(pb.GetTaskRequest(id=task.id)) == task
        listed = await sdk.list_tasks(
            pb.ListTasksRequest(context_id=task.context_id, include_artifacts=True)
        )
        assert list(listed.tasks) == [task]
        assert (listed.total_size, listed.next_page_token) == (1, "")
        with pytest.raises(errors.TaskNotFoundError):
            await sdk.get_task(pb.GetTaskRequest(id="nothing"))
        with pytest.raises(errors.TaskNotCancelableError):
            await sdk.cancel_task(pb.CancelTaskRequest(id=task.id))


@pytest.mark.parametrize("binding", BINDINGS)
async def test_stream(scenarios: Fleet, binding: str) -> None:
    async with client(scenarios, binding, streaming=True) as sdk:
        sent = request({"data": {"upTo": 3}}, COUNT)
        kinds = [each.WhichOneof("payload") async for each in sdk.send_message(sent)]
        assert kinds == ["task", *["artifact_update"] * 3, "status_update"]


@pytest.mark.parametrize("binding", BINDINGS)
async def test_cancel_and_subscribe(scenarios: Fleet, binding: str) -> None:
    scenarios.told.go.clear()
    async with (
        client(scenarios, binding) as sdk,
        client(scenarios, binding, streaming=True) as other,
    ):
        task = await begin(sdk, "wait", returnImmediately=True)
        assert task.status.state == pb.TASK_STATE_WORKING
        told = other.subscribe(pb.SubscribeToTaskRequest(id=task.id))
        assert (await anext(told)).task.id == task.id
        cancelled = await sdk.cancel_task(pb.CancelTaskRequest(id=task.id))
        assert cancelled.status.state == pb.TASK_STATE_CANCELED
        last = [each async for each in told][-1]
        assert last.status_update.status.state == pb.TASK_STATE_CANCELED
    scenarios.told.go.set()


@pytest.mark.parametrize("binding", BINDINGS)
async def test_push(scenarios: Fleet, binding: str) -> None:
    async with client(scenarios, binding) as sdk, Receiver().listening() as receiver:
        waiting = await begin(sdk, "ask me")
        config = pb.TaskPushNotificationConfig(
            task_id=waiting.id, id="c", url=receiver.url, token="t"
        )
        made = await sdk.create_task_push_notification_config(config)
        config.ClearField("tenant")  # which is how the client says by gRPC whom it asks
        assert made == config
        named = pb.GetTaskPushNotificationConfigRequest(task_id=waiting.id, id="c")
        assert await sdk.get_task_push_notification_config(named) == config
        listed = await sdk.list_task_push_notification_configs(
            pb.ListTaskPushNotificationConfigsRequest(task_id=waiting.id)
        )
        assert list(listed.configs) == [config]
        async with asyncio.timeout(10):
            headers, told = await receiver.seen.get()
        assert headers["x-a2a-notification-token"] == "t"
        event = ParseDict(told, pb.StreamResponse())
        assert event.task.status.state == pb.TASK_STATE_INPUT_REQUIRED
        await sdk.delete_task_push_notification_config(
            pb.DeleteTaskPushNotificationConfigRequest(task_id=waiting.id, id="c")
        )
        left = await sdk.list_task_push_notification_configs(
            pb.ListTaskPushNotificationConfigsRequest(task_id=waiting.id)
        )
        assert not left.configs


@pytest.mark.parametrize("binding", BINDINGS)
async def test_the_extended_card(scenarios: Fleet, binding: str) -> None:
    async with client(scenarios, binding) as sdk:
        card = await sdk.get_extended_agent_card(pb.GetExtendedAgentCardRequest())
        assert ASK in {each.id for each in card.skills}
        params = MessageToDict(card.capabilities.extensions[0].params)
        assert params["skills"][ASK]["output"]["properties"]["text"]["type"] == "string"
