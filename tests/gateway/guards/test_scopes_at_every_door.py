"""No request without the scope reaches an agent, by any door; and no agent believes who was not let in by one."""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import grpc
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.gateway.doors.mcp_client import Session
from tests.gateway.guards.house import NEEDS, SCOPES, SERVICE, STREAMS, House, house
from tests.gateway.guards.ways import HTTP, JOBS, WAYS, by_grpc, ways_to

from weft import rpc
from weft.gateway.guards.claims import ClaimRules
from weft.rpc.signing import Signer, Verifier
from weft.rpc.testing import wait_until
from weft.v1 import broker_pb2, broker_pb2_grpc, message_pb2
from weft.v1.identity_pb2 import Identity

C = grpc.StatusCode
# What gRPC puts on the wire for a "-bin" entry.
ROOT = base64.b64encode(Identity(subject="root", all_scopes=True).SerializeToString()).decode()


@pytest_asyncio.fixture
async def mesh(fresh_xds, database_url, redis_url, vault, issuer) -> AsyncIterator[House]:
    async with house(database_url, redis_url, vault, issuer) as made:
        yield made


@pytest_asyncio.fixture
async def doors_alone(fresh_xds, database_url, redis_url, vault, issuer) -> AsyncIterator[House]:
    """A mesh whose agents believe everybody: what keeps callers out is the doors."""
    async with house(database_url, redis_url, vault, issuer, agents_check=False) as made:
        yield made


async def reached(mesh: House, expected: Counter[str]) -> None:
    """Returns when agents were called so often; a job is called for when it is its turn."""
    await wait_until(lambda: mesh.calls == expected)


async def test_no_request_without_the_scope_reaches_an_agent(
    doors_alone, issuer, database_url
) -> None:
    """Every door in every form, every method, every set of scopes, both kinds of credential."""
    expected: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    begun: Counter[str] = Counter()
    for count in range(4):
        for granted in itertools.combinations(SCOPES, count):
            key = await doors_alone.store.create("x", scopes=granted)
            token = issuer.token(scope=" ".join((*granted, "vault", "vault.read2", "VAULT.READ")))
            credentials = itertools.cycle((key.text, token))
            for method in NEEDS:
                missing = NEEDS[method] - set(granted)
                for way in ways_to(method):
                    tried[way] += 1
                    headers = {"authorization": f"Bearer {next(credentials)}"}
                    headers["weft-identity-bin"] = ROOT
                    told = await WAYS[way](doors_alone, method, headers)
                    where = f"{method} by {way} with {granted}: {told}"
                    if not missing:
                        expected[method] += 1
                        assert told.status == "OK", where
                        if way in JOBS or way.startswith("a2a"):
                            begun[way] += 1
                        if way in JOBS:
                            await reached(doors_alone, expected)
                    elif way.startswith("mcp"):
                        assert told.status == "NOT_THERE", where
                    else:
                        assert told.status == "PERMISSION_DENIED", where
                        assert "SCOPE_MISSING" in told.text, where
                        assert all(scope in told.text for scope in missing), where
                    if missing and way in HTTP:
                        assert told.http == 403
                        assert told.missing == missing
                        assert 'error="insufficient_scope"' in told.challenge
                    assert doors_alone.calls == expected, where
    assert set(tried) == set(WAYS)
    assert sum(tried.values()) == 8 * sum(len(ways_to(method)) for method in NEEDS)
    # No job waits that was begun for whoever lacked a scope; a task of A2A is one.
    stored = await asyncpg.connect(database_url)
    jobs = await stored.fetchval("select count(*) from gateway.jobs")
    await stored.close()
    assert jobs == sum(begun.values()) > 0


# What callers may try to be believed: names that the mesh uses, credentials twice, in other places, in other forms.
FORGED = {
    "weft-identity-bin": ROOT,
    "weft-identity": ROOT,
    "weft-scopes": " ".join(SCOPES),
    "x-scopes": " ".join(SCOPES),
    "x-weft-identity": ROOT,
    "scope": " ".join(SCOPES),
    "prefer": "respond-async",
    "idempotency-key": "k",
    "x-http-method-override": "GET",
    "x-original-url": "/v1/vault:look",
    "x-forwarded-for": "127.0.0.1",
    "x-forwarded-client-cert": "Subject=CN=root",
    "cache-control": "max-age=99999",
    "origin": "http://localhost",
}


