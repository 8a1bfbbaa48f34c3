"""Tokens signed with real keys: which are accepted, and what others are told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from datetime import timedelta

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from weft import rpc
from weft.gateway.guards.claims import ClaimRules
from weft.gateway.guards.jwks import KeySet, TokenInvalid
from weft.gateway.guards.tokens import TokenCheck, TokenSettings, is_like_token

HOUR = 3600


@pytest.fixture
async def check(issuer):
    keys = KeySet(issuer.url)
    yield TokenCheck(issuer.rules(required=("sub",)), keys)
    await keys.close()


async def refusal(check, token):
    with pytest.raises(rpc.Unauthenticated) as refused:
        await check.verify(token)
    return refused.value.reason


def part(content):
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.mark.parametrize("kid", ["rsa", "ec", "ed"])
async def test_a_good_token_of_each_algorithm_is_an_identity(issuer, check, kid):
    token = issuer.token(kid, scope="a.read b.write", name="Ann", aud=["other", "weft"])
    assert is_like_token(token)
    identity, left = await check.verify(token)
    assert identity.subject == "user:ann"
    assert identity.display_name == "Ann"
    assert list(identity.scopes) == ["a.read", "b.write"]
    assert identity.issuer == "https://idp.example"
    assert HOUR - 5 < left <= HOUR
    assert issuer.fetches == 1


def now(offset: float) -> int:
    return int(time.time() + offset)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": now(-HOUR)}, "TOKEN_EXPIRED"),
        ({"exp": now(-31)}, "TOKEN_EXPIRED"),
        ({"exp": None}, "TOKEN_CLAIM_MISSING"),
        ({"exp": "soon"}, "TOKEN_INVALID"),
        ({"exp": str(now(HOUR))}, "TOKEN_INVALID"),
        ({"exp": 1e400}, "TOKEN_INVALID"),
        ({"exp": [1]}, "TOKEN_INVALID"),
        ({"nbf": now(HOUR)}, "TOKEN_NOT_YET_VALID"),
        ({"iat": now(HOUR)}, "TOKEN_NOT_YET_VALID"),
        ({"nbf": "later"}, "TOKEN_INVALID"),
        ({"iss": "https://other.example"}, "TOKEN_ISSUER_WRONG"),
        ({"iss": "https://idp.example/"}, "TOKEN_ISSUER_WRONG"),
        ({"iss": None}, "TOKEN_CLAIM_MISSING"),
        ({"aud": "other"}, "TOKEN_AUDIENCE_WRONG"),
        ({"aud": ["other", "weft2"]}, "TOKEN_AUDIENCE_WRONG"),
        ({"aud": []}, "TOKEN_CLAIM_MISSING"),
        ({"aud": None}, "TOKEN_CLAIM_MISSING"),
        ({"aud": {"weft": 1}}, "TOKEN_AUDIENCE_WRONG"),
        ({"sub": None}, "TOKEN_CLAIM_MISSING"),
        ({"sub": ""}, "TOKEN_CLAIM_MISSING"),
        ({"sub": "a\nb"}, "TOKEN_CLAIM_MISSING"),
        ({"sub": "s" * 201}, "TOKEN_CLAIM_MISSING"),
        ({"sub": "s" * 198}, "TOKEN_INVALID"),
        ({"scope": " ".join(f"s{n}" for n in range(201))}, "TOKEN_INVALID"),
        ({"more": "x" * 9000}, "TOKEN_INVALID"),
    ],
)
async def test_a_token_whose_claims_are_wrong_is_refused(issuer, check, claims, reason):
    if claims.get("exp") == float("inf"):
        token = issuer.token(exp=1)
        _, body, _ = token.split(".")
        body = base64.urlsafe_b64decode(body + "==").replace(b'"exp":1', b'"exp":1e400')
        signed = f"{token.split('.')[0]}.{part(body)}"
        token = f"{signed}.{part(issuer.keys['ed'].sign(signed.encode()))}"
    else:
        token = issuer.token(**claims)
    assert await refusal(check, token) == reason


async def test_clocks_may_differ_by_the_leeway(issuer, check):
    _, left = await check.verify(issuer.token(exp=now(-20)))
    assert left < 0  # nobody remembers it
    _, left = await check.verify(issuer.token(exp=10**400))
    assert left > HOUR
    await check.verify(issuer.token(nbf=now(20), iat=now(20)))


async def test_no_algorithm_is_confused_with_another(issuer, check):
    claims = {"iss": "https://idp.example", "aud": "weft", "sub": "ann", "exp": now(HOUR)}
    public = issuer.keys["rsa"].public_key()
    forms = [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        issuer.keys["ed"].public_key().public_bytes_raw(),
    ]
    for secret in forms:
        for kid in ("rsa", "ed", "ec"):
            signed = f"{part({'alg': 'HS256', 'kid': kid})}.{part(claims)}"
            mac = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
            assert await refusal(check, f"{signed}.{part(mac)}") == "TOKEN_INVALID"
    for none in ("none", "None", "NONE", "", None, 0, ["EdDSA"], {}):
        signed = f"{part({'alg': none, 'kid': 'ed'})}.{part(claims)}"
        for signature in ("", part(b"x" * 64)):
            assert await refusal(check, f"{signed}.{signature}") == "TOKEN_INVALID"
    assert await refusal(check, f"{part({'kid': 'ed'})}.{part(claims)}.") == "TOKEN_INVALID"
    # A right signature of a kind that is not accepted, or under another key's id.
    rs512 = jwt.encode(claims, issuer.keys["rsa"], "RS512", headers={"kid": "rsa"})
    ps256 = jwt.encode(claims, issuer.keys["rsa"], "PS256", headers={"kid": "rsa"})
    for token in (rs512, ps256, issuer.token("ed", head={"kid": "rsa"})):
        assert await refusal(check, token) == "TOKEN_INVALID"


async def test_a_signature_of_another_key_is_refused(issuer, check):
    forged = {
        "rsa": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "ec": ec.generate_private_key(ec.SECP256R1()),
        "ed": ed25519.Ed25519PrivateKey.generate(),
    }
    real = issuer.keys
    for kid in real:
        issuer.keys = forged
        token = issuer.token(kid)
        expired = issuer.token(kid, exp=now(-HOUR))
        own = issuer.token(kid, head={"jku": issuer.url, "jwk": {"kty": "oct"}, "x5u": issuer.url})
        issuer.keys = real
        for one in (token, own):
            assert await refusal(check, one) == "TOKEN_INVALID"
        # What is wrong with its claims is nobody's business who cannot sign.
        assert await refusal(check, expired) == "TOKEN_INVALID"


async def test_critical_headers_that_are_not_known_are_refused(issuer, check):
    for head in ({"crit": ["b64"], "b64": False}, {"crit": ["exp"], "exp": 1}, {"crit": []}):
        assert await refusal(check, issuer.token(head=head)) == "TOKEN_INVALID"


@pytest.mark.parametrize("kid", [5, "k" * 257, ["ed"], {}])
async def test_a_strange_key_id_is_refused_with_no_fetch(issuer, check, kid):
    signed = f"{part({'alg': 'EdDSA', 'kid': kid})}.{part({})}"
    assert await refusal(check, f"{signed}.{part(b'x' * 64)}") == "TOKEN_INVALID"
    assert issuer.fetches == 0


async def test_json_that_is_too_deep_is_refused(issuer, check):
    deep = b'{"alg": ' + b"[" * 5000
    assert await refusal(check, f"{part(deep)}.{part({})}.{part(b'x')}") == "TOKEN_INVALID"
    signed = f"{part({'alg': 'EdDSA', 'kid': 'ed'})}.{part(b'[' * 5000)}"
    token = f"{signed}.{part(issuer.keys['ed'].sign(signed.encode()))}"
    assert await refusal(check, token) == "TOKEN_INVALID"


async def test_an_unknown_key_id_is_told(issuer, check):
    assert await refusal(check, issuer.token(head={"kid": "gone"})) == "TOKEN_KEY_UNKNOWN"


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=200) | st.from_regex(r"ey[A-Za-z0-9_-]{0,40}\.[\w-]{0,40}\.[\w-]*"))
def test_whatever_comes_is_refused_as_what_it_is(text):
    async def ask():
        # Nothing that is no token makes the gateway fetch a key: there is nobody at this address.
        check = TokenCheck(
            TokenSettings(issuer="i", audience=("a",), keys_url="https://x.invalid"),
            KeySet("https://x.invalid"),
        )
        return await refusal(check, text)

    coroutine = ask()
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    assert ended.value.value == "TOKEN_INVALID"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
NAMES = ["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "scope", "scp", "name", "org", "roles"]
HEADS = ["crit", "b64", "typ", "cty", "kid", "alg", "jku", "x5c", "zip", "enc"]


class OneKey:
    """Stands for the keys of an issuer, of which there is one, whatever its id."""

    def __init__(self, key):
        self.key = key

    async def find(self, key_id, algorithm):
        return self.key


@settings(max_examples=300, deadline=None)
@given(
    claims=st.dictionaries(st.sampled_from(NAMES), JSON, max_size=4),
    head=st.dictionaries(st.sampled_from(HEADS), JSON, max_size=2),
)
def test_whatever_an_issuer_signs_is_an_identity_or_refused(claims, head):
    key = ed25519.Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    good = {"iss": "i", "aud": "a", "sub": "ann", "exp": now(HOUR), "org": "o"}
    head = {"alg": "EdDSA", **head}
    signed = f"{part(head)}.{part({**good, **claims})}"
    token = f"{signed}.{part(key.sign(signed.encode()))}"
    rules = ClaimRules(tenant="org", roles="roles", scopes_of_roles={"r": ("s",)})
    accepted = TokenSettings(issuer="i", audience=("a",), keys_url="u", claims=rules)
    coroutine = TokenCheck(accepted, OneKey(key.public_key())).verify(token)
    try:
        coroutine.send(None)
    except StopIteration as done:
        identity, left = done.value
        assert identity.subject.startswith("user:")
        assert isinstance(left, int | float)
        identity.SerializeToString()
    except TokenInvalid:
        pass


async def test_bits_that_are_flipped_are_noticed(issuer, check):
    for kid in issuer.keys:
        token = issuer.token(kid, scope="a")
        await check.verify(token)
        signed, _, signature = token.rpartition(".")
        raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
        for position in range(0, len(raw), 7):
            changed = bytearray(raw)
            changed[position] ^= 1
            assert await refusal(check, f"{signed}.{part(bytes(changed))}") == "TOKEN_INVALID"
        head, body = signed.split(".")
        claims = json.loads(base64.urlsafe_b64decode(body + "=="))
        more = part({**claims, "scope": "a b"})
        assert await refusal(check, f"{head}.{more}.{signature}") == "TOKEN_INVALID"


# Claims


@pytest.mark.parametrize(
    ("rules", "claims", "subject", "scopes", "tenant"),
    [
        ({}, {"scp": ["a", "b"]}, "user:ann", ["a", "b"], ""),
        ({}, {"scp": "b a"}, "user:ann", ["a", "b"], ""),
        ({}, {"scope": "a a", "scp": ["b"]}, "user:ann", ["a", "b"], ""),
        ({}, {"scope": 5, "scp": [1, "a b", "c"]}, "user:ann", ["c"], ""),
        ({"scopes": ("permissions",)}, {"scope": "a", "permissions": ["p"]}, "user:ann", ["p"], ""),
        ({"subject": "app:{azp}/{sub}"}, {"azp": "shop"}, "app:shop/ann", [], ""),
        (
            {"roles": "realm_access.roles", "scopes_of_roles": {"admin": ("a", "b"), "x": ("c",)}},
            {"realm_access": {"roles": ["admin", "guest"]}, "scope": "z"},
            "user:ann",
            ["a", "b", "z"],
            "",
        ),
        (
            {"roles": "roles", "scopes_of_roles": {"r": ("a",)}},
            {"roles": "r q"},
            "user:ann",
            ["a"],
            "",
        ),
        ({"roles": "roles.inner"}, {"roles": "text"}, "user:ann", [], ""),
        ({"tenant": "org"}, {"org": "acme"}, "user:ann", [], "acme"),
        ({"tenant": "https://x.dev/org"}, {"https://x.dev/org": "o"}, "user:ann", [], "o"),
    ],
)
def test_claims_become_an_identity(rules, claims, subject, scopes, tenant):
    identity = ClaimRules(**rules).identity({"sub": "ann", **claims})
    assert identity.subject == subject
    assert list(identity.scopes) == scopes
    assert identity.tenant == tenant


@pytest.mark.parametrize(
    "claims", [{}, {"org": ""}, {"org": 5}, {"org": "x" * 201}, {"org": "a\0"}]
)
def test_a_token_without_a_tenant_is_refused_where_there_are_tenants(claims):
    with pytest.raises(rpc.Unauthenticated) as refused:
        ClaimRules(tenant="org").identity({"sub": "ann", **claims})
    assert refused.value.reason == "TOKEN_CLAIM_MISSING"
    assert refused.value.metadata == {"claim": "org"}


@pytest.mark.parametrize(
    "subject",
    ["", "{sub}", "user:", "user{sub}", "key:{sub}", "agent:{sub}", "person:{sub}", "user:{}",
     "user:{sub!r}", "user:{sub:>9}", "user:{sub"],
)  # fmt: skip
def test_a_subject_that_could_be_somebody_elses_is_no_rule(subject):
    with pytest.raises(ValueError, match="subject|brace|expected"):
        ClaimRules(subject=subject)


def test_rules_are_read_from_settings():
    rules = ClaimRules.read(
        subject="user:{sub}",
        scopes="scope, permissions",
        roles="roles",
        scopes_of_roles="admin=a.read a.write, guest = a.read,",
        tenant="",
    )
    assert rules.scopes == ("scope", "permissions")
    assert rules.scopes_of_roles == {"admin": ("a.read", "a.write"), "guest": ("a.read",)}
    with pytest.raises(ValueError, match="ROLE=SCOPE"):
        ClaimRules.read(subject="user:{sub}", scopes="", roles="", scopes_of_roles="x", tenant="")


def test_tokens_need_an_issuer_an_audience_and_keys():
    for missing in ({"issuer": ""}, {"audience": ()}, {"keys_url": ""}):
        given = {"issuer": "i", "audience": ("a",), "keys_url": "https://x", **missing}
        with pytest.raises(ValueError, match="issuer"):
            TokenSettings(**given)
    assert TokenSettings(issuer="i", audience=("a",), keys_url="u").leeway == timedelta(seconds=30)
