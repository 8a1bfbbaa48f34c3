"""Servers and channels: who is let in, who is believed, and what happens when certificates change."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from tests.certificates import TRUST_DOMAIN, Certificates
from tests.mtls.callers import Caller, refused

from weft import mtls, rpc
from weft.agents.echo import Echo
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.rpc.membership import Membership
from weft.rpc.testing import wait_until

SAY = echo_pb2.SayRequest(text="hello")


@contextlib.asynccontextmanager
async def serving(credentials: mtls.Credentials) -> AsyncIterator[str]:
    server = rpc.Server(mtls=credentials)
    server.add(echo_pb2_grpc.add_EchoServiceServicer_to_server, Echo("one"))
    async with server:
        yield server.address


async def say(channel: rpc.Channel, within: float = 5) -> str:
    stub = echo_pb2_grpc.EchoServiceStub(channel)
    return (await stub.Say(SAY, timeout=within)).text


async def test_members_talk(certificates: Certificates) -> None:
    client = certificates.member("client/ann")
    async with (
        serving(certificates.part("registry")) as address,
        rpc.Channel(address, mtls=client) as channel,
    ):
        assert await say(channel) == "hello"


async def test_a_part_must_show_its_own_name(certificates: Certificates) -> None:
    client = certificates.member("client/ann")
    async with serving(certificates.part("registry")) as address:
        async with rpc.Channel(address, mtls=client, part="broker") as channel:
            with pytest.raises(grpc.aio.AioRpcError, match="Hostname Verification"):
                await say(channel)
        # By a host name, that is the name: as of any server.
        async with rpc.Channel(
            address.replace("127.0.0.1", "localhost"), mtls=client, part="registry"
        ) as channel:
            with pytest.raises(grpc.aio.AioRpcError, match="Hostname Verification"):
                await say(channel)
    named = certificates.member("part/registry", names=["localhost"])
    async with (
        serving(named) as address,
        rpc.Channel(address.replace("127.0.0.1", "localhost"), mtls=client) as channel,
    ):
        assert await say(channel) == "hello"


async def test_several_addresses_are_dialled_as_one(certificates: Certificates) -> None:
    client = certificates.member("client/ann")
    async with (
        serving(certificates.part("registry")) as address,
        rpc.Channel(f"ipv4:127.0.0.1:1,{address}", mtls=client) as channel,
    ):
        assert await say(channel) == "hello"


async def test_an_agent_does_not_pass_for_a_part(certificates: Certificates) -> None:
    client = certificates.member("client/ann")
    async with (
        serving(certificates.agents("registry")) as address,
        rpc.Channel(address, mtls=client) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError, match="Hostname Verification"):
            await say(channel)


@pytest.mark.parametrize("caller", Caller.OUTSIDERS)
async def test_outsiders_are_refused(
    certificates: Certificates, foreign: Certificates, tmp_path: Path, caller: str
) -> None:
    async with serving(certificates.part("registry")) as address:
        await refused(Caller(certificates, foreign, caller), address, "registry", tmp_path)


async def test_a_member_of_another_trust_domain_is_refused(
    certificates: Certificates, tmp_path: Path
) -> None:
    """Two trust domains whose roots are in one bundle are two meshes all the same."""
    other = Certificates(tmp_path / "other", "other.example")
    names = [mtls.part_name(each, "registry") for each in (TRUST_DOMAIN, "other.example")]
    own, their = certificates.member("part/registry", names=names), other.member("client/ann")
    bundle = tmp_path / "both.pem"
    bundle.write_bytes(own.files.ca.read_bytes() + their.files.ca.read_bytes())

    def believing(files: mtls.Files) -> mtls.Credentials:
        return mtls.Credentials(mtls.Files(certificate=files.certificate, key=files.key, ca=bundle))

    async with (
        serving(believing(own.files)) as address,
        rpc.Channel(address, mtls=believing(their.files)) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await say(channel)
    error = rpc.error_from_call(failed.value)
    assert isinstance(error, rpc.PermissionDenied)
    assert error.reason == "NOT_OF_THE_MESH"


async def test_who_calls_is_known(certificates: Certificates) -> None:
    own = certificates.part("registry")
    membership, seen = Membership(own), []

    class Asks(Echo):
        async def Say(self, request: echo_pb2.SayRequest, context: object) -> echo_pb2.SayResponse:
            seen.append(membership.who(context))
            return await super().Say(request, context)

    server = rpc.Server(mtls=own)
    server.add(echo_pb2_grpc.add_EchoServiceServicer_to_server, Asks())
    async with (
        server,
        rpc.Channel(server.address, mtls=certificates.agents("greeter")) as channel,
    ):
        await say(channel)
    assert [str(who) for who in seen] == [f"spiffe://{TRUST_DOMAIN}/agent/greeter"]


# Change


async def test_certificates_change_under_calls_and_none_fails(
    certificates: Certificates, tmp_path: Path
) -> None:
    """Both ends, and the root: clients call on, streams go on, and nothing is connected by an old certificate."""
    far, near = tmp_path / "far", tmp_path / "near"
    names = [mtls.part_name(TRUST_DOMAIN, "registry")]
    server = mtls.Credentials(certificates.files("part/registry", names=names, folder=far))
    client = mtls.Credentials(certificates.files("client/ann", folder=near))
    async with serving(server) as address, rpc.Channel(address, mtls=client) as channel:
        stub = echo_pb2_grpc.EchoServiceStub(channel)
        talk = stub.Talk(timeout=30)
        await talk.write(echo_pb2.TalkRequest(text="before"))
        assert (await talk.read()).text == "before"
        said, done = 0, asyncio.Event()

        async def calling() -> None:
            nonlocal said
            while not done.is_set():
                assert await say(channel) == "hello"
                said += 1

        async with asyncio.TaskGroup() as tasks:
            for _ in range(4):
                tasks.create_task(calling())
            try:
                for _ in range(3):
                    certificates.authority = certificates.authority.rotated()
                    # Roots first: each end believes the new one before the other shows it.
                    for folder in (far, near):
                        held = mtls.files_of(folder)
                        leaf = mtls.Leaf(
                            certificate=held.certificate.read_bytes(), key=held.key.read_bytes()
                        )
                        mtls.replace(folder, leaf, certificates.authority.bundle.read_bytes())
                    server.look()
                    client.look()
                    certificates.files("part/registry", names=names, folder=far)
                    certificates.files("client/ann", folder=near)
                    server.look()
                    client.look()
                    before = said
                    await wait_until(lambda before=before: said > before + 50)
            finally:
                done.set()
        assert client.generation == 6
        certificates.authority.forget()
        await talk.write(echo_pb2.TalkRequest(text="after"))
        assert (await talk.read()).text == "after"
        await talk.done_writing()
        assert await talk.read() is grpc.aio.EOF
        del talk
        gc.collect()
        await wait_until(lambda: not len(channel._former))


async def test_a_channel_closes_with_the_calls_on_its_former_connections(
    certificates: Certificates, tmp_path: Path
) -> None:
    near = tmp_path / "near"
    client = mtls.Credentials(certificates.files("client/ann", folder=near))
    async with serving(certificates.part("registry")) as address:
        channel = rpc.Channel(address, mtls=client)
        stub = echo_pb2_grpc.EchoServiceStub(channel)
        talk = stub.Talk(timeout=30)
        await talk.write(echo_pb2.TalkRequest(text="before"))
        await talk.read()
        certificates.files("client/ann", folder=near)
        client.look()
        await say(channel)
        await channel.close()
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            assert await talk.read() is not grpc.aio.EOF


async def test_a_certificate_that_expired_while_it_was_held_opens_no_connection(
    certificates: Certificates,
) -> None:
    """Nothing is renewed here: open connections go on, and new ones are refused, at both ends."""
    client = certificates.member("client/ann", life=timedelta(seconds=2))
    async with serving(certificates.part("registry")) as address:
        async with rpc.Channel(address, mtls=client) as channel:
            assert await say(channel) == "hello"
            await wait_until(lambda: client.seconds_left() < -1)
            assert await say(channel) == "hello"
        async with rpc.Channel(address, mtls=client) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await say(channel)
            assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
