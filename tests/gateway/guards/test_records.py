"""The request log and the audit log: what stands in them, and that no secret does."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from google.protobuf import any_pb2, message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.gateway.guards.house import SERVICE, House, house
from tests.gateway.guards.ways import WAYS
from websockets.asyncio.client import connect

from weft.gateway.guards import limit_rules
from weft.gateway.guards.breaker_holds import BreakerHolds
from weft.gateway.records import RequestLog, RequestLogSettings
from weft.rpc.testing import wait_until
from weft.telemetry import logs

# What the test's own clients write.
OURS = ("httpx", "httpcore", "websockets.client", "hpack", "hypothesis", "asyncio")
ALL = RequestLogSettings(share=1.0, failures=True, bodies=True)


class Lines(logging.Handler):
    """Every line at every level, as the process would write it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.found: list[str] = []
        self.setFormatter(logs._Json("gateway", lambda: ""))

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith(OURS):
            self.found.append(self.format(record))

    def of(self, logger: str, said: str = "") -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.found]
        return [
            line for line in found if line["logger"] == logger and said in {"", line["message"]}
        ]


@pytest.fixture
def lines() -> Iterator[Lines]:
    made = Lines()
    root = logging.getLogger()
    before = root.level
    root.addHandler(made)
    root.setLevel(logging.DEBUG)
    yield made
    root.removeHandler(made)
    root.setLevel(before)


@pytest.fixture
async def mesh(fresh_xds, database_url, redis_url, vault, issuer, lines) -> AsyncIterator[House]:
    rules = limit_rules.parse("per=identity rate=1/h burst=3 methods=*/Look")
    async with house(
        database_url, redis_url, vault, issuer, agents_check=False, request_log=ALL, limits=rules
    ) as made:
        lines.found.clear()
        yield made


async def test_each_request_is_a_line(mesh, lines, issuer) -> None:
    headers = {
        "authorization": f"Bearer {issuer.token(scope='vault.read vault.write vault.watch')}"
    }
    ways = {"rest": "Read", "connect": "Write", "grpc": "Talk", "websocket": "Pour", "mcp": "Read"}
    for way, method in ways.items():
        assert (await WAYS[way](mesh, method, headers)).status == "OK"
    assert (await WAYS["grpc"](mesh, "Read", {})).status == "UNAUTHENTICATED"
    assert (await WAYS["rest"](mesh, "Read", {"authorization": "Bearer x"})).http == 401
    await mesh.http.get("/agents/vault", headers=headers)
    await mesh.http.get("/healthz")
    await mesh.http.get("/v1/nothing?q=1", headers=headers)
    await wait_until(lambda: len(lines.of("weft.gateway.requests")) >= 9)
    told = [
        (one["door"], one["method"], one["code"], one.get("http_status"), one["subject"])
        for one in lines.of("weft.gateway.requests")
    ]
    assert sorted(told, key=str) == sorted(
        [
            ("rest", f"{SERVICE}/Read", "OK", 200, "user:ann"),
            ("connect", f"{SERVICE}/Write", "OK", 200, "user:ann"),
            ("grpc", f"{SERVICE}/Talk", "OK", None, "user:ann"),
            ("websocket", f"{SERVICE}/Pour", "OK", None, "user:ann"),
            ("mcp", f"{SERVICE}/Read", "OK", 200, "user:ann"),
            ("grpc", f"{SERVICE}/Read", "UNAUTHENTICATED", None, ""),
            ("rest", f"{SERVICE}/Read", "UNAUTHENTICATED", 401, ""),
            ("page", "/agents/*", "OK", 200, "user:ann"),
            ("rest", "unknown", "NOT_FOUND", 404, ""),
        ],
        key=str,
    )
    for one in lines.of("weft.gateway.requests"):
        assert one["level"] == "INFO"
        assert 0 <= one["seconds"] < 60
        assert one["received_bytes"] >= 0
        assert len(one["trace_id"]) in {0, 32}
        if one["code"] == "OK":
            assert one["sent_bytes"] > 0


