"""Header blocks, by the examples of RFC 7541 and by whatever comes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.gateway.dataplane import headers, hpack


def test_huffman_codes_as_in_the_rfc() -> None:
    # C.4.1 to C.4.3, C.6.1: values alone, as literals that are not indexed.
    for packed, text in (
        ("8cf1e3c2e5f23a6ba0ab90f4ff", b"www.example.com"),
        ("86a8eb10649cbf", b"no-cache"),
        ("8825a849e95ba97d7f", b"custom-key"),
        ("8925a849e95bb8e8b4bf", b"custom-value"),
        ("826402", b"302"),
        ("85aec3771a4b", b"private"),
        ("96d07abe941054d444a8200595040b8166e082a62d1bff", b"Mon, 21 Oct 2013 20:13:21 GMT"),
        ("919d29ad171863c78f0b97c8e9ae82ae43d3", b"https://www.example.com"),
    ):
        assert hpack.decode(b"\x00\x01a" + bytes.fromhex(packed), 1000) == [(b"a", text)]


def test_fields_of_the_static_table() -> None:
    assert hpack.decode(bytes.fromhex("828684"), 1000) == [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/"),
    ]
    assert hpack.decode(bytes.fromhex("040c2f73616d706c652f70617468"), 1000) == [
        (b":path", b"/sample/path")
    ]


@given(st.lists(st.tuples(st.binary(), st.binary(max_size=3000), st.booleans())))
def test_what_is_encoded_is_decoded(fields: list[tuple[bytes, bytes, bool]]) -> None:
    block = b"".join(hpack.literal(name, value, secret=secret) for name, value, secret in fields)
    assert hpack.decode(block, 10**9) == [field[:2] for field in fields]


@given(st.binary(max_size=200))
def test_whatever_comes_is_decoded_or_refused(block: bytes) -> None:
    with contextlib.suppress(hpack.HpackError, hpack.TooLargeError):
        hpack.decode(block, 4000)


def test_a_list_that_is_too_large() -> None:
    with pytest.raises(hpack.TooLargeError):
        hpack.decode(hpack.indexed(8) * 100, 4000)  # 100 octets, 4,200 bytes


def test_binary_metadata_padded_or_not_joined_or_not() -> None:
    block = hpack.literal(b"a-bin", b"/w==,/w") + hpack.literal(b"b-bin", b"?")
    assert headers.read(block).metadata == (("a-bin", b"\xff"), ("a-bin", b"\xff"))


@pytest.mark.parametrize(
    ("seconds", "field"),
    [(None, b""), (float("inf"), b""), (1.5, b"1500m"), (0.0001, b"1m"), (1e6, b"1000000S")],
)
def test_timeouts(seconds: float | None, field: bytes) -> None:
    expected = hpack.literal(b"grpc-timeout", field) if field else b""
    assert headers.timeout(seconds) == expected


def test_what_http_means_by_a_field_is_no_metadata() -> None:
    """A caller of the gRPC door may send such fields, and agents that are strict end the call for them."""
    names = ("connection", "content-length", "host", "keep-alive", "te", "upgrade")
    sent = headers.metadata((*((name, "3") for name in names), ("x-a", "b")))
    assert hpack.decode(sent, 1000) == [(b"x-a", b"b")]
    answer = hpack.indexed(8) + hpack.literal(b"content-length", b"3")
    assert headers.read(answer + hpack.literal(b"x-a", b"b")).metadata == (("x-a", "b"),)
