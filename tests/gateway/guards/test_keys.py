from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft import rpc
from weft.gateway.guards import keys

ID = "abcdefghij27"
SECRET = "s-_" + "A" * 40
KEY = f"weft_{ID}_{SECRET}".encode()


def test_a_generated_key_has_the_form_and_is_never_the_same():
    made = [keys.generate() for _ in range(100)]
    for key_id, text in made:
        assert keys.parse(text).id == key_id
    assert len({text for _, text in made}) == 100


def test_what_is_kept_of_a_secret_is_its_hash():
    assert keys.parse(KEY.decode()).secret_hash == hashlib.sha256(SECRET.encode()).digest()


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer " + KEY)],
        [(b"authorization", b"bearer   " + KEY + b" ")],
        [(b"x-api-key", KEY)],
        [(b"x-api-key", b" " + KEY)],
        [(b"x-api-key", KEY), (b"authorization", b"Bearer " + KEY)],
        [(b"authorization", b"Basic dXNlcjpwYXNz"), (b"x-api-key", KEY)],
        [(b"x-api-key", KEY), (b"authorization", b"Basic dXNlcjpwYXNz")],
    ],
)
def test_a_key_is_read_from_either_header(headers):
    assert keys.presented([(b"host", b"x"), *headers]).id == ID


def test_no_key_is_said_to_be_missing():
    with pytest.raises(rpc.Unauthenticated) as refused:
        keys.presented([(b"host", b"x"), (b"cookie", KEY)])
    assert refused.value.reason == "KEY_MISSING"


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-api-key", b"")],
        [(b"x-api-key", b"hello")],
        [(b"x-api-key", b"weft_short_" + SECRET.encode())],
        [(b"x-api-key", b"weft_ABCDEFGHIJ27_" + SECRET.encode())],
        [(b"x-api-key", b"weft_abcdefghij27_short")],
        [(b"x-api-key", KEY + b"\xff")],
        [(b"x-api-key", KEY + b"A" * 100_000)],
        [(b"authorization", KEY)],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer " + KEY + b" extra")],
        [(b"authorization", b"Basic dXNlcjpwYXNz")],
        [(b"x-api-key", KEY), (b"x-api-key", KEY[:-1] + b"B")],
        [(b"x-api-key", KEY), (b"authorization", b"Bearer " + KEY[:-1] + b"B")],
    ],
)
def test_what_is_not_a_key_is_malformed_and_not_repeated(headers):
    with pytest.raises(rpc.Unauthenticated) as refused:
        keys.presented(headers)
    assert refused.value.reason == "KEY_MALFORMED"
    assert SECRET not in str(refused.value)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_key_or_malformed(value):
    for headers in ([(b"x-api-key", value)], [(b"authorization", b"Bearer " + value)]):
        with pytest.raises(rpc.Unauthenticated):
            keys.presented(headers)


def test_nothing_shows_a_secret():
    _, text = keys.generate()
    presented = keys.parse(text)
    assert str(presented.secret_hash) not in repr(presented)
