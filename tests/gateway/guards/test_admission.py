"""Who is let in by which credential, what is remembered of it, and what goes on to agents."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.json_format import MessageToDict

from weft import rpc
from weft.gateway.guards import keys
from weft.gateway.guards.admission import Admission
from weft.gateway.guards.jwks import KeySet
from weft.gateway.guards.key_check import KeyCheck
from weft.gateway.guards.key_store import StoredKey
from weft.gateway.guards.tokens import TokenCheck
from weft.rpc.call import IDENTITY_KEY
from weft.rpc.signing import Signer
from weft.v1.identity_pb2 import Identity

ID, KEY = keys.generate()
METHOD = "/x.Y/Z"


class Store:
    """Keys in a dict."""

    def __init__(self):
        self.finds = 0
        self.revoked_at = None
        self.expires_at = None

    async def find(self, key_id):
        self.finds += 1
        if key_id != ID:
            return None
        key = keys.ApiKey(
            id=ID, name="shop", scopes=("a.read",), created_at=datetime.now(UTC), tenant="acme",
            expires_at=self.expires_at, revoked_at=self.revoked_at,
        )  # fmt: skip
        return StoredKey(key=key, secret_hash=keys.parse(KEY).secret_hash)


@pytest.fixture
def store():
    return Store()


@pytest.fixture
async def made(issuer, store, clock):
    token_keys = KeySet(issuer.url, clock=clock)

    def make(*, api_keys=True, tokens=True, required=True, **further):
        return Admission(
            KeyCheck(store, clock=clock) if api_keys else None,
            tokens=TokenCheck(issuer.rules(), token_keys) if tokens else None,
            required=required,
            clock=clock,
            **further,
        )

    yield make
    await token_keys.close()


def bearer(text):
    return [(b"host", b"x"), (b"authorization", f"Bearer {text}".encode())]


async def reason(admission, headers):
    with pytest.raises(rpc.Unauthenticated) as refused:
        await admission.caller(headers)
    return refused.value.reason


@pytest.mark.parametrize(
    ("api_keys", "tokens", "nothing", "key", "token", "nonsense"),
    [
        (True, True, "CREDENTIAL_MISSING", "", "", "KEY_MALFORMED"),
        (True, False, "KEY_MISSING", "", "KEY_MALFORMED", "KEY_MALFORMED"),
        (False, True, "TOKEN_MISSING", "TOKEN_INVALID", "", "TOKEN_INVALID"),
    ],
)
async def test_what_is_accepted(made, issuer, api_keys, tokens, nothing, key, token, nonsense):
    for required in (True, False):
        admission = made(api_keys=api_keys, tokens=tokens, required=required)
        if required:
            assert await reason(admission, []) == nothing
        else:
            assert (await admission.caller([])).identity.subject == "anonymous"
        assert await reason(admission, bearer("nonsense")) == nonsense
        assert await reason(admission, [(b"authorization", b"Basic eDp5")]) == nonsense
        for text, expected in ((KEY, key), (issuer.token(), token)):
            for _ in range(2):
                if expected:
                    assert await reason(admission, bearer(text)) == expected
                else:
                    subject = (await admission.caller(bearer(text))).identity.subject
                    assert subject == ("user:ann" if text != KEY else f"key:{ID}")


async def test_two_different_credentials_are_refused(made, issuer):
    admission = made()
    both = [(b"x-api-key", KEY.encode()), *bearer(issuer.token())]
    for _ in range(2):
        assert await reason(admission, both) == "KEY_MALFORMED"
    await admission.caller([(b"x-api-key", KEY.encode()), *bearer(KEY)])


async def test_a_token_is_verified_once_a_minute(made, issuer, clock, monkeypatch):
    admission = made()
    verified = 0
    verify = admission._tokens.verify

    async def counted(token):
        nonlocal verified
        verified += 1
        return await verify(token)

    monkeypatch.setattr(admission._tokens, "verify", counted)
    token = issuer.token()
    first = await admission.caller(bearer(token))
    for _ in range(59):
        clock.advance(1)
        assert await admission.caller(bearer(token)) is first
    assert verified == 1
    clock.advance(1)
    await admission.caller(bearer(token))
    assert verified == 2
    # It is gone from memory when it expires, and one in its leeway is never remembered.
    short = issuer.token(exp=int(time.time()) + 10)
    await admission.caller(bearer(short))
    clock.advance(9)
    await admission.caller(bearer(short))
    assert verified == 3
    clock.advance(1)
    await admission.caller(bearer(short))
    late = issuer.token(exp=int(time.time()) - 5)
    for _ in range(3):
        await admission.caller(bearer(late))
    assert verified == 7


async def test_what_is_remembered_is_bounded_and_holds_no_credential(made, issuer, monkeypatch):
    monkeypatch.setattr("weft.gateway.guards.admission._REMEMBERED", 10)
    admission = made()
    tokens = [issuer.token(sub=f"user-{number}") for number in range(30)]
    for token in tokens:
        await admission.caller(bearer(token))
    await admission.caller(bearer(KEY))
    assert len(admission._known) == 10
    shown = repr(admission._known)
    assert KEY.rpartition("_")[2] not in shown
    assert not any(token.rpartition(".")[2] in shown for token in tokens)


async def test_a_revocation_is_seen_within_a_second_and_an_expiry_at_once(made, store, clock):
    admission = made()
    for _ in range(100):
        await admission.caller(bearer(KEY))
    assert store.finds == 1
    store.revoked_at = datetime.now(UTC)
    clock.advance(1)
    assert await reason(admission, bearer(KEY)) == "KEY_REVOKED"
    store.revoked_at = None
    store.expires_at = datetime.now(UTC) + timedelta(milliseconds=300)
    clock.advance(1)
    caller = await admission.caller(bearer(KEY))
    assert caller.until - clock() <= 0.3


async def test_an_unknown_key_is_not_let_in_by_anothers_memory(made):
    admission = made()
    await admission.caller(bearer(KEY))
    forged = KEY[:18] + keys.generate()[1][18:]
    for _ in range(2):
        assert await reason(admission, bearer(forged)) == "KEY_UNKNOWN"


async def test_scopes_are_asked_for_where_a_caller_must_be_known(made, issuer):
    admission = made()
    token = bearer(issuer.token(scope="a.read"))
    await admission.admit(token, METHOD, ())
    await admission.admit(token, METHOD, ("a.read",))
    with pytest.raises(rpc.PermissionDenied) as refused:
        await admission.admit(token, METHOD, ("a.read", "a.write", "b"))
    assert refused.value.reason == "SCOPE_MISSING"
    assert refused.value.metadata == {"method": "x.Y/Z", "missing_scopes": "a.write b"}
    caller = await admission.caller(token)
    assert caller.may_call(("a.read",))
    assert not caller.may_call(("a.read", "b"))

    open_to_all = made(required=False)
    for headers in ([], token):
        name, raw = (await open_to_all.admit(headers, METHOD, ("b",))).entry
        assert (name, Identity.FromString(raw).all_scopes) == (IDENTITY_KEY, True)


async def test_agents_are_told_who_calls(made, issuer):
    signer = Signer(Ed25519PrivateKey.generate())
    admission = made(signer=signer)
    name, raw = (await admission.admit(bearer(KEY), METHOD, ())).entry
    told = Identity.FromString(raw)
    assert name == IDENTITY_KEY
    assert len(told.signature) == 64
    assert 3600 < told.expire_time.seconds - time.time() <= 3600 + 120
    told.ClearField("signature")
    told.ClearField("expire_time")
    assert MessageToDict(told) == {
        "subject": f"key:{ID}", "displayName": "shop", "scopes": ["a.read"], "tenant": "acme",
    }  # fmt: skip
    _, raw = (await made().admit(bearer(issuer.token(name="Ann")), METHOD, ())).entry
    assert MessageToDict(Identity.FromString(raw)) == {
        "subject": "user:ann", "displayName": "Ann", "issuer": "https://idp.example",
    }  # fmt: skip


async def test_many_new_callers_at_once_fetch_the_keys_once(made, issuer):
    admission = made()
    tokens = [issuer.token(sub=f"user-{number}") for number in range(50)]
    callers = await asyncio.gather(*(admission.caller(bearer(token)) for token in tokens * 2))
    assert len({caller.identity.subject for caller in callers}) == 50
    assert issuer.fetches == 1


async def test_an_issuer_that_is_down_is_not_the_callers_fault(made, issuer):
    issuer.status = 500
    with pytest.raises(rpc.Unavailable) as refused:
        await made().caller(bearer(issuer.token()))
    assert refused.value.reason == "TOKEN_KEYS_UNAVAILABLE"