async def test_who_did_what_is_told(mesh, lines, issuer, database_url) -> None:
    """Calls with effects, jobs, refusals, limits; keys and breakers from PostgreSQL."""
    both = {"authorization": f"Bearer {issuer.token(scope='vault.read vault.write')}"}
    reader = {"authorization": f"Bearer {issuer.token(scope='vault.read')}"}
    key = await mesh.store.create("shop", tenant="acme", scopes=["vault.read"], by="os:eve@x")
    await mesh.store.revoke(key.key.id, by="os:eve@x")
    await mesh.store.revoke(key.key.id, by="os:bob@x")
    holds = BreakerHolds(mesh.store._database, lambda _: None)
    await holds.hold("vault", f"/{SERVICE}/Watch", "open", "user:root")
    await holds.release("vault", f"/{SERVICE}/Watch", "user:root")
    await holds.release("vault", f"/{SERVICE}/Watch", "user:root")  # there was none
    for _ in range(2):
        headers = {**both, "idempotency-key": "k"}
        assert (await WAYS["rest"](mesh, "Write", headers)).status == "OK"
    assert (await WAYS["rest"](mesh, "Read", both)).status == "OK"  # has no effects
    assert (await WAYS["job by connect"](mesh, "Write", both)).status == "OK"
    assert (await WAYS["grpc"](mesh, "Pour", both)).status == "OK"
    for _ in range(20):
        assert (await WAYS["grpc"](mesh, "Write", reader)).status == "PERMISSION_DENIED"
    revoked = {"x-api-key": key.text}
    await wait_until(lambda: lines.of("weft.audit", "key revoked"))
    assert (await WAYS["rest"](mesh, "Look", revoked)).http == 401
    look = [(await WAYS["rest"](mesh, "Look", both)).http for _ in range(8)]
    assert 429 in look
    await wait_until(lambda: lines.of("weft.audit", "breaker let go"))
    await wait_until(lambda: len(lines.of("weft.audit", "limited")) == 2)

    calls = lines.of("weft.audit", "call")
    writes = [one for one in calls if one["method"] == f"{SERVICE}/Write"]
    assert [one.get("replayed", False) for one in writes] == [False, True, False]
    assert writes[2]["job"]
    assert {one["subject"] for one in calls} == {"user:ann"}
    assert {one["code"] for one in writes} == {"OK"}
    assert any(one["method"] == f"{SERVICE}/Pour" for one in calls)
    assert not any(one["method"] == f"{SERVICE}/Read" for one in calls)
    # A flood of requests is none of lines.
    denied = [o for o in lines.of("weft.audit", "refused") if o["reason"] == "SCOPE_MISSING"]
    assert len(denied) <= 4
    assert sum(one.get("times", 1) for one in denied) == 20
    assert denied[0]["subject"] == "user:ann"
    assert denied[0]["missing_scopes"] == "vault.write"
    (bad,) = [o for o in lines.of("weft.audit", "refused") if o["reason"] == "KEY_REVOKED"]
    assert (bad["key"], bad["subject"]) == (key.key.id, "")
    limited = lines.of("weft.audit", "limited")
    assert sum(one.get("times", 1) for one in limited) == look.count(429)
    acts = [
        (one["message"], one["by"], one["of"])
        for said in ("key created", "key revoked", "breaker held", "breaker let go")
        for one in lines.of("weft.audit", said)
    ]
    (made,) = lines.of("weft.audit", "key created")
    assert made["details"]["name"] == "shop"
    held = f"vault /{SERVICE}/Watch"
    assert acts == [
        ("key created", "os:eve@x", key.key.id),
        ("key revoked", "os:eve@x", key.key.id),
        ("breaker held", "user:root", held),
        ("breaker let go", "user:root", held),
    ]


