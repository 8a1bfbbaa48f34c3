"""Webhooks: signed, tried again, given up, tried again by hand; and where they may not go."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import logging
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.gateway.jobs.conftest import ANN, BOB, Opening, Store, new_job

from weft.gateway.http import HttpServer, HttpSettings
from weft.gateway.jobs import Job, State, Webhook
from weft.gateway.jobs.deliveries import Deliveries, Delivery, WebhookNotFound
from weft.gateway.jobs.webhooks import (
    Sender,
    SenderSettings,
    TargetRefused,
    Targets,
    WrongSecret,
    new_secret,
    parse_secret,
    sign,
)
from weft.rpc.testing import wait_until

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LOOPBACK = ("127.0.0.0/8",)


@dataclass
class Receiver:
    """Takes webhooks; answers as told, one after the other, the last for ever."""

    statuses: list[int] = field(default_factory=lambda: [204])
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""
    extra: list[tuple[bytes, bytes]] = field(default_factory=list)
    hangs: bool = False
    endless: bool = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            part = await receive()
            body, more = body + part.get("body", b""), part.get("more_body", False)
        self.got.append(({k.decode(): v.decode() for k, v in scope["headers"]}, body))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if self.hangs:
            await asyncio.sleep(3600)
        await send({"type": "http.response.start", "status": status, "headers": self.extra})
        while self.endless:
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    server = HttpServer(made, HttpSettings(port=0))
    await server.start()
    made.url = f"http://{server.address}/hook?a=b"
    yield made
    await server.stop(timedelta(0))


@contextlib.asynccontextmanager
async def sending(
    store: Store,
    allowed: Sequence[str] = LOOPBACK,
    tls: ssl.SSLContext | None = None,
    **further: Any,
) -> AsyncIterator[None]:
    values: dict[str, Any] = {"first_pause": timedelta(milliseconds=20), "attempts": 4}
    settings = SenderSettings(**(values | further))
    sender = Sender(store.database, store.bells, Targets(allowed), settings, tls=tls)
    task = asyncio.create_task(sender.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def end_one(store: Store, url: str, state: State = State.SUCCEEDED) -> Job:
    job = await store.jobs.begin(new_job(webhook=Webhook(url=url, secret=parse_secret(SECRET))))
    (row,) = await store.database.fetch("claim_jobs", 1, timedelta(minutes=1), 5)
    await store.database.execute("end_job", job.id, row["fence"], state, b"done", None)
    return job


async def deliveries(store: Store, state: str = "") -> list[Delivery]:
    found, _ = await Deliveries(store.database, store.bells).page(
        ANN, state=state, size=0, token=""
    )
    return list(found)


async def settled(store: Store, state: str) -> Delivery:
    async def found() -> bool:
        return bool(await deliveries(store, state))

    await wait_until(found, timeout=timedelta(seconds=15))
    return (await deliveries(store, state))[0]


def verify(headers: dict[str, str], body: bytes, secret: str = SECRET) -> None:
    """As the specification says, by no code of ours."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{digest}"


def test_the_example_of_the_specification() -> None:
    body = b'{"test": 2432232314}'
    signature = sign(parse_secret(SECRET), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    "text", ["", "whsec_", "whsec_!!!!", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ="]
)
def test_wrong_secrets(text: str) -> None:
    with pytest.raises(WrongSecret) as refused:
        parse_secret(text)
    assert len(text) < 7 or text not in str(refused.value)


def test_own_secrets_are_good_and_differ() -> None:
    assert parse_secret(new_secret()) != parse_secret(new_secret())


async def test_the_end_of_a_job_is_told(
    store: Store, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "weft")
    async with sending(store):
        job = await end_one(store, receiver.url, State.FAILED)
        found = await settled(store, "DELIVERED")
    ((headers, body),) = receiver.got
    verify(headers, body)
    assert headers["webhook-id"] == found.id == f"msg_{job.id}"
    told = json.loads(body)
    assert told["type"] == "job.failed"
    assert told["data"] == {
        "job": job.id,
        "state": "JOB_STATE_FAILED",
        "method": "weft.echo.v1.EchoService/Say",
    }
    assert SECRET.removeprefix("whsec_") not in caplog.text
    assert repr(parse_secret(SECRET)) not in caplog.text
    assert "secret" not in repr(found)


async def test_it_is_tried_again(store: Store, receiver: Receiver) -> None:
    receiver.statuses = [500, 429, 204]
    async with sending(store):
        await end_one(store, receiver.url)
        found = await settled(store, "DELIVERED")
    assert found.attempts == 3
    for headers, body in receiver.got:
        verify(headers, body)
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1


@pytest.mark.parametrize(
    ("statuses", "attempts"), [([500], 4), ([302], 4), ([410], 1)], ids=["500", "302", "410"]
)
async def test_dead_letters_are_listed_and_tried_again(
    store: Store, receiver: Receiver, statuses: list[int], attempts: int
) -> None:
    receiver.statuses = statuses
    receiver.extra = [(b"location", receiver.url.encode())]
    listed = Deliveries(store.database, store.bells)
    async with sending(store):
        await end_one(store, receiver.url)
        dead = await settled(store, "DEAD")
        assert dead.attempts == len(receiver.got) == attempts
        assert dead.problem == f"it answered {statuses[0]}"
        assert dead.due is None
        assert await listed.page(BOB, state="", size=0, token="") == ([], "")
        with pytest.raises(WebhookNotFound):
            await listed.retry(BOB, dead.id)
        receiver.statuses = [200]
        await listed.retry(ANN, dead.id)
        assert (await settled(store, "DELIVERED")).attempts == 1


async def test_a_receiver_that_hangs(store: Store, receiver: Receiver) -> None:
    receiver.hangs = True
    async with sending(store, time=timedelta(milliseconds=100), attempts=1):
        await end_one(store, receiver.url)
        assert (await settled(store, "DEAD")).problem == "it did not answer in time"


async def test_an_endless_answer_is_not_read(store: Store, receiver: Receiver) -> None:
    receiver.endless = True
    async with sending(store, time=timedelta(seconds=5)):
        await end_one(store, receiver.url)
        await settled(store, "DELIVERED")


async def test_nobody_is_there(store: Store, receiver: Receiver) -> None:
    async with sending(store, attempts=1):
        await end_one(store, "http://127.0.0.1:1/")
        assert "cannot be reached" in (await settled(store, "DEAD")).problem


async def test_two_senders_send_one(store: Store, opening: Opening, receiver: Receiver) -> None:
    async with opening() as other, sending(store), sending(other):
        for _ in range(20):
            await end_one(store, receiver.url)

        async def all_told() -> bool:
            return len(await deliveries(store, "DELIVERED")) == 20

        await wait_until(all_told)
    assert len(receiver.got) == 20


async def test_one_whose_sender_died_is_sent_by_another(store: Store, receiver: Receiver) -> None:
    await end_one(store, receiver.url)
    assert len(await store.database.fetch("claim_webhooks", 1, timedelta(seconds=1))) == 1
    async with sending(store):
        assert (await settled(store, "DELIVERED")).attempts == 2


@pytest.mark.parametrize(("name", "state"), [("localhost", "DELIVERED"), ("elsewhere", "DEAD")])
async def test_the_certificate_must_be_that_of_the_name(
    store: Store, tmp_path: Path, name: str, state: str
) -> None:
    serving, believed = certificate_of(name, tmp_path)
    got: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            got.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0, ssl=serving)
    port = server.sockets[0].getsockname()[1]
    async with server, sending(store, allowed=(*LOOPBACK, "::1/128"), tls=believed, attempts=1):
        await end_one(store, f"https://localhost:{port}/hook")
        found = await settled(store, state)
    if state == "DELIVERED":
        assert f"host: localhost:{port}".encode() in got[0].lower()
    else:
        assert "cannot be reached" in found.problem
        assert got == []


