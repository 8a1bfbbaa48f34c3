"""Signed identities: who is believed, and what a server keeps callers from, over real gRPC."""

from __future__ import annotations

import base64
import contextlib
import stat
import time
from datetime import timedelta

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from weft import rpc
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.rpc.call import IDENTITY_KEY, Call
from weft.rpc.signing import ACCEPTED_KEY, IdentityExpired, IdentityNotTrusted, Signer, Verifier
from weft.v1.identity_pb2 import Identity

KEY = Ed25519PrivateKey.generate()
OTHER = Ed25519PrivateKey.generate()
SIGNER = Signer(KEY)
ANN = Identity(subject="user:ann", display_name="Ann", scopes=["a", "b"], tenant="t", issuer="i")


def call_with(identity, *more):
    raw = identity if isinstance(identity, bytes) else identity.SerializeToString()
    call = Call("/x.Y/Z", None)
    call._metadata = ((IDENTITY_KEY, raw), *more)
    return call


def test_what_is_signed_is_believed():
    verifier = Verifier(SIGNER.public)
    for identity in (ANN, Identity(subject="anonymous", all_scopes=True)):
        signed = SIGNER.sign(identity)
        for _ in range(2):
            granted = verifier.admit(call_with(signed))
            assert granted.scopes == frozenset(identity.scopes)
            assert granted.everything == identity.all_scopes
    assert not verifier.admit(Call.at_door("/x", (), rpc.Deadline.after_seconds(1))).scopes
    assert not ANN.signature  # a copy is signed


def test_a_re_encoded_identity_is_believed():
    signed = SIGNER.sign(ANN)
    # Fields in another order, and one that this version does not know.
    other = Identity(signature=signed.signature).SerializeToString()
    rest = Identity()
    rest.CopyFrom(signed)
    rest.ClearField("signature")
    raw = other + b"\xc2\x3e\x01x" + rest.SerializeToString()
    assert Verifier(SIGNER.public).admit(call_with(raw)).scopes == {"a", "b"}


def changed(signed, **fields):
    made = Identity()
    made.CopyFrom(signed)
    for name, value in fields.items():
        made.ClearField(name)
        if name == "scopes":
            made.scopes.extend(value)
        elif name == "expire_time":
            made.expire_time.FromSeconds(value)
        else:
            setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    "fields",
    [
        {"subject": "user:bob"},
        {"display_name": "Bob"},
        {"scopes": ["a", "b", "c"]},
        {"scopes": ["a"]},
        {"scopes": ["b", "a"]},
        {"scopes": ["ab"]},
        {"tenant": "u"},
        {"issuer": ""},
        {"all_scopes": True},
        {"expire_time": 1 << 36},
        {"subject": "user:annA", "display_name": "nn"},
        {"tenant": "", "issuer": "ti"},
        {"signature": b""},
        {"signature": b"x" * 64},
        {"signature": OTHER.sign(b"x")},
    ],
)
def test_what_was_changed_is_not_believed(fields):
    verifier = Verifier(SIGNER.public)
    verifier.admit(call_with(SIGNER.sign(ANN)))
    with pytest.raises(IdentityNotTrusted):
        verifier.admit(call_with(changed(SIGNER.sign(ANN), **fields)))


@pytest.mark.parametrize(
    "raw",
    [b"", b"\xff", b"x", ANN.SerializeToString(), Signer(OTHER).sign(ANN).SerializeToString()],
)
def test_what_nobody_trusted_signed_is_not_believed(raw):
    with pytest.raises(IdentityNotTrusted):
        Verifier(SIGNER.public).admit(call_with(raw))


TEXTS = st.text(st.characters(codec="utf-8"), max_size=10)
FIELDS = st.fixed_dictionaries(
    {
        **dict.fromkeys(("subject", "display_name", "tenant", "issuer"), TEXTS),
        "scopes": st.lists(TEXTS, max_size=3),
        "all_scopes": st.booleans(),
    }
)


@settings(max_examples=200, deadline=None)
@given(one=FIELDS, two=FIELDS)
def test_a_signature_is_good_for_one_identity_only(one, two):
    verifier = Verifier(SIGNER.public)
    signed = SIGNER.sign(Identity(**one))
    verifier.admit(call_with(signed))
    passed_off = Identity(**two, signature=signed.signature)
    passed_off.expire_time.CopyFrom(signed.expire_time)
    if one == two:
        verifier.admit(call_with(passed_off))
    else:
        with pytest.raises(IdentityNotTrusted):
            verifier.admit(call_with(passed_off))


def test_while_a_key_is_replaced_two_are_trusted():
    verifier = Verifier(f"{Signer(OTHER).public}, {SIGNER.public}")
    for key in (KEY, OTHER):
        verifier.admit(call_with(Signer(key).sign(ANN)))


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr("weft.rpc.signing._REMEMBERED", 10)
    verifier = Verifier(SIGNER.public)
    for number in range(30):
        verifier.admit(call_with(SIGNER.sign(Identity(subject=str(number)))))
    assert len(verifier._known) == 10