def marked(found: Any, mark: str, any_of: Any) -> tuple[message.Message, list[str]]:
    """A request with text that may be seen, and secrets wherever there is room."""
    numbers = itertools.count()
    kept: list[str] = []

    def secret() -> str:
        kept.append(f"{mark}{next(numbers)}z")
        return kept[-1]

    card = found.Card(owner="seen", number=secret(), next=found.Card(number=secret()))
    request = found.LookRequest(
        text="seen",
        pin=secret(),
        seal=secret().encode(),
        answers=[secret(), secret()],
        cards=[card],
        by_name={"seen": card},
        codes={secret(): secret()},
        hidden=found.Card(owner=secret()),
    )
    if any_of:
        request.card.CopyFrom(card)
        request.any.Pack(card)
    else:
        request.word = secret()
        request.any.CopyFrom(any_pb2.Any(type_url="x/unknown.Type", value=secret().encode()))
    return request, kept


async def send(
    mesh: House, door: str, request: Any, headers: dict[str, str], kept: list[str]
) -> None:
    """A request by a door, with secrets wherever there is room for them."""
    wire = request.SerializeToString()
    proto = {**headers, "content-type": "application/proto"}
    if door == "connect":
        await mesh.http.post(f"/{SERVICE}/Write", content=wire, headers=proto)
    elif door == "cut":
        await mesh.http.post(f"/{SERVICE}/Write", content=wire[:-3], headers=proto)
    elif door == "wrong json":
        body = '{"pin": "%s", "nothing": "%s", "cards": 3' % (kept[0], kept[1])  # noqa: UP031
        await mesh.http.post("/v1/vault:write", content=body.encode(), headers=headers)
    elif door == "rest":
        body = {"pin": kept[0], "text": "seen", "answers": kept[1:3]}
        await mesh.http.post("/v1/vault:write", json=body, headers=headers)
    elif door == "path":
        await mesh.http.get(f"/v1/vault/pins/{quote(kept[0])}?pin={kept[1]}", headers=headers)
        await mesh.http.get(f"/v1/nothing/{kept[0]}?key={kept[1]}", headers=headers)
    elif door == "sse":
        await mesh.http.post(f"/{SERVICE}/Watch", json={"pin": kept[0]}, headers=headers)
    elif door == "job":
        hook = {"job-webhook": f"https://h.invalid/{kept[0]}", "job-webhook-secret": kept[1]}
        prefer = {**proto, "prefer": "respond-async", **hook}
        await mesh.http.post(f"/{SERVICE}/Write", content=wire, headers=prefer)
    elif door == "websocket":
        url = f"ws{mesh.gateway.url.removeprefix('http')}/ws/{SERVICE}/Write?k={kept[0]}"
        protocols = ["weft.v1.proto", f"weft.bearer.{kept[1]}"]
        async with connect(url, additional_headers=headers, subprotocols=protocols) as socket:
            await socket.send(wire)
            await socket.wait_closed()
    else:
        call = mesh.grpc.unary_unary(f"/{SERVICE}/Write")
        with contextlib.suppress(grpc.aio.AioRpcError):
            await call(wire, metadata=tuple(headers.items()), timeout=20)


def credentials(issuer: Any, key: str, mark: str, kind: str) -> tuple[dict[str, str], str]:
    """Headers with credentials, and the one that must not be seen."""
    given = {
        "key": key,
        "token": issuer.token(scope="vault.read vault.write vault.watch"),
        "expired": issuer.token(exp=1, jti=mark),
        "wrong": f"weft_abcdefghijkl_{mark * 4}",
        "two": key,
    }.get(kind, "")
    headers = {"cookie": f"session={mark}cookie", "x-custom-secret": f"{mark}header"}
    if given:
        headers["authorization"] = f"Bearer {given}"
    if kind == "basic":
        headers["authorization"] = f"Basic {base64.b64encode(mark.encode()).decode()}"
    if kind == "two":
        headers["x-api-key"] = f"weft_abcdefghijkl_{mark * 4}"
    return headers, given


