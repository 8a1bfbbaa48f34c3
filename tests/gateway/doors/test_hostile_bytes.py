"""Whatever bytes come, what reads them gives them back or raises an error that can be told."""

from __future__ import annotations

import base64
import contextlib
import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft import rpc
from weft.gateway.doors import compression
from weft.gateway.doors.connect_get import read_query
from weft.gateway.doors.envelope import frame, only_message
from weft.gateway.doors.framed import from_base64
from weft.gateway.guards import PayloadTooLarge
from weft.gateway.metadata import from_headers, to_headers, to_lists

LIMIT = 1_000


@given(st.binary(max_size=64))
def test_frames(body):
    try:
        packed, message = only_message(body)
    except rpc.Error:
        return
    assert frame(int(packed), message) == body


@given(st.lists(st.binary(max_size=20), max_size=20), st.binary(max_size=8))
def test_base64_in_parts(parts, garbage):
    text = b"".join(base64.b64encode(part) for part in parts)
    assert from_base64(text) == b"".join(parts)
    with contextlib.suppress(rpc.InvalidArgument):
        from_base64(text + garbage)


@given(st.binary(max_size=200) | st.binary(max_size=50).map(gzip.compress))
def test_what_is_unpacked_is_never_larger_than_allowed(data):
    with contextlib.suppress(rpc.InvalidArgument):
        assert len(compression.unpack(data, b"gzip", LIMIT)) <= LIMIT


@pytest.mark.parametrize("size", [0, 1, 1_500, 16_384, 16_385, 300_000])
async def test_what_is_packed_is_unpacked(size):
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert gzip.decompress(await compression.pack(data)) == data


@given(st.integers(LIMIT - 2, LIMIT + 2))
def test_the_limit_is_exact(size):
    packed = gzip.compress(b"x" * size)
    if size <= LIMIT:
        assert len(compression.unpack(packed, b" GZIP ", LIMIT)) == size
    else:
        with pytest.raises(PayloadTooLarge):
            compression.unpack(packed, b"gzip", LIMIT)


@given(st.text(st.characters(max_codepoint=255), max_size=80))
def test_queries(text):
    for query in (text, f"encoding=json&message={text}", f"encoding=proto&base64=1&message={text}"):
        with contextlib.suppress(rpc.InvalidArgument):
            read_query(query)


NAMES = st.text("abz-_.0: \r", min_size=1, max_size=8).map(str.encode) | st.sampled_from(
    [b"x-bin", b"grpc-a", b"content-type", b"weft-identity-bin", b"te", b"set-cookie"]
)


@given(st.lists(st.tuples(NAMES, st.binary(max_size=8)), max_size=6))
def test_headers_become_metadata_that_grpc_takes_or_none(headers):
    try:
        metadata = from_headers(headers)
    except rpc.InvalidArgument:
        return
    for name, value in metadata:
        assert not set(name) & set(": \r")
        assert not name.startswith(("grpc-", "weft-", "content-"))
        assert isinstance(value, bytes) or value.isascii()


@given(
    st.lists(
        st.tuples(NAMES.map(bytes.decode), st.text(max_size=8) | st.binary(max_size=8)), max_size=6
    )
)
def test_an_agent_s_metadata_splits_no_response(metadata):
    shown = to_headers(metadata, b"trailer-")
    assert all(b"\r" not in name + value and b"\n" not in name + value for name, value in shown)
    assert sum(map(len, to_lists(metadata).values())) == len(shown)
    assert not [name for name, _ in shown if name.startswith((b"trailer-set-", b"trailer-grpc"))]
