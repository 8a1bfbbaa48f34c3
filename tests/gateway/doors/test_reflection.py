"""gRPC reflection at the gateway's gRPC port, and calls made with nothing else known, as grpcurl makes them."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

Request = reflection_pb2.ServerReflectionRequest
VERSIONS = ["v1", "v1alpha"]


def reflection(channel, version):
    return channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=Request.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )


@pytest.fixture
async def channel(entry):
    async with grpc.aio.insecure_channel(entry.grpc_address) as made:
        yield made


async def ask(channel, *requests, version="v1"):
    return [answer async for answer in reflection(channel, version)(iter(requests))]


def files(answer):
    found = answer.file_descriptor_response.file_descriptor_proto
    return [descriptor_pb2.FileDescriptorProto.FromString(each) for each in found]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_method_found_by_reflection_is_called(channel, version):
    [listed] = await ask(channel, Request(list_services="*"), version=version)
    names = [service.name for service in listed.list_services_response.service]
    assert "weft.echo.v1.EchoService" in names
    assert "grpc.reflection.v1.ServerReflection" in names
    request = Request(host="h", file_containing_symbol="weft.echo.v1.EchoService")
    [answer] = await ask(channel, request, version=version)
    assert (answer.valid_host, answer.original_request) == ("h", request)
    pool = descriptor_pool.DescriptorPool()
    given = {file.name: file for file in files(answer)}

    def add(name: str) -> None:
        if (file := given.pop(name, None)) is not None:
            for imported in file.dependency:
                add(imported)
            pool.Add(file)

    for name in list(given):
        add(name)
    method = pool.FindServiceByName("weft.echo.v1.EchoService").methods_by_name["Say"]
    asked, told = (
        message_factory.GetMessageClass(kind) for kind in (method.input_type, method.output_type)
    )
    call = channel.unary_unary(
        "/weft.echo.v1.EchoService/Say",
        request_serializer=asked.SerializeToString,
        response_deserializer=told.FromString,
    )
    assert (await call(asked(text="hi"))).text == "hi"


async def test_symbols_files_and_extensions(channel, mirror):
    extension = reflection_pb2.ExtensionRequest(
        containing_type="google.protobuf.MethodOptions", extension_number=50700
    )
    answers = await ask(
        channel,
        Request(file_containing_symbol="weft.echo.v1.EchoService.Say"),
        Request(file_containing_symbol="weft.echo.v1.SayRequest"),
        Request(file_by_filename="weft/echo/v1/echo.proto"),
        Request(file_containing_extension=extension),
        Request(all_extension_numbers_of_type="google.protobuf.MethodOptions"),
        Request(file_containing_symbol="tests.mirror.v1.MirrorService"),
        Request(file_by_filename="mirror.proto"),
    )
    assert [files(each)[0].name for each in answers[:4]] == [
        *["weft/echo/v1/echo.proto"] * 3,
        "weft/v1/options.proto",
    ]
    assert 50700 in answers[4].all_extension_numbers_response.extension_number
    assert [files(each)[0].name for each in answers[5:]] == ["mirror.proto"] * 2
    imported = {file.name for file in files(answers[0])}
    assert {"google/api/http.proto", "google/protobuf/duration.proto"} <= imported


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (Request(file_containing_symbol="no.such.Thing"), 5),
        (Request(file_by_filename="none.proto"), 5),
        (Request(all_extension_numbers_of_type="no.such.Thing"), 5),
        (
            Request(
                file_containing_extension=reflection_pb2.ExtensionRequest(
                    containing_type="google.protobuf.MethodOptions", extension_number=1
                )
            ),
            5,
        ),
        (Request(), 3),
    ],
)
async def test_what_is_not_there(channel, request_, code):
    [answer, after] = await ask(channel, request_, Request(list_services=""))
    assert answer.error_response.error_code == code
    assert after.list_services_response.service  # the stream goes on


async def test_health_is_served_beside_it(channel):
    health = health_pb2_grpc.HealthStub(channel)
    answer = await health.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_it_asks_for_a_key_where_skills_do(own_with_keys):
    mesh, good, _ = own_with_keys
    async with grpc.aio.insecure_channel(mesh.gateway.grpc_address) as channel:
        for version in VERSIONS:
            call = reflection(channel, version)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(iter([Request(list_services="*")])).read()
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            answer = await call(
                iter([Request(list_services="*")]), metadata=(("x-api-key", good.text),)
            ).read()
            assert answer.list_services_response.service