def test_an_identity_expires_unless_its_message_was_sent_in_time():
    now = [10_000_000.0]
    signer = Signer(KEY, lifetime=timedelta(minutes=15), now=lambda: now[0])
    verifier = Verifier(signer.public, now=lambda: now[0])
    signed, sent = signer.sign(ANN), int(now[0] * 1000)
    assert signer.sign(ANN) == signed  # within a minute the same bytes
    now[0] += 15 * 60
    verifier.admit(call_with(signed))
    now[0] += 3 * 60
    with pytest.raises(IdentityExpired):
        verifier.admit(call_with(signed))
    # What another process says of when it was sent is nothing.
    forged = (ACCEPTED_KEY, Verifier(signer.public).accepted(sent)[1])
    for entry in (forged, (ACCEPTED_KEY, b""), (ACCEPTED_KEY, "text"), (ACCEPTED_KEY, b"x" * 40)):
        with pytest.raises(IdentityExpired):
            verifier.admit(call_with(signed, entry))
    late = int(now[0] * 1000)
    with pytest.raises(IdentityExpired):
        verifier.admit(call_with(signed, verifier.accepted(late)))
    call = call_with(signed, verifier.accepted(sent))
    assert verifier.admit(call).scopes == {"a", "b"}
    assert call.identity.subject == "user:ann"  # it is known in whose name the message was sent
    assert call.forwarded == ()  # and nobody else is asked to believe it
    assert call.identity_to_pass_on is None
    with pytest.raises(IdentityExpired):
        verifier.admit(call_with(signed), accepted_ms=late)
    verifier.admit(call_with(signed), accepted_ms=sent)


def test_a_call_carries_its_identity_on_for_as_long_as_it_is_believed(monkeypatch):
    signed = SIGNER.sign(ANN)
    call = call_with(signed)
    Verifier(SIGNER.public).admit(call)
    assert call.forwarded == ((IDENTITY_KEY, signed.SerializeToString()),)
    assert call.identity_to_pass_on == signed
    now = time.time()
    monkeypatch.setattr("weft.rpc.call.time.time", lambda: now + 100_000)
    assert call.forwarded == ()  # such as in a stream that goes on for days
    assert call.identity_to_pass_on is None


def test_a_key_is_made_for_its_owner_alone(tmp_path):
    path = tmp_path / "a" / "identity.pem"
    made = Signer.made(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Signer.made(path).public == Signer.load(path).public == made.public
    Verifier(made.public).admit(call_with(Signer.load(path).sign(ANN)))
    assert list(path.parent.iterdir()) == [path]


def test_what_is_no_key_is_refused(tmp_path):
    path = tmp_path / "identity.pem"
    with pytest.raises(ValueError, match="no private key"):
        Signer.load(path)
    path.write_text("nonsense")
    with pytest.raises(ValueError, match="no private key"):
        Signer.load(path)
    short = base64.b64encode(b"short").decode()
    for trusted in ("", "nonsense!", short, f"{SIGNER.public},", [SIGNER.public, ""]):
        with pytest.raises(ValueError, match="public key"):
            Verifier(trusted)


# A server


class Echo(echo_pb2_grpc.EchoServiceServicer):
    """Says who calls."""

    async def Say(self, request, context):
        call = rpc.current_call()
        return echo_pb2.SayResponse(caller=call.identity.subject if call.identity else "nobody")

    async def Repeat(self, request, context):
        yield echo_pb2.RepeatResponse(text=rpc.current_call().identity.subject)


@contextlib.asynccontextmanager
async def served(identity=None, trusted=SIGNER.public):
    server = rpc.Server(verifier=Verifier(trusted))
    server.add(echo_pb2_grpc.add_EchoServiceServicer_to_server, Echo())
    async with server, rpc.Channel(server.address, identity=identity) as channel:
        yield echo_pb2_grpc.EchoServiceStub(channel)


async def test_a_server_believes_what_is_signed_and_refuses_the_rest():
    async with served(SIGNER.sign(ANN)) as stub:
        assert (await stub.Say(echo_pb2.SayRequest())).caller == "user:ann"
        assert [said.text async for said in stub.Repeat(echo_pb2.RepeatRequest())] == ["user:ann"]
    async with served() as stub:
        assert (await stub.Say(echo_pb2.SayRequest())).caller == "nobody"
    for identity in (ANN, Signer(OTHER).sign(ANN), changed(SIGNER.sign(ANN), subject="root")):
        async with served(identity) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Say(echo_pb2.SayRequest())
            error = rpc.error_from_call(refused.value)
            assert (error.code, error.reason) == (
                grpc.StatusCode.UNAUTHENTICATED,
                "IDENTITY_NOT_TRUSTED",
            )
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Repeat(echo_pb2.RepeatRequest()).read()
