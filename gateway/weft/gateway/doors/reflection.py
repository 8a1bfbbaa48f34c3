"""gRPC server reflection over the contracts of all agents: what grpcurl and its like ask before they call.

Versions v1 and v1alpha are one protocol under two names. Agents may carry different versions of one file: a
stream goes on with the contract in which it found the first thing it asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2

from weft import rpc
from weft.gateway.doors.grpc_peer import certificate_of
from weft.gateway.guards.admission import Admission
from weft.gateway.transcoding.catalog import Catalog
from weft.gateway.transcoding.schema import Schema
from weft.rpc.errors import abort

Request = reflection_pb2.ServerReflectionRequest
Response = reflection_pb2.ServerReflectionResponse
Context = grpc.aio.ServicerContext[Any, Any]
_Find = Callable[[DescriptorPool], FileDescriptor]

_NAMES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
_PATHS = frozenset(f"/{name}/ServerReflectionInfo" for name in _NAMES)
_ITSELF = (*_NAMES, "grpc.health.v1.Health")
_CREDENTIALS = frozenset({"authorization", "x-api-key"})


class Reflection(grpc.GenericRpcHandler):
    """Serves both versions of the reflection service.

    Args:
        admission: finds out who calls; a caller with no key learns nothing where keys are asked for.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._catalog = Catalog()
        self._handler = grpc.stream_stream_rpc_method_handler(
            self._answer,
            request_deserializer=Request.FromString,
            response_serializer=Response.SerializeToString,
        )

    def use(self, catalog: Catalog) -> None:
        """Takes the methods to describe."""
        self._catalog = catalog

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of the reflection service's one method."""
        return self._handler if handler_call_details.method in _PATHS else None

    async def _answer(
        self, requests: AsyncIterator[Request], context: Context
    ) -> AsyncIterator[Response]:
        try:
            await self._admission.caller(
                (
                    (key.encode(), value.encode() if isinstance(value, str) else value)
                    for key, value in context.invocation_metadata() or ()
                    if key in _CREDENTIALS
                ),
                certificate_of(context),
            )
        except rpc.Error as failed:
            await abort(context, failed)
        asking = _Asking(self._catalog)
        async for request in requests:
            yield asking.answer(request)


class _Asking:
    """One stream of questions."""

    def __init__(self, catalog: Catalog) -> None:
        self._methods = catalog.methods
        self._services = sorted({method.service for method in catalog.methods.values()})
        schemas = {method.schema.digest: method.schema for method in catalog.methods.values()}
        self._schemas: list[Schema] = list(schemas.values())
        self._served = {method.service: method.schema for method in catalog.methods.values()}

    def answer(self, request: Request) -> Response:
        """The answer to a question."""
        answer = Response(valid_host=request.host, original_request=request)
        kind = request.WhichOneof("message_request")
        try:
            if kind == "list_services":
                for name in (*_ITSELF, *self._services):
                    answer.list_services_response.service.add(name=name)
            elif kind == "all_extension_numbers_of_type":
                self._extensions(request.all_extension_numbers_of_type, answer)
            elif kind is not None:
                file = self._file(kind, request)
                answer.file_descriptor_response.file_descriptor_proto.extend(_with_imports(file))
            else:
                answer.error_response.error_code = grpc.StatusCode.INVALID_ARGUMENT.value[0]
                answer.error_response.error_message = "the request asks for nothing"
        except KeyError:
            answer.error_response.error_code = grpc.StatusCode.NOT_FOUND.value[0]
            answer.error_response.error_message = "no contract has it"
        return answer

    def _file(self, kind: str, request: Request) -> FileDescriptor:
        if kind == "file_by_filename":
            return self._find(lambda pool: pool.FindFileByName(request.file_by_filename))
        if kind == "file_containing_symbol":
            symbol = request.file_containing_symbol
            service, _, method = symbol.rpartition(".")
            if f"/{service}/{method}" in self._methods:
                symbol = service  # the pool finds no methods
            if (schema := self._served.get(symbol)) is not None:
                self._prefer(schema)
            return self._find(lambda pool: pool.FindFileContainingSymbol(symbol))
        extension = request.file_containing_extension

        def holding(pool: DescriptorPool) -> FileDescriptor:
            extended = pool.FindMessageTypeByName(extension.containing_type)
            found = pool.FindExtensionByNumber(extended, extension.extension_number)
            return pool.FindFileContainingSymbol(found.full_name)

        return self._find(holding)

    def _find(self, find: _Find) -> FileDescriptor:
        for schema in self._schemas:
            try:
                found = find(schema.pool)
            except KeyError:
                continue
            self._prefer(schema)
            return found
        raise KeyError

    def _prefer(self, schema: Schema) -> None:
        self._schemas.remove(schema)
        self._schemas.insert(0, schema)

    def _extensions(self, name: str, answer: Response) -> None:
        for schema in self._schemas:
            try:
                extended = schema.pool.FindMessageTypeByName(name)
            except KeyError:
                continue
            numbers = sorted(each.number for each in schema.pool.FindAllExtensions(extended))
            answer.all_extension_numbers_response.base_type_name = name
            answer.all_extension_numbers_response.extension_number.extend(numbers)
            return
        raise KeyError


def _with_imports(file: FileDescriptor) -> Iterable[bytes]:
    """A file and all it imports, serialized."""
    waiting, seen = [file], {file.name}
    while waiting:
        each = waiting.pop()
        copied = FileDescriptorProto()
        each.CopyToProto(copied)
        yield copied.SerializeToString()
        for imported in each.dependencies:
            if imported.name not in seen:
                seen.add(imported.name)
                waiting.append(imported)