def test_whatever_else_a_caller_sends(
    fresh_xds, database_url, redis_url, vault, issuer_rules
) -> None:
    """An agent is reached if and only if the scopes are there: any door, any scopes, with forged headers."""
    with asyncio.Runner() as runner:
        serving = issuer_rules()
        issuer = runner.run(serving.__aenter__())
        mesh_of = house(database_url, redis_url, vault, issuer, agents_check=False)
        mesh = runner.run(mesh_of.__aenter__())

        @settings(
            max_examples=120,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(
            target=st.sampled_from([(m, w) for m in NEEDS for w in ways_to(m) if w not in JOBS]),
            scopes=st.lists(
                st.sampled_from(
                    [*SCOPES, "*", "vault.*", "vault", "VAULT.READ", "vault.read.x", "-"]
                )
            ),
            forged=st.lists(st.sampled_from(sorted(FORGED)), unique=True, max_size=4),
            wrong=st.sampled_from(["", "", "", "expired", "cut", "none"]),
        )
        def holds(target: Any, scopes: list[str], forged: list[str], wrong: str) -> None:
            method, way = target
            if method in STREAMS or "mcp" in way or way == "websocket":  # may be refused for these
                forged = [name for name in forged if name not in {"idempotency-key", "origin"}]
            if "prefer" in forged:
                forged.remove("prefer")
                scopes = [one for one in scopes if one not in NEEDS[method]] or ["x"]
                prefers = bool(NEEDS[method])
            else:
                prefers = False
            token = issuer.token(
                scope=" ".join(scopes), **({"exp": 1} if wrong == "expired" else {})
            )
            if wrong == "cut":
                token = token[:-4]
            headers = {name: FORGED[name] for name in forged}
            if prefers:
                headers["prefer"] = "respond-async"
            if wrong != "none":
                headers["authorization"] = f"Bearer {token}"
            before = mesh.calls[method]
            if "idempotency-key" in headers:
                headers["idempotency-key"] = f"k{next(numbers)}"
            told = runner.run(WAYS[way](mesh, method, headers))
            allowed = not wrong and set(scopes) >= NEEDS[method]
            assert (told.status == "OK") == allowed, told
            if not allowed:
                assert mesh.calls[method] == before
            elif "cache-control" not in headers:
                assert mesh.calls[method] == before + 1
            assert sum(mesh.calls.values()) - sum(counted.values()) == allowed
            counted.update({method: int(allowed)})

        numbers = itertools.count()
        counted: Counter[str] = Counter()
        try:
            holds()
        finally:
            runner.run(mesh_of.__aexit__(None, None, None))
            runner.run(serving.__aexit__(None, None, None))


async def test_paths_that_are_written_otherwise_are_no_way_around(doors_alone, issuer) -> None:
    """The scopes are those of what is called, however its path is written; and no other path calls it."""
    nobody = {"authorization": f"Bearer {issuer.token()}", "content-type": "application/json"}
    written = [
        "/v1/vault:write", "/v1/vault%3Awrite", "/v1/vaul%74:write", "/v1//vault:write", "//v1/vault:write",
        "/v1/./vault:write", "/v1/x/../vault:write", "/v1/vault:write/", "/v1/vault:write?", "/V1/vault:write",
        "/v1/vault:write;x", "/v1/vault:write%00", "/v1/vault%2fwrite", "/v1/look/..%2fvault:write",
        f"/{SERVICE}/Write", f"//{SERVICE}/Write", f"/{SERVICE}/Write/", f"/{SERVICE}%2FWrite",
        f"/{SERVICE}/%57rite", f"/{SERVICE}/write", f"/.{SERVICE}/Write", f"/{SERVICE}//Write",
        f"/{SERVICE}/Look/../Write", f"/ws/{SERVICE}/Write", f"/ws//{SERVICE}/Write",
        "/v1/vault:look?method=Write", f"http://{SERVICE}/v1/vault:write",
    ]  # fmt: skip
    host, port = doors_alone.gateway.url.removeprefix("http://").rsplit(":", 1)
    for path, verb in itertools.product(written, ("POST", "GET", "PUT", "HEAD", "PROPFIND")):
        reader, writer = await asyncio.open_connection(host, int(port))
        given = {**nobody, "host": "gateway", "content-length": "2", "connection": "close"}
        lines = [f"{verb} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in given.items()), "", ""]
        writer.write("\r\n".join(lines).encode() + b"{}")
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        status = int(answer.split()[1])
        if path.startswith("/v1/vault:look"):
            continue
        assert 400 <= status < 500, (verb, path, answer)
    assert doors_alone.calls["Write"] == 0
    for path in (
        f"/{SERVICE}/write",
        f"//{SERVICE}/Write",
        f"{SERVICE}/Write",
        f"/{SERVICE}/Write/",
    ):
        call = doors_alone.grpc.unary_unary(path)
        with pytest.raises(grpc.aio.AioRpcError):
            await call(b"", metadata=(("authorization", nobody["authorization"]),), timeout=20)
    assert doors_alone.calls["Write"] == 0


async def test_names_are_told_to_who_is_let_in_alone(doors_alone, issuer) -> None:
    """Reflection and what is about agents: no word to strangers, and no agent is asked."""
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    for version in ("v1", "v1alpha"):
        path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        call = doors_alone.grpc.stream_stream(
            path,
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        for text in ("", issuer.token(exp=1), "x"):
            metadata = (("authorization", f"Bearer {text}"),) if text else ()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                _ = [one async for one in call(iter([asked]), metadata=metadata, timeout=20)]
            assert refused.value.code() is C.UNAUTHENTICATED
            assert "vault" not in str(refused.value)
        metadata = (("authorization", f"Bearer {issuer.token()}"),)
        (listed,) = [one async for one in call(iter([asked]), metadata=metadata, timeout=20)]
        names = [one.name for one in listed.list_services_response.service]
        assert SERVICE in names
    for path in ("/agents", "/agents/vault", "/breakers"):
        answer = await doors_alone.http.get(path)
        assert answer.status_code == 401
        assert "Vault" not in answer.text
    assert not doors_alone.calls


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
    for reason, tried in credentials.items():
        for headers, method in itertools.product(tried, NEEDS):
            for way in ways_to(method):
                told = await WAYS[way](doors_alone, method, headers)
                assert told.status == "UNAUTHENTICATED", (way, told)
                assert reason in told.text, (way, told)
                if way in HTTP:
                    assert told.http == 401
                    assert told.challenge.startswith('Bearer realm="weft"')
                    assert ("invalid_token" in told.challenge) == (reason != "CREDENTIAL_MISSING")
    # An identity that an agent would believe is not taken from outside.
    forged = base64.b64encode(anonymous.SerializeToString()).decode()
    for way in ways_to("Read"):
        told = await WAYS[way](doors_alone, "Read", {"weft-identity-bin": forged})
        assert told.status == "UNAUTHENTICATED"
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
                said = (await by_grpc(channel, mesh, method, {})).status
                assert said == ("OK" if method in allowed else code.name)
        assert set(mesh.calls) == allowed


async def test_who_calls_and_for_which_tenant_reaches_the_agent(
    fresh_xds, database_url, redis_url, vault, issuer
) -> None:
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
            told = await WAYS["rest"](mesh, "Look", headers)
            assert told.answer.json() == {"caller": caller, "tenant": tenant}
            told = await WAYS["grpc"](mesh, "Look", headers)
            assert (told.answer.caller, told.answer.tenant) == (caller, tenant)
            # What is stored for one tenant's ann is not told to another's.
            for _ in range(2):
                told = await WAYS["rest"](mesh, "Look", {**headers, "idempotency-key": "k" * 20})
                assert told.answer.json()["tenant"] == tenant
        assert mesh.calls["Look"] == 3 * 3
        # Nor is a session that one of them began the other's.
        session = Session(mesh.http, {"authorization": f"Bearer {issuer.token()}"})
        await session.begin()
        assert (await session.send("tools/list")).status_code == 200
        session.headers["authorization"] = f"Bearer {issuer.token(org='other')}"
        assert (await session.send("tools/list")).status_code == 404


async def test_where_everybody_is_let_in_no_scope_is_asked_for(
    fresh_xds, database_url, redis_url, vault, issuer
) -> None:
    async with house(database_url, redis_url, vault, issuer, auth="off") as mesh:
        for method in NEEDS:
            for way in ways_to(method):
                told = await WAYS[way](mesh, method, {})
                assert told.status == "OK", (way, told)
        told = await WAYS["rest"](mesh, "Read", {"authorization": "Bearer x"})
        assert told.http == 401


async def test_a_gateway_that_agents_do_not_trust_says_so(
    fresh_xds, database_url, redis_url, vault, issuer
) -> None:
    stranger = Signer(Ed25519PrivateKey.generate())
    for signer in (stranger, None):
        async with house(database_url, redis_url, vault, issuer, signer=signer) as mesh:
            headers = {"authorization": f"Bearer {issuer.token()}"}
            told = await WAYS["rest"](mesh, "Look", headers)
            assert told.http == 500
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
        assert (await by_grpc(channel, mesh, "Read", {})).status == "UNAUTHENTICATED"
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
