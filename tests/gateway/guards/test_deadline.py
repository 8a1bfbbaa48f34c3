from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft import rpc
from weft.gateway.guards import caller_deadline


@pytest.mark.parametrize(
    ("name", "value", "seconds"),
    [
        ("grpc-timeout", "2S", 2),
        ("grpc-timeout", "00000002S", 2),
        ("grpc-timeout", "1M", 60),
        ("grpc-timeout", "1500m", 1.5),
        ("grpc-timeout", "250000u", 0.25),
        ("grpc-timeout", "99999999n", 0.099999999),
        ("connect-timeout-ms", "2500", 2.5),
        ("connect-timeout-ms", "0000002500", 2.5),
        ("x-request-timeout", "2", 2),
        ("x-request-timeout", "2.5", 2.5),
        ("x-request-timeout", "2.5s", 2.5),
        ("x-request-timeout", "800ms", 0.8),
        ("x-request-timeout", "0.5ms", 0.0005),
        ("x-request-timeout", " 3 ", 3),
    ],
)
def test_each_header_in_its_own_grammar(name, value, seconds):
    deadline = caller_deadline([(b"host", b"x"), (name.encode(), value.encode())])
    assert deadline is not None
    assert seconds - 0.5 < deadline.seconds() <= seconds


def test_without_a_header_there_is_none():
    assert caller_deadline([(b"host", b"x"), (b"timeout", b"3")]) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("grpc-timeout", "0S"),
        ("grpc-timeout", "00n"),
        ("connect-timeout-ms", "0"),
        ("x-request-timeout", "0"),
        ("x-request-timeout", "0.000"),
        ("x-request-timeout", "0ms"),
    ],
)
def test_no_time_at_all_is_over_at_once(name, value):
    with pytest.raises(rpc.DeadlineExceeded):
        caller_deadline([(name.encode(), value.encode())])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("grpc-timeout", v)
            for v in ("", "5", "S", "5s", "123456789S", "-1S", "+1S", "1.5S", "5 S", "5SS")
        ),
        *(("connect-timeout-ms", v) for v in ("", "-1", "1.5", "12345678901", "5ms", "1e3", "٣")),
        *(
            ("x-request-timeout", v)
            for v in ("", "-1", ".5", "5.", "1e3", "nan", "inf", "5m", "5 s", "1,5")
        ),
        ("x-request-timeout", "1234567890"),
    ],
)
def test_a_malformed_value_names_its_header(name, value):
    with pytest.raises(rpc.InvalidArgument) as refused:
        caller_deadline([(name.encode(), value.encode())])
    assert [path for path, _ in refused.value.violations] == [name]


@given(st.binary(max_size=24))
def test_any_bytes_are_a_time_or_a_clear_error(value):
    for name in (b"grpc-timeout", b"connect-timeout-ms", b"x-request-timeout"):
        try:
            deadline = caller_deadline([(name, value)])
        except (rpc.InvalidArgument, rpc.DeadlineExceeded):
            continue
        assert deadline is not None
        assert deadline.seconds() <= 600


def test_of_several_headers_the_shortest_counts():
    headers = [
        (b"grpc-timeout", b"30S"),
        (b"connect-timeout-ms", b"5000"),
        (b"x-request-timeout", b"10"),
        (b"x-request-timeout", b"7"),
    ]
    deadline = caller_deadline(headers)
    assert deadline is not None
    assert 4.5 < deadline.seconds() <= 5


def test_a_malformed_header_is_told_even_beside_a_good_one():
    with pytest.raises(rpc.InvalidArgument):
        caller_deadline([(b"x-request-timeout", b"5"), (b"grpc-timeout", b"soon")])


def test_the_longest_time_is_capped():
    deadline = caller_deadline([(b"grpc-timeout", b"99999999H")])
    assert deadline is not None
    assert 599 < deadline.seconds() <= 600
    deadline = caller_deadline([(b"x-request-timeout", b"60")], maximum=timedelta(seconds=5))
    assert deadline is not None
    assert 4.5 < deadline.seconds() <= 5
