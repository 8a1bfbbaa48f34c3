"""One caller for each binding of A2A, all used the same way."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any, Protocol

import grpc
import httpx
import orjson
from a2a.types import a2a_pb2 as pb
from a2a.types import a2a_pb2_grpc
from google.protobuf.json_format import MessageToDict, ParseDict
from google.rpc import error_details_pb2, status_pb2

VERSION = {"a2a-version": "1.0"}
Json = dict[str, Any]


class Refused(Exception):
    """An error of A2A.

    Attributes:
        code: as the binding has it: a number of JSON-RPC, a status of HTTP, or a name of gRPC.
        reason: of google.rpc.ErrorInfo.
        domain: likewise.
    """

    def __init__(self, code: int | str, reason: str, domain: str) -> None:
        super().__init__(code, reason, domain)
        self.code, self.reason, self.domain = code, reason, domain


class Caller(Protocol):
    """How an agent is called."""

    async def call(self, operation: str, params: Json, **metadata: str) -> Json:
        """Its answer. Raises Refused."""

    def stream(self, operation: str, params: Json) -> AsyncIterator[Json]:
        """Its events. Raises Refused."""


class JsonRpc:
    """By JSON-RPC."""

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._http = http
        self._url = url
        self._ids = itertools.count(1)

    def _body(self, operation: str, params: Json) -> Json:
        return {"jsonrpc": "2.0", "id": next(self._ids), "method": operation, "params": params}

    async def call(self, operation: str, params: Json, **metadata: str) -> Json:
        """See Caller."""
        headers = VERSION | {name.replace("_", "-"): value for name, value in metadata.items()}
        answer = await self._http.post(
            self._url, json=self._body(operation, params), headers=headers
        )
        return self._result(answer.json())

    async def stream(self, operation: str, params: Json) -> AsyncIterator[Json]:
        """See Caller."""
        body = self._body(operation, params)
        async with self._http.stream("POST", self._url, json=body, headers=VERSION) as answer:
            if answer.headers["content-type"] != "text/event-stream":
                self._result(orjson.loads(await answer.aread()))
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    yield self._result(orjson.loads(line[6:]))

    @staticmethod
    def _result(told: Json) -> Json:
        if "error" in told:
            info = told["error"]["data"][0]
            raise Refused(told["error"]["code"], info["reason"], info["domain"])
        result: Json = told["result"]
        return result


_REST = {
    "SendMessage": ("POST", "/message:send"),
    "SendStreamingMessage": ("POST", "/message:stream"),
    "GetTask": ("GET", "/tasks/{id}"),
    "ListTasks": ("GET", "/tasks"),
    "CancelTask": ("POST", "/tasks/{id}:cancel"),
    "SubscribeToTask": ("POST", "/tasks/{id}:subscribe"),
    "CreateTaskPushNotificationConfig": ("POST", "/tasks/{taskId}/pushNotificationConfigs"),
    "GetTaskPushNotificationConfig": ("GET", "/tasks/{taskId}/pushNotificationConfigs/{id}"),
    "ListTaskPushNotificationConfigs": ("GET", "/tasks/{taskId}/pushNotificationConfigs"),
    "DeleteTaskPushNotificationConfig": ("DELETE", "/tasks/{taskId}/pushNotificationConfigs/{id}"),
    "GetExtendedAgentCard": ("GET", "/extendedAgentCard"),
}


class Rest:
    """By HTTP+JSON."""

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._http = http
        self._url = url

    def _request(self, operation: str, params: Json, headers: Json) -> httpx.Request:
        method, path = _REST[operation]
        rest = {name: value for name, value in params.items() if f"{{{name}}}" not in path}
        url = self._url + path.format(**params)
        if method == "POST":
            return self._http.build_request(method, url, json=rest, headers=headers)
        query = {n: str(v).lower() if isinstance(v, bool) else v for n, v in rest.items()}
        return self._http.build_request(method, url, params=query, headers=headers)

    async def call(self, operation: str, params: Json, **metadata: str) -> Json:
        """See Caller."""
        headers = VERSION | {name.replace("_", "-"): value for name, value in metadata.items()}
        answer = await self._http.send(self._request(operation, params, headers))
        told = self._checked(answer.json())
        assert answer.headers["content-type"] == "application/a2a+json"
        return told

    async def stream(self, operation: str, params: Json) -> AsyncIterator[Json]:
        """See Caller."""
        request = self._request(operation, params, VERSION)
        answer = await self._http.send(request, stream=True)
        try:
            if not answer.is_success:
                self._checked(orjson.loads(await answer.aread()))
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    yield orjson.loads(line[6:])
        finally:
            await answer.aclose()

    @staticmethod
    def _checked(told: Json) -> Json:
        if "error" in told:
            info = told["error"]["details"][0]
            raise Refused(told["error"]["code"], info["reason"], info["domain"])
        return told


class Grpc:
    """By gRPC."""

    def __init__(self, channel: grpc.aio.Channel, tenant: str) -> None:
        self._stub = a2a_pb2_grpc.A2AServiceStub(channel)
        self._tenant = tenant

    def _ask(self, operation: str, params: Json, metadata: Json) -> Any:
        name = {
            "CreateTaskPushNotificationConfig": "TaskPushNotificationConfig",
        }.get(operation, f"{operation}Request")
        if operation == "SendStreamingMessage":
            name = "SendMessageRequest"
        request = ParseDict({"tenant": self._tenant} | params, getattr(pb, name)())
        sent = tuple((VERSION | {n.replace("_", "-"): v for n, v in metadata.items()}).items())
        return getattr(self._stub, operation)(request, metadata=sent)

    async def call(self, operation: str, params: Json, **metadata: str) -> Json:
        """See Caller."""
        with _refusing():
            return MessageToDict(await self._ask(operation, params, metadata))
        raise AssertionError

    async def stream(self, operation: str, params: Json) -> AsyncIterator[Json]:
        """See Caller."""
        with _refusing():
            async for event in self._ask(operation, params, {}):
                yield MessageToDict(event)


@contextlib.contextmanager
def _refusing() -> Any:
    try:
        yield
    except grpc.aio.AioRpcError as failed:
        details = dict(failed.trailing_metadata() or ())["grpc-status-details-bin"]
        info = error_details_pb2.ErrorInfo()
        status_pb2.Status.FromString(details).details[0].Unpack(info)
        raise Refused(failed.code().name, info.reason, info.domain) from failed
