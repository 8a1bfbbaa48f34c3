"""The switch by which other tests run with mTLS and auth, and what a process says of its certificate."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from tests.certificates import TRUST_DOMAIN, Certificates
from tests.mtls.callers import Caller, refused
from tests.secured import secured

from weft import config, mtls, rpc
from weft.agents import serving
from weft.agents.echo import Echo
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.rpc.call import IDENTITY_KEY
from weft.rpc.testing import channel_for, wait_until
from weft.telemetry import PlannedIds, SecureReceiver
from weft.telemetry.spans import tracer_provider
from weft.traces import TraceStore, services
from weft.v1.identity_pb2 import Identity

ADD = echo_pb2_grpc.add_EchoServiceServicer_to_server
SAY = echo_pb2.SayRequest(text="hello")


async def test_with_the_switch_on_nothing_goes_unencrypted(
    tmp_path: Path, foreign: Certificates
) -> None:
    with secured(tmp_path / "all") as own:
        async with channel_for(ADD, Echo()) as channel:
            assert (await echo_pb2_grpc.EchoServiceStub(channel).Say(SAY)).text == "hello"
            address = channel.target
            with pytest.raises(AssertionError, match="would not be encrypted"):
                grpc.aio.insecure_channel(address)
            with pytest.raises(AssertionError, match="not encrypted"):
                grpc.aio.server().add_insecure_port("127.0.0.1:0")
            for kind in ("no certificate", "foreign", "expired"):
                caller = Caller(own._certificates, foreign, kind)
                await refused(caller, address, "registry", tmp_path)
    async with channel_for(ADD, Echo()) as channel, grpc.aio.insecure_channel(channel.target) as me:
        assert (await echo_pb2_grpc.EchoServiceStub(me).Say(SAY, timeout=5)).text == "hello"


async def test_with_the_switch_on_identities_are_signed_and_no_others_believed(
    tmp_path: Path,
) -> None:
    eve = Identity(subject="person:eve")
    with secured(tmp_path / "all"):
        server = rpc.Server()
        server.add(ADD, Echo())
        async with server, rpc.Channel(server.address, identity=eve) as channel:
            assert (await echo_pb2_grpc.EchoServiceStub(channel).Say(SAY)).text == "hello"
            forged = ((IDENTITY_KEY, eve.SerializeToString()),)
            async with rpc.Channel(server.address) as other:
                with pytest.raises(grpc.aio.AioRpcError) as failed:
                    await echo_pb2_grpc.EchoServiceStub(other).Say(SAY, metadata=forged)
    assert rpc.error_from_call(failed.value).reason == "IDENTITY_NOT_TRUSTED"


async def test_a_process_says_how_long_its_certificate_lives(tmp_path: Path) -> None:
    settings = config.load(
        {"WEFT_DATA": str(tmp_path), "WEFT_MTLS": "on", "WEFT_LOG_FORMAT": "json"}
    )
    with pytest.raises(config.SettingError, match="weft certificates init"):
        async with serving.member(settings):
            pass
    mtls.Authority.made(config.authority_home(tmp_path), TRUST_DOMAIN)
    async with (
        serving.member(settings) as own,
        serving.observed(settings, "agents", own) as watched,
    ):
        assert own.who.client
        name = "weft_certificate_expiry_timestamp_seconds"
        ends = watched.metrics.registry.get_sample_value(name, {"certificate": "mesh"})
        assert ends is not None
        assert 86_000 < ends - time.time() <= 86_400


async def test_spans_are_sent_by_the_certificate_of_now(
    certificates: Certificates, tmp_path: Path
) -> None:
    store = TraceStore()
    server = rpc.Server(mtls=certificates.part("registry"))
    for add, servicer in services(store):
        server.add(add, servicer)
    folder = tmp_path / "own"
    own = mtls.Credentials(certificates.files("agent/a", folder=folder))
    async with server:
        receivers = rpc.span_receivers(server.address, own)
        assert [type(receiver) for receiver in receivers] == [SecureReceiver]
        provider = tracer_provider("a", receivers, PlannedIds())
        try:
            for name in ("before", "after"):
                provider.get_tracer("test").start_span(name).end()
                await wait_until(
                    lambda name=name: name in {one.name for one in store.newest(9)},
                    timeout=timedelta(seconds=10),
                )
                certificates.files("agent/a", folder=folder)
                own.look()
        finally:
            await asyncio.to_thread(provider.shutdown)