def certificate_of(name: str, folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate of a name, and a client's that believes it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    (folder / "cert").write_bytes(
        pem
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(folder / "cert")
    return serving, ssl.create_default_context(cadata=pem.decode())


async def test_a_private_address_is_found_at_the_attempt(store: Store, receiver: Receiver) -> None:
    """A name that leads inside is refused, however public it looked when the job was begun."""
    async with sending(store, allowed=()):
        await end_one(store, receiver.url.replace("http://127.0.0.1", "https://localhost"))
        dead = await settled(store, "DEAD")
    assert dead.problem == "It leads to an address that is not public."
    assert receiver.got == []


REFUSED = [
    "http://example.com/",
    "ftp://example.com/",
    "https://",
    "https:///x",
    "not a url",
    "https://user:password@example.com/",
    "https://example.com/\r\nx: y",
    "https://127.0.0.1/",
    "https://127.1/",
    "https://0x7f000001/",
    "https://0177.0.0.1/",
    "https://2130706433/",
    "https://0.0.0.0/",
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://192.168.1.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://100.64.0.1/",
    "https://198.18.0.1/",
    "https://192.0.2.1/",
    "https://224.0.0.1/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    "https://192.88.99.1/",
    "https://[::1]/",
    "https://[::]/",
    "https://[fe80::1]/",
    "https://[fc00::1]/",
    "https://[fec0::1]/",
    "https://[ff02::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:a00:1]/",
    "https://[::127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b::10.0.0.1]/",
    "https://[64:ff9b:1::10.0.0.1]/",
    "https://[2002:7f00:1::]/",
    "https://[2002:a00:1::1]/",
    "https://[2001:db8::1]/",
]


@pytest.mark.parametrize("url", REFUSED)
async def test_where_webhooks_may_not_go(url: str) -> None:
    targets = Targets()
    with pytest.raises(TargetRefused):
        targets.check(url)
    with pytest.raises(TargetRefused):
        await targets.resolve(url)


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "localhost.", "ip6-localhost"])
async def test_names_that_lead_inside(name: str) -> None:
    with pytest.raises(Exception, match="not public|cannot be looked up"):
        await Targets().resolve(f"https://{name}/")


@pytest.mark.parametrize(
    "url",
    [
        "https://1.1.1.1/",
        "https://[2606:4700:4700::1111]:8443/x?y=z",
        "https://[64:ff9b::808:808]/",
    ],
)
async def test_where_they_may_go(url: str) -> None:
    Targets().check(url)
    assert str((await Targets().resolve(url)).url) == url


async def test_an_operator_may_allow_networks() -> None:
    targets = Targets(["10.1.0.0/16", "fd00::/8"])
    for url in ("http://10.1.2.3/", "https://10.1.2.3/", "http://[fd00::1]/"):
        targets.check(url)
    for url in ("http://10.2.0.1/", "http://1.1.1.1/", "https://127.0.0.1/"):
        with pytest.raises(TargetRefused):
            targets.check(url)
    with pytest.raises(ValueError, match="10.1"):
        Targets(["10.1.2.3/16"])
