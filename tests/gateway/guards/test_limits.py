from __future__ import annotations

import pytest

from weft import rpc
from weft.gateway.guards import PayloadTooLarge, read_body


class Caller:
    """The other end of an ASGI connection."""

    def __init__(self, *chunks, leaves=False):
        self.messages = [{"type": "http.request", "body": c, "more_body": True} for c in chunks]
        if leaves:
            self.messages.append({"type": "http.disconnect"})
        elif self.messages:
            self.messages[-1]["more_body"] = False
        else:
            self.messages.append({"type": "http.request"})
        self.taken = 0

    async def receive(self):
        self.taken += 1
        return self.messages[self.taken - 1]


@pytest.mark.parametrize("chunks", [(), (b"",), (b"12345678",), (b"1234", b"", b"5678")])
async def test_a_body_up_to_the_limit_is_read_whole(chunks):
    assert await read_body(Caller(*chunks).receive, [], limit=8) == b"".join(chunks)


@pytest.mark.parametrize("length", [b"9", b"100000000", b"9" * 5_000])
async def test_an_announced_length_is_refused_before_reading(length):
    caller = Caller(b"123456789")
    with pytest.raises(PayloadTooLarge):
        await read_body(caller.receive, [(b"content-length", length)], limit=8)
    assert caller.taken == 0


@pytest.mark.parametrize("chunks", [(b"123456789",), (b"1234", b"5678", b"9", b"never read")])
async def test_an_unannounced_body_is_refused_when_it_has_grown_too_large(chunks):
    caller = Caller(*chunks)
    with pytest.raises(PayloadTooLarge):
        await read_body(caller.receive, [(b"transfer-encoding", b"chunked")], limit=8)
    assert caller.taken == min(len(chunks), 3)


async def test_a_caller_that_leaves_is_a_cancellation():
    with pytest.raises(rpc.Cancelled):
        await read_body(Caller(leaves=True).receive, [])
    with pytest.raises(rpc.Cancelled):
        await read_body(Caller(b"1234", leaves=True).receive, [(b"content-length", b"8")])


def test_too_large_is_no_invitation_to_retry():
    error = PayloadTooLarge()
    assert isinstance(error, rpc.InvalidArgument)
    assert (error.http_status, error.reason) == (413, "PAYLOAD_TOO_LARGE")
