"""No request without the scope reaches an agent, by any door; and no agent believes who was not let in by one."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib.metadata
import importlib.util
import itertools
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import grpc
import grpc_tools
import httpx
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from grpc_tools import protoc
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from weft import rpc
from weft.agents import Host
from weft.broker import Broker
from weft.gateway import Gateway
from weft.gateway.guards.key_store import KeyStore
from weft.postgres import Database
from weft.registry import Registry
from weft.rpc.signing import Signer, Verifier
from weft.rpc.testing import wait_until
from weft.v1 import broker_pb2, broker_pb2_grpc, message_pb2
from weft.v1.identity_pb2 import Identity

C = grpc.StatusCode
SERVICE = "test.vault.v1.VaultService"
NEEDS = {
    "Look": set(),
    "Read": {"vault.read"},
    "Write": {"vault.read", "vault.write"},
    "Watch": {"vault.watch"},
    "Pour": {"vault.write"},
    "Talk": {"vault.watch"},
}
SCOPES = ("vault.read", "vault.write", "vault.watch")
# What gRPC puts on the wire for a "-bin" entry.
ROOT = base64.b64encode(Identity(subject="root", all_scopes=True).SerializeToString()).decode()
BY_NAME = ("grpc", "websocket")  # doors that tell the name of a status
STREAMS = {"Watch": (False, True), "Pour": (True, False), "Talk": (True, True)}


@pytest.fixture(scope="session")
def vault(tmp_path_factory) -> tuple[ModuleType, ModuleType]:
    """The generated modules of the contract beside this file."""
    out = tmp_path_factory.mktemp("vault")
    google = importlib.metadata.distribution("googleapis-common-protos").locate_file("")
    builtin = Path(grpc_tools.__file__).parent / "_proto"
    proto = Path(importlib.util.find_spec("weft.v1.options_pb2").origin).parents[2]
    here = Path(__file__).parent
    includes = [f"-I{path}" for path in (here, proto, google, builtin)]
    made = protoc.main(
        ["protoc", *includes, f"--python_out={out}", f"--grpc_python_out={out}", "vault.proto"]
    )
    assert made == 0
    modules = []
    for name in ("vault_pb2", "vault_pb2_grpc"):
        spec = importlib.util.spec_from_file_location(name, out / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        modules.append(module)
    return modules[0], modules[1]


def vault_agent(vault, calls: Counter[str]) -> Any:
    messages, services = vault

    class Vault(services.VaultServiceServicer):
        """Counts what reaches it."""

        def _said(self, method):
            calls[method] += 1
            identity = rpc.current_call().identity or Identity(subject="nobody")
            return messages.LookResponse(caller=identity.subject, tenant=identity.tenant)

        async def Look(self, request, context):
            return self._said("Look")

        async def Read(self, request, context):
            return self._said("Read")

        async def Write(self, request, context):
            return self._said("Write")

        async def Watch(self, request, context):
            yield self._said("Watch")

        async def Pour(self, request_iterator, context):
            return self._said("Pour")

        async def Talk(self, request_iterator, context):
            yield self._said("Talk")

    return Vault()


@dataclass(kw_only=True)
class House:
    gateway: Gateway
    host: Host
    http: httpx.AsyncClient
    grpc: grpc.aio.Channel
    store: KeyStore
    messages: ModuleType
    broker: str
    trusted: Signer
    calls: Counter[str] = field(default_factory=Counter)

    async def say(self, door: str, method: str, headers: dict[str, str]) -> tuple[str, Any]:
        """The code a call ends with, and what was answered. No answer: the door has no such method."""
        if door == "grpc":
            return await self._by_grpc(self.grpc, method, headers)
        if door == "websocket":
            return await self._by_websocket(method, headers)
        path = f"/v1/vault:{method.lower()}" if door != "connect" else f"/{SERVICE}/{method}"
        if door == "get":
            told = await self.http.get("/v1/vault", headers=headers)
        elif door == "sse":
            told = await self.http.post(
                path, json={}, headers={**headers, "accept": "text/event-stream"}
            )
        else:
            told = await self.http.post(path, json={}, headers=headers)
        return str(told.status_code), told

    async def _by_websocket(self, method, headers) -> tuple[str, Any]:
        url = f"ws{self.gateway.url.removeprefix('http')}/ws/{SERVICE}/{method}"
        async with connect(url, additional_headers=headers) as socket:
            heard = {}
            with contextlib.suppress(ConnectionClosed):
                await socket.send("{}")
                await socket.send('{"@end": {}}')
                while True:
                    heard = json.loads(await socket.recv())
            if socket.close_code == 1000:
                return "OK", heard
            (info,) = (each for each in heard["@error"]["details"] if "reason" in each)
            assert socket.close_code == 4000 + C[heard["@error"]["status"]].value[0]
            return heard["@error"]["status"], SimpleNamespace(**{"metadata": {}, **info})

    async def _by_grpc(self, channel, method, headers) -> tuple[str, Any]:
        streams = STREAMS.get(method, (False, False))
        sides = ["stream" if one else "unary" for one in streams]
        call = getattr(channel, "_".join(sides))(
            f"/{SERVICE}/{method}", response_deserializer=self.messages.LookResponse.FromString
        )
        request = iter([b""]) if streams[0] else b""
        metadata = [
            (name, base64.b64decode(value) if name.endswith("-bin") else value)
            for name, value in headers.items()
        ]
        running = call(request, metadata=tuple(metadata), timeout=10)
        try:
            if streams[1]:
                (said,) = [one async for one in running]
            else:
                said = await running
        except grpc.aio.AioRpcError as failed:
            return failed.code().name, rpc.error_from_call(failed)
        return "OK", said


@contextlib.asynccontextmanager
async def house(database_url, redis_url, vault, issuer, **further: Any) -> AsyncIterator[House]:
    signer = Signer(Ed25519PrivateKey.generate())
    calls: Counter[str] = Counter()
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        broker = await enter(
            Broker(redis_url=redis_url, address="127.0.0.1:0", beat=timedelta(milliseconds=50))
        )
        registry = await enter(
            Registry(database_url=database_url, address="127.0.0.1:0", cold_start=timedelta(0))
        )
        host = await enter(
            Host(
                registry=registry.address,
                brokers=broker.address,
                identity_trust=signer.public if further.pop("agents_check", True) else "",
            )
        )
        host.add(vault_agent(vault, calls))
        if events := further.pop("events", None):
            host.on("vault.>", events)
        await host.start()
        given = {"auth": "on", "tokens": issuer.rules(), "signer": signer, **further}
        gateway = await enter(
            Gateway(
                registry=registry.address, database_url=database_url, listen="127.0.0.1:0",
                grpc_listen="127.0.0.1:0", **given,
            )
        )  # fmt: skip
        http = await enter(httpx.AsyncClient(base_url=gateway.url, timeout=20))
        channel = await enter(grpc.aio.insecure_channel(gateway.grpc_address))
        database = await enter(await Database.connect(database_url, schema="gateway"))
        database.load("weft.gateway.sql")
        made = House(
            gateway=gateway, host=host, http=http, grpc=channel, store=KeyStore(database),
            messages=vault[0], broker=broker.address, trusted=signer, calls=calls,
        )  # fmt: skip
        good = {"authorization": f"Bearer {issuer.token()}"}

        async def served() -> bool:
            return (await http.post("/v1/vault:look", json={}, headers=good)).status_code in {
                200,
                500,
            }

        await wait_until(served)
        calls.clear()
        yield made


@pytest_asyncio.fixture
async def mesh(fresh_xds, database_url, redis_url, vault, issuer) -> AsyncIterator[House]:
    async with house(database_url, redis_url, vault, issuer) as made:
        yield made


@pytest_asyncio.fixture
async def doors_alone(fresh_xds, database_url, redis_url, vault, issuer) -> AsyncIterator[House]:
    """A mesh whose agents believe everybody: what keeps callers out is the doors."""
    async with house(database_url, redis_url, vault, issuer, agents_check=False) as made:
        yield made


def doors_of(method: str) -> list[str]:
    doors = [*BY_NAME]
    if method not in {"Pour", "Talk"}:
        doors += ["connect", "sse" if method == "Watch" else "rest"]
    return [*doors, "get"] if method == "Read" else doors


async def test_no_request_without_the_scope_reaches_an_agent(doors_alone, issuer) -> None:
    """Every door, every method, every set of scopes, both kinds of credential."""
    expected: Counter[str] = Counter()
    tried = 0
    for count in range(4):
        for granted in itertools.combinations(SCOPES, count):
            key = await doors_alone.store.create("x", scopes=granted)
            token = issuer.token(scope=" ".join((*granted, "vault", "vault.read2", "VAULT.READ")))
            for text, method in itertools.product((key.text, token), NEEDS):
                missing = NEEDS[method] - set(granted)
                for door in doors_of(method):
                    tried += 1
                    headers = {"authorization": f"Bearer {text}", "weft-identity-bin": ROOT}
                    code, told = await doors_alone.say(door, method, headers)
                    where = f"{method} by {door} with {granted}"
                    if not missing:
                        expected[method] += 1
                        assert code in {"OK", "200"}, where
                    elif door in BY_NAME:
                        assert code == "PERMISSION_DENIED", where
                        assert told.reason == "SCOPE_MISSING"
                        assert set(told.metadata["missing_scopes"].split()) == missing
                    else:
                        assert code == "403", where
                        assert "SCOPE_MISSING" in told.text
                        assert all(scope in told.text for scope in missing)
                        assert 'error="insufficient_scope"' in told.headers["www-authenticate"]
                    assert doors_alone.calls == expected, where
    assert tried == 8 * 2 * 21


async def test_nobody_who_is_not_known_reaches_an_agent(doors_alone, issuer) -> None:
    good = issuer.token(scope=" ".join(SCOPES))
    revoked = await doors_alone.store.create("x", scopes=SCOPES)
    await doors_alone.store.revoke(revoked.key.id)
    expired = issuer.token(exp=1)
    unsigned = f"{good.rpartition('.')[0]}."
    anonymous = doors_alone.trusted.sign(Identity(subject="anonymous", all_scopes=True))
    credentials = {
        "CREDENTIAL_MISSING": [{}, {"cookie": good}, {"weft-identity": "x"}],
        "TOKEN_EXPIRED": [{"authorization": f"Bearer {expired}"}],
        "TOKEN_INVALID": [{"authorization": f"Bearer {unsigned}"}],
        "TOKEN_AUDIENCE_WRONG": [{"authorization": f"Bearer {issuer.token(aud='x')}"}],
        "KEY_REVOKED": [{"x-api-key": revoked.text}],
        "KEY_MALFORMED": [{"authorization": "Bearer x"}, {"authorization": f"Basic {good}"}],
    }
    for reason, given in credentials.items():
        for headers, method in itertools.product(given, NEEDS):
            for door in doors_of(method):
                code, told = await doors_alone.say(door, method, headers)
                if door in BY_NAME:
                    assert (code, told.reason) == ("UNAUTHENTICATED", reason)
                else:
                    assert code == "401"
                    assert reason in told.text
                    challenge = told.headers["www-authenticate"]
                    assert challenge.startswith('Bearer realm="weft"')
                    assert ("invalid_token" in challenge) == (reason != "CREDENTIAL_MISSING")
    # An identity that an agent would believe is not taken from outside.
    for door in doors_of("Read"):
        headers = (
            {} if door in BY_NAME else {"weft-identity-bin": anonymous.SerializeToString().hex()}
        )
        code, _ = await doors_alone.say(door, "Read", headers)
        assert code in {"UNAUTHENTICATED", "401"}
    call = doors_alone.grpc.unary_unary(f"/{SERVICE}/Read")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(b"", metadata=(("weft-identity-bin", anonymous.SerializeToString()),))
    assert refused.value.code() is C.UNAUTHENTICATED
    assert not doors_alone.calls


async def test_agents_that_are_called_directly_ask_for_scopes_too(mesh, vault) -> None:
    everything = Identity(subject="root", all_scopes=True)
    reader = Identity(subject="user:ann", scopes=["vault.read"])
    stranger = Signer(Ed25519PrivateKey.generate())
    for identity, allowed, code in (
        (None, {"Look"}, C.PERMISSION_DENIED),
        (mesh.trusted.sign(reader), {"Look", "Read"}, C.PERMISSION_DENIED),
        (mesh.trusted.sign(everything), set(NEEDS), None),
        (everything, set(), C.UNAUTHENTICATED),
        (stranger.sign(everything), set(), C.UNAUTHENTICATED),
    ):
        mesh.calls.clear()
        async with rpc.Channel(mesh.host.server.address, identity=identity) as channel:
            for method in NEEDS:
                said, _ = await mesh._by_grpc(channel, method, {})
                assert said == ("OK" if method in allowed else code.name)
        assert set(mesh.calls) == allowed


async def test_who_calls_and_for_which_tenant_reaches_the_agent(
    fresh_xds, database_url, redis_url, vault, issuer
) -> None:
    from weft.gateway.guards.claims import ClaimRules

    rules = issuer.rules(claims=ClaimRules(tenant="org"))
    # Waits with a token that has no tenant would not be let in.
    token = issuer.token
    issuer.token = lambda *given, **claims: token(*given, **{"org": "acme", **claims})
    async with house(database_url, redis_url, vault, issuer, tokens=rules) as mesh:
        key = await mesh.store.create("x", tenant="umbrella")
        for text, caller, tenant in (
            (issuer.token(), "user:ann", "acme"),
            (issuer.token(org="other"), "user:ann", "other"),
            (key.text, f"key:{key.key.id}", "umbrella"),
        ):
            headers = {"authorization": f"Bearer {text}"}
            _, told = await mesh.say("rest", "Look", headers)
            assert told.json() == {"caller": caller, "tenant": tenant}
            _, told = await mesh.say("grpc", "Look", headers)
            assert (told.caller, told.tenant) == (caller, tenant)
            # What is stored for one tenant's ann is not told to another's.
            for _ in range(2):
                _, told = await mesh.say("rest", "Look", {**headers, "idempotency-key": "k" * 20})
                assert told.json()["tenant"] == tenant
        assert mesh.calls["Look"] == 3 * 3


async def test_where_everybody_is_let_in_no_scope_is_asked_for(
    fresh_xds, database_url, redis_url, vault, issuer
) -> None:
    async with house(database_url, redis_url, vault, issuer, auth="off") as mesh:
        for method in NEEDS:
            for door in doors_of(method):
                code, _ = await mesh.say(door, method, {})
                assert code in {"OK", "200"}
        code, _ = await mesh.say("rest", "Read", {"authorization": "Bearer x"})
        assert code == "401"


async def test_a_gateway_that_agents_do_not_trust_says_so(
    fresh_xds, database_url, redis_url, vault, issuer
) -> None:
    stranger = Signer(Ed25519PrivateKey.generate())
    for signer in (stranger, None):
        async with house(database_url, redis_url, vault, issuer, signer=signer) as mesh:
            code, told = await mesh.say(
                "rest", "Look", {"authorization": f"Bearer {issuer.token()}"}
            )
            assert code == "500"
            assert "GATEWAY_NOT_TRUSTED" in told.text
            assert not mesh.calls


# Messages


def message(mesh, identity: Identity | None, **further: Any) -> message_pb2.Message:
    return message_pb2.Message(
        **{"recipient": "vault", "method": f"/{SERVICE}/Read", "identity": identity, **further}
    )


async def test_messages_are_handled_in_the_name_of_who_is_believed(mesh) -> None:
    reader = Identity(subject="user:ann", scopes=["vault.read"])
    forged = mesh.trusted.sign(reader)
    forged.scopes.append("vault.write")
    await mesh.host.mesh.publish_message(message(mesh, mesh.trusted.sign(reader)))
    await wait_until(lambda: mesh.calls["Read"] == 1)
    async with rpc.Channel(mesh.broker) as channel:
        stub = broker_pb2_grpc.BrokerServiceStub(channel)

        async def dead() -> list[str]:
            listing = broker_pb2.ListDeadLettersRequest(queue="vault")
            found = await stub.ListDeadLetters(listing)
            return sorted(one.reason for one in found.dead_letters)

        for identity in (None, mesh.trusted.sign(Identity(subject="x")), reader, forged):
            await mesh.host.mesh.publish_message(message(mesh, identity))
        expected = ["IDENTITY_NOT_TRUSTED"] * 2 + ["SCOPE_MISSING"] * 2
        await wait_until(lambda: _equals(dead, expected))
    assert mesh.calls["Read"] == 1


async def _equals(ask, expected) -> bool:
    return await ask() == expected


async def test_a_message_that_waited_is_handled_in_the_name_it_was_sent_in(
    mesh, monkeypatch
) -> None:
    reader = mesh.trusted.sign(Identity(subject="user:ann", scopes=["vault.read"]))
    verifier: Verifier = mesh.host._verifier
    now = verifier._now
    # Agents look at their clocks much later than the broker accepted it.
    monkeypatch.setattr(verifier, "_now", lambda: now() + 100_000)
    async with rpc.Channel(mesh.host.server.address, identity=reader) as channel:
        assert (await mesh._by_grpc(channel, "Read", {}))[0] == "UNAUTHENTICATED"
    await mesh.host.mesh.publish_message(message(mesh, reader))
    await wait_until(lambda: mesh.calls["Read"] == 1)


async def test_events_of_somebody_forged_are_not_handled(
    fresh_xds, database_url, redis_url, vault, issuer
) -> None:
    seen: asyncio.Queue[str] = asyncio.Queue()

    async def on_event(event: vault[0].LookRequest) -> None:  # type: ignore[name-defined]
        del event
        await seen.put(rpc.current_call().identity.subject)

    on_event.__annotations__ = {"event": vault[0].LookRequest}
    async with house(database_url, redis_url, vault, issuer, events=on_event) as mesh:
        ann = Identity(subject="user:ann")
        for identity in (ann, mesh.trusted.sign(ann)):
            event = message_pb2.Message(topic="vault.x", identity=identity)
            await mesh.host.mesh.publish_message(event)
        assert await asyncio.wait_for(seen.get(), 10) == "user:ann"
        async with rpc.Channel(mesh.broker) as channel:
            stub = broker_pb2_grpc.BrokerServiceStub(channel)
            listing = broker_pb2.ListDeadLettersRequest(queue="vault.on-event")

            async def dead() -> list[str]:
                found = await stub.ListDeadLetters(listing)
                return [one.reason for one in found.dead_letters]

            await wait_until(lambda: _equals(dead, ["IDENTITY_NOT_TRUSTED"]))
    assert seen.empty()
