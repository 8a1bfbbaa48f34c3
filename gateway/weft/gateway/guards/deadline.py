"""How long a caller is willing to wait, read from its request headers.

- `grpc-timeout`: gRPC over HTTP/2, `TimeoutValue TimeoutUnit`: 1 to 8 digits and one of H M S m u n;
- `connect-timeout-ms`: Connect protocol, 1 to 10 digits, milliseconds;
- `x-request-timeout`: seconds with decimals, or with the unit `s` or `ms` behind: `2.5`, `2.5s`, `800ms`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from types import MappingProxyType

from weft import rpc

MAXIMUM = timedelta(minutes=10)

_GRPC = re.compile(rb"([0-9]{1,8})([HMSmun])")
_GRPC_UNIT = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_CONNECT = re.compile(rb"[0-9]{1,10}")
_PLAIN = re.compile(rb"([0-9]{1,9}(?:\.[0-9]{1,9})?)(s|ms)?")


def caller_deadline(
    headers: Iterable[tuple[bytes, bytes]], *, maximum: timedelta = MAXIMUM
) -> rpc.Deadline | None:
    """The deadline these headers (ASGI: lower-case names) ask for; None when they name none.

    Of several headers, the shortest time counts. More than `maximum` is `maximum`.

    Raises:
        rpc.InvalidArgument: a value is malformed; the violation's field is the header's name.
        rpc.DeadlineExceeded: the time asked for is 0.
    """
    seconds: float | None = None
    for name, value in headers:
        read = _READ.get(name)
        if read is None:
            continue
        asked = read(value.strip(b" \t"))
        if asked is None:
            wrong = (name.decode("ascii"), f"is not a timeout: {_FORM[name]}")
            raise rpc.InvalidArgument(violations=[wrong], reason="TIMEOUT_MALFORMED")
        seconds = asked if seconds is None else min(seconds, asked)
    if seconds is None:
        return None
    if seconds == 0:
        raise rpc.DeadlineExceeded("The caller gave this call no time at all.")
    return rpc.Deadline.after_seconds(min(seconds, maximum.total_seconds()))


def _grpc(value: bytes) -> float | None:
    match = _GRPC.fullmatch(value)
    return int(match[1]) * _GRPC_UNIT[match[2]] if match else None


def _connect(value: bytes) -> float | None:
    return int(value) / 1e3 if _CONNECT.fullmatch(value) else None


def _plain(value: bytes) -> float | None:
    match = _PLAIN.fullmatch(value)
    if match is None:
        return None
    return float(match[1]) / (1e3 if match[2] == b"ms" else 1.0)


_READ: Mapping[bytes, Callable[[bytes], float | None]] = MappingProxyType(
    {b"grpc-timeout": _grpc, b"connect-timeout-ms": _connect, b"x-request-timeout": _plain}
)
_FORM: Mapping[bytes, str] = MappingProxyType(
    {
        b"grpc-timeout": "give 1 to 8 digits and a unit of H M S m u n, such as 500m",
        b"connect-timeout-ms": "give 1 to 10 digits, milliseconds, such as 500",
        b"x-request-timeout": "give seconds, or a number with the unit s or ms, such as 2.5, 2.5s or 500ms",
    }
)
