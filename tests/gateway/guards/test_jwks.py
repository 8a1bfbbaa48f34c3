"""The keys of an issuer, over real HTTP: how often they are fetched, and what becomes of those that are not usable."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

from weft import rpc
from weft.gateway.guards.jwks import KeySet, KeysUnavailable, TokenInvalid, TokenKeyUnknown
from weft.rpc.testing import wait_until


@pytest.fixture
async def keys(issuer, clock):
    made = KeySet(issuer.url, clock=clock, patience=timedelta(seconds=20))
    yield made
    await made.close()


async def refused(keys, kid, algorithm="EdDSA"):
    with pytest.raises(rpc.Error) as told:
        await keys.find(kid, algorithm)
    return told.value


async def test_all_who_miss_wait_for_one_fetch(issuer, keys):
    issuer.gate.clear()
    waiting = [asyncio.create_task(keys.find("ed", "EdDSA")) for _ in range(200)]
    await wait_until(lambda: issuer.fetches)
    waiting.pop().cancel()  # who gives up takes nobody with it
    issuer.gate.set()
    assert len({id(key) for key in await asyncio.gather(*waiting)}) == 1
    for kid, algorithm in (("rsa", "RS256"), ("ec", "ES256"), ("ed", "EdDSA")):
        await keys.find(kid, algorithm)
    assert issuer.fetches == 1


async def test_unknown_ids_are_asked_for_once_in_a_cool_down(issuer, keys, clock):
    await keys.find("ed", "EdDSA")
    for number in range(100):
        assert isinstance(await refused(keys, f"invented-{number}"), TokenKeyUnknown)
    assert issuer.fetches == 1
    clock.advance(30)
    many = [refused(keys, f"invented-{number}") for number in range(100)]
    assert {type(error) for error in await asyncio.gather(*many)} == {TokenKeyUnknown}
    assert issuer.fetches == 2


async def test_a_new_key_is_found_and_an_old_one_forgotten(issuer, keys, clock):
    await keys.find("ed", "EdDSA")
    issuer.keys = {"new": ed25519.Ed25519PrivateKey.generate()}
    clock.advance(30)
    await keys.find("new", "EdDSA")
    assert issuer.fetches == 2
    await refused(keys, "ed")


async def test_keys_that_are_not_fresh_are_used_while_others_are_fetched(issuer, keys, clock):
    old = await keys.find("ed", "EdDSA")
    issuer.keys["ed"] = ed25519.Ed25519PrivateKey.generate()
    issuer.gate.clear()
    clock.advance(300)
    for _ in range(50):
        assert await keys.find("ed", "EdDSA") is old  # nobody waits
    await wait_until(lambda: issuer.fetches == 2)
    issuer.gate.set()
    await wait_until(lambda: keys._fetching is None)
    assert await keys.find("ed", "EdDSA") is not old
    assert issuer.fetches == 2


async def test_keys_outlive_an_outage_of_the_issuer_for_a_day(issuer, keys, clock):
    await keys.find("ed", "EdDSA")
    issuer.status = 500
    for _ in range(23):
        clock.advance(3600)
        await keys.find("ed", "EdDSA")
        await wait_until(lambda: keys._fetching is None)
    assert isinstance(await refused(keys, "new"), KeysUnavailable)  # it may have been published
    clock.advance(3600)
    error = await refused(keys, "ed")
    assert isinstance(error, KeysUnavailable)
    assert error.retry_after >= timedelta(seconds=1)
    issuer.status = 200
    clock.advance(30)
    await keys.find("ed", "EdDSA")


async def test_an_issuer_that_fails_is_asked_less_and_less(issuer, keys, clock):
    issuer.status = 503
    for _ in range(100):
        await refused(keys, "ed")
    assert issuer.fetches == 1
    for _ in range(120):
        clock.advance(1)
        await refused(keys, "ed")
    assert 5 <= issuer.fetches <= 9  # after 1, 2, 4, 8, 16, 30, 30 ... seconds


async def test_an_issuer_that_hangs_is_waited_for_once(issuer, clock):
    keys = KeySet(issuer.url, clock=clock, patience=timedelta(milliseconds=500))
    issuer.gate.clear()
    errors = await asyncio.gather(*(refused(keys, "ed") for _ in range(100)))
    assert {type(error) for error in errors} == {KeysUnavailable}
    assert issuer.fetches == 1
    await keys.close()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": [' + b"{}," * 100 + b"{}]}",
        b'{"keys": [], "more": "' + b"x" * 600_000 + b'"}',
        b"\xff\xfe",
    ],
)
async def test_what_is_no_set_or_too_large_is_not_taken(issuer, keys, body):
    issuer.document = body
    assert isinstance(await refused(keys, "ed"), KeysUnavailable)


async def test_no_redirect_is_followed(issuer, keys):
    issuer.status = 302
    issuer.headers = f"location: {issuer.url}\r\n"
    assert isinstance(await refused(keys, "ed"), KeysUnavailable)
    assert issuer.fetches == 1


async def test_keys_of_no_use_are_left_out(issuer, keys, public_jwk):
    ed = public_jwk(issuer.keys["ed"])
    private = OKPAlgorithm.to_jwk(issuer.keys["ed"], as_dict=True)
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()
    p384 = public_jwk(ec.generate_private_key(ec.SECP384R1()))
    other = ed448.Ed448PrivateKey.generate().public_key()
    given = [
        {**ed, "kid": "encrypts", "use": "enc"},
        {**ed, "kid": "signs", "key_ops": ["sign"]},
        {**ed, "kid": "odd-ops", "key_ops": 5},
        {**ed, "kid": "other-alg", "alg": "RS256"},
        {**ed, "kid": "odd-alg", "alg": []},
        {**ed, "kid": "no-x", "x": None},
        {**ed, "kid": "bad-x", "x": "AAAA"},
        {**ed, "kid": 7},
        {"kid": "hmac", "kty": "oct", "k": "c2VjcmV0", "alg": "HS256"},
        {**RSAAlgorithm.to_jwk(weak, as_dict=True), "kid": "weak"},
        {**p384, "kid": "p384"},
        {**OKPAlgorithm.to_jwk(other, as_dict=True), "kid": "ed448"},
        {"kid": "nothing"},
        "no object",
        {**private, "kid": "private"},
        {**ed, "kid": "good", "alg": "Ed25519", "x5c": ["ignored"]},
    ]
    issuer.document = json.dumps({"keys": given}).encode()
    found = await keys.find("good", "EdDSA")
    assert set(keys._keys) == {("good", "EdDSA"), ("private", "EdDSA")}
    assert isinstance(await keys.find("private", "EdDSA"), type(found))  # its public half
    assert isinstance(found, ed25519.Ed25519PublicKey)


async def test_a_key_serves_its_own_algorithm_only(issuer, keys):
    for kid, algorithm in (("rsa", "ES256"), ("ed", "RS256"), ("ec", "EdDSA")):
        assert type(await refused(keys, kid, algorithm)) is TokenInvalid


async def test_without_an_id_there_must_be_one_key_of_the_algorithm(issuer, keys, clock):
    await keys.find(None, "EdDSA")
    issuer.keys["ed2"] = ed25519.Ed25519PrivateKey.generate()
    clock.advance(30)
    assert isinstance(await refused(keys, "x"), TokenKeyUnknown)
    assert isinstance(await refused(keys, None), TokenKeyUnknown)


@pytest.mark.parametrize(
    "url",
    [
        "http://idp.example/jwks",
        "http://10.0.0.1/jwks",
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "https://",
        "",
        "http://127.0.0.1.example/",
    ],
)
def test_a_url_that_is_not_safe_is_refused(url):
    with pytest.raises(ValueError, match="https"):
        KeySet(url)