def test_no_secret_is_in_any_log(
    fresh_xds, database_url, redis_url, vault, issuer_rules, lines
) -> None:
    """Whatever the door and whatever becomes of the call: at no level, of no logger of the process."""
    runner = asyncio.Runner()
    serving = issuer_rules()
    issuer = runner.run(serving.__aenter__())
    mesh_of = house(database_url, redis_url, vault, issuer, agents_check=False, request_log=ALL)
    mesh = runner.run(mesh_of.__aenter__())
    key = runner.run(mesh.store.create("x", scopes=["vault.read", "vault.write", "vault.watch"]))

    doors = ["connect", "cut", "wrong json", "rest", "path", "sse", "job", "websocket", "grpc"]

    @settings(
        max_examples=80, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(
        # Hypothesis tries words of the sources as well, which logs may well contain: no word begins like this.
        mark=st.text("abcdefghkmnpqrstuvwxy23456789", min_size=8, max_size=16).map("9x9{}".format),
        door=st.sampled_from(doors),
        any_of=st.booleans(),
        credential=st.sampled_from(["key", "token", "expired", "wrong", "basic", "two", "none"]),
    )
    def holds(mark: str, door: str, any_of: Any, credential: str) -> None:
        request, kept = marked(vault[0], f"q{mark}", any_of)
        headers, given = credentials(issuer, key.text, mark, credential)
        lines.found.clear()
        runner.run(send(mesh, door, request, headers, kept))
        written = "\n".join(lines.found)
        assert "weft.gateway.requests" in written
        # The first two parts of a key are public; the last may hold the sign that parts them.
        secrets = [*kept, mark, given.split("_", 2)[2] if given.startswith("weft_") else given]
        for secret in filter(None, secrets):
            for form in (secret, base64.b64encode(secret.encode()).decode().rstrip("=")):
                assert form not in written, (door, credential, form)
        shown.update(one for one in ("seen", "[secret]") if one in written)

    shown: set[str] = set()
    try:
        holds()
    finally:
        runner.run(mesh_of.__aexit__(None, None, None))
        runner.run(serving.__aexit__(None, None, None))
        runner.close()
    assert shown == {"seen", "[secret]"}  # what may be seen was


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("off", None),
        ("failures", (0.0, True)),
        ("all", (1.0, True)),
        ("0.25", (0.25, True)),
        ("0", (0.0, True)),
    ],
)
def test_settings(text: str, told: Any) -> None:
    read = RequestLogSettings.read(text)
    assert read.on == (told is not None)
    if told is not None:
        assert (read.share, read.failures) == told


@pytest.mark.parametrize("text", ["", "1.5", "-1", "some", "nan"])
def test_settings_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"off|share"):
        RequestLogSettings.read(text)


def test_a_share_is_logged_and_every_failure(lines) -> None:
    draws = itertools.cycle([0.1, 0.3, 0.5, 0.9])
    log = RequestLog(RequestLogSettings.read("0.25"), chance=lambda: next(draws))
    for code in (*[grpc.StatusCode.OK] * 8, grpc.StatusCode.INTERNAL, grpc.StatusCode.NOT_FOUND):
        log.ended("rest", "a.B/C", code, 0.001, call=None, received=1, sent=2)
    told = lines.of("weft.gateway.requests")
    assert [one["code"] for one in told] == ["OK", "OK", "INTERNAL", "NOT_FOUND"]
    assert [one["level"] for one in told] == ["INFO", "INFO", "WARNING", "INFO"]


def test_a_stream_of_its_own_goes_to_a_file(tmp_path, lines) -> None:
    path = tmp_path / "audit.log"
    audit = logging.getLogger("weft.audit")
    try:
        logs.divert("weft.audit", path, service="gateway")
        audit.warning("one")
        path.rename(tmp_path / "audit.log.1")
        audit.warning("two", extra={"subject": "user:ann"})
    finally:
        for handler in audit.handlers[:]:
            handler.close()
            audit.removeHandler(handler)
        audit.propagate = True
    told = json.loads(path.read_text())
    assert (told["message"], told["subject"]) == ("two", "user:ann")
    assert not lines.of("weft.audit")
    with pytest.raises(ValueError, match="cannot be written"):
        logs.divert("weft.audit", tmp_path / "none" / "x", service="gateway")
