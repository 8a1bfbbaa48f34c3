"""Peers that say exactly what a test wants, most of it wrong: the call fails clearly, and nothing else happens."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Callable
from itertools import pairwise

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.gateway.dataplane.agents import (
    DONE,
    OK,
    SETTINGS,
    begin,
    data,
    head,
    heard,
    mesh_of,
    peer,
    trailers,
    unary,
)

from weft.gateway.dataplane import Call, CallFailed, frames, hpack
from weft.gateway.dataplane.connection import Connection
from weft.gateway.dataplane.inbox import prefixed
from weft.rpc.testing import wait_until

C = grpc.StatusCode


async def outcome(*said: bytes, seconds: float = 2.0) -> bytes | CallFailed:
    """What a call comes to whose agent answers it with these octets."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SETTINGS)
        await heard(reader, frames.DATA)
        writer.write(b"".join(said))

    async with peer(talk) as address, mesh_of(address) as mesh:
        try:
            return (await unary(mesh, "Echo", b"hello", seconds=seconds))[0]
        except CallFailed as failed:
            return failed
        finally:
            for connection in mesh._connections:
                assert not connection._calls


async def test_the_plainest_answer() -> None:
    assert await outcome(head(), data(b"hi"), trailers()) == b"hi"


async def test_all_that_may_stand_between() -> None:
    block = OK + hpack.literal(b"x-a", b"b" * 300)
    parts = (
        frames.frame(frames.PRIORITY, 0, 1, bytes(5)),
        frames.frame(0xEE, 0xFF, 1, b"of an extension"),
        frames.frame(frames.HEADERS, frames.END_HEADERS, 1, hpack.named(8, b"100")),
        frames.frame(
            frames.HEADERS,
            frames.PADDED | frames.PRIORITIZED,
            1,
            b"\x03" + bytes(5) + block[:9] + bytes(3),
        ),
        frames.frame(frames.CONTINUATION, 0, 1, block[9:20]),
        frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, block[20:]),
        frames.frame(frames.DATA, frames.PADDED, 1, b"\x04" + prefixed(b"hi")[:3] + bytes(4)),
        frames.frame(frames.PING, 0, 0, b"pingping"),
        frames.frame(frames.SETTINGS, 0, 0, struct.pack(">HIHI", 0xABCD, 7, 5, 20_000)),
        frames.frame(frames.DATA, 0, 1, b""),
        frames.frame(frames.DATA, 0, 1, prefixed(b"hi")[3:]),
        frames.frame(frames.HEADERS, frames.END_STREAM, 1, b"\x20" + DONE),
        frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, b""),
        data(b"of a call that is over"),
    )
    assert await outcome(*parts) == b"hi"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        pytest.param(
            [trailers(block=OK + hpack.literal(b"grpc-status", b"7"))],
            C.PERMISSION_DENIED,
            id="trailers only",
        ),
        pytest.param([head(), trailers()], C.INTERNAL, id="no message"),
        pytest.param([head(), data(b"a"), data(b"b"), trailers()], C.INTERNAL, id="two messages"),
        pytest.param([data(b"a")], C.INTERNAL, id="message first"),
        pytest.param([head(), head()], C.INTERNAL, id="headers twice"),
        pytest.param([head(), trailers(block=OK)], C.UNKNOWN, id="no status"),
        pytest.param(
            [head(), trailers(block=hpack.literal(b"grpc-status", b"99"))],
            C.UNKNOWN,
            id="unknown status",
        ),
        pytest.param(
            [head(), trailers(block=hpack.literal(b"grpc-status", b"x"))], C.UNKNOWN, id="no number"
        ),
        pytest.param(
            [head(), frames.frame(0, 1, 1, prefixed(b"a"))], C.UNKNOWN, id="end without status"
        ),
        pytest.param(
            [head(), frames.frame(0, 0, 1, prefixed(b"abc")[:6]), trailers()],
            C.INTERNAL,
            id="cut off",
        ),
        pytest.param(
            [head(), frames.frame(0, 0, 1, b"\1\0\0\0\1a"), trailers()],
            C.INTERNAL,
            id="packed by nobody",
        ),
        pytest.param(
            [
                head(block=OK + hpack.literal(b"grpc-encoding", b"gzip")),
                frames.frame(0, 0, 1, b"\1\0\0\0\1a"),
                trailers(),
            ],
            C.INTERNAL,
            id="packed badly",
        ),
        pytest.param(
            [head(), frames.frame(0, 0, 1, b"\0\xff\xff\xff\xff")], C.RESOURCE_EXHAUSTED, id="4 GB"
        ),
        pytest.param(
            [head(block=OK + hpack.literal(b"x", b"y" * 16_350))],
            C.RESOURCE_EXHAUSTED,
            id="much metadata",
        ),
        pytest.param([head(block=hpack.indexed(14))], C.UNKNOWN, id="HTTP 500"),
        pytest.param([head(block=hpack.named(8, b"503"))], C.UNAVAILABLE, id="HTTP 503"),
        pytest.param([head(block=hpack.indexed(13))], C.UNIMPLEMENTED, id="HTTP 404"),
        pytest.param(
            [head(block=hpack.indexed(8) + hpack.named(31, b"text/html"))], C.UNKNOWN, id="HTML"
        ),
        pytest.param([frames.reset(1, 7)], C.UNAVAILABLE, id="refused"),
        pytest.param([frames.reset(1, 8)], C.CANCELLED, id="cancelled"),
        pytest.param([frames.reset(1, 2)], C.INTERNAL, id="internal"),
        pytest.param([frames.reset(1, 11)], C.RESOURCE_EXHAUSTED, id="calm"),
        pytest.param([frames.reset(1, 12)], C.PERMISSION_DENIED, id="security"),
        pytest.param([frames.reset(1, 9999)], C.INTERNAL, id="any"),
    ],
)
async def test_a_call_that_goes_wrong(said: list[bytes], code: grpc.StatusCode) -> None:
    failed = await outcome(*said)
    assert isinstance(failed, CallFailed)
    assert failed.code() is code
    assert failed.unseen == (said == [frames.reset(1, 7)])


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="another protocol"),
        pytest.param(frames.HEAD.pack(1, 0, 0, 0, 1), id="a huge frame"),
        pytest.param(data(b"a", 3), id="data of a stream nobody opened"),
        pytest.param(head(2), id="headers of a pushed stream"),
        pytest.param(data(b"a", 0), id="data of no stream"),
        pytest.param(frames.reset(5, 8), id="reset of a stream nobody opened"),
        pytest.param(frames.frame(frames.RST_STREAM, 0, 1, b"a"), id="short reset"),
        pytest.param(frames.frame(frames.PUSH_PROMISE, 4, 1, bytes(4)), id="push"),
        pytest.param(frames.frame(frames.SETTINGS, 0, 1), id="settings of a stream"),
        pytest.param(frames.frame(frames.SETTINGS, 0, 0, b"abc"), id="short settings"),
        pytest.param(frames.settings({frames.INITIAL_WINDOW_SIZE: 2**31}), id="window too large"),
        pytest.param(frames.settings({frames.MAX_FRAME_SIZE: 1}), id="frames too small"),
        pytest.param(frames.settings({frames.ENABLE_PUSH: 1}), id="push enabled"),
        pytest.param(frames.window_update(0, 0), id="grows by nothing"),
        pytest.param(frames.window_update(0, 2**31 - 1), id="overflow of the connection's window"),
        pytest.param(frames.window_update(1, 2**31 - 1), id="overflow of a stream's window"),
        pytest.param(frames.frame(frames.WINDOW_UPDATE, 0, 0, b"a"), id="short window"),
        pytest.param(frames.frame(frames.PING, 0, 0, b"a"), id="short ping"),
        pytest.param(frames.frame(frames.GOAWAY, 0, 0, b"a"), id="short goaway"),
        pytest.param(frames.frame(frames.CONTINUATION, 4, 1, b"a"), id="continuation of nothing"),
        pytest.param(frames.frame(frames.HEADERS, 0, 1, OK) + data(b"a"), id="block interrupted"),
        pytest.param(
            frames.frame(frames.HEADERS, 0, 1, OK)
            + frames.frame(frames.CONTINUATION, 0, 1, b"\0" * 9000) * 100,
            id="block without end",
        ),
        pytest.param(frames.frame(frames.DATA, frames.PADDED, 1, b"\xff"), id="padding"),
        pytest.param(head(block=b"\xff\xff\xff\xff\xff\xff\xff"), id="integer without end"),
        pytest.param(head(block=b"\xc0"), id="dynamic table"),
        pytest.param(head(block=b"\x3f\xe1\x1f"), id="a dynamic table of 4,096"),
        pytest.param(head(block=b"\x00\x05ab"), id="text cut off"),
        pytest.param(head(block=b"\x00\x84\xff\xff\xff\xff\x00"), id="Huffman's end of string"),
        pytest.param(head(block=b"\x80"), id="entry 0"),
        pytest.param(head() + data(b"x" * 16_000) * 17, id="more than the window"),
    ],
)
async def test_a_connection_that_goes_wrong(said: bytes) -> None:
    failed = await outcome(said)
    assert isinstance(failed, CallFailed)
    if said.startswith(head()):  # the one answer that has begun well
        assert failed.code() in {C.UNAVAILABLE, C.INTERNAL}
    else:
        assert failed.code() is C.UNAVAILABLE
    assert not failed.unseen


async def test_a_flood_that_asks_for_answers_and_reads_none() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SETTINGS)
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(frames.frame(frames.PING, 0, 0, bytes(8)) * 1000)
                await writer.drain()

    async with peer(talk) as address, mesh_of(address) as mesh:
        with pytest.raises(CallFailed) as failed:
            await unary(mesh, "Echo", seconds=30)
        assert failed.value.code() is C.UNAVAILABLE


async def test_an_agent_that_pings_amid_a_large_request_is_answered() -> None:
    message = bytes(8 * 1024 * 1024)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frames.settings({frames.INITIAL_WINDOW_SIZE: frames.LARGEST}))
        writer.write(frames.window_update(0, frames.LARGEST - frames.DEFAULT_WINDOW))
        await heard(reader, frames.DATA)
        await wait_until(lambda: any(connection._full for connection in mesh._connections))
        writer.write(frames.frame(frames.PING, 0, 0, b"question") * 100)
        left = len(prefixed(message)) - frames.DEFAULT_FRAME
        answers = 0
        while left or answers < 100:
            _, _, payload = await heard(reader, frames.DATA, frames.PING)
            answer = payload == b"question"
            answers += answer
            left -= 0 if answer else len(payload)
        writer.write(head() + data(b"hi") + trailers())

    async with peer(talk) as address, mesh_of(address) as mesh:
        assert (await unary(mesh, "Echo", message, seconds=30))[0] == b"hi"


async def test_no_more_calls_are_open_than_the_agent_takes() -> None:
    most = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal most
        writer.write(frames.settings({frames.MAX_CONCURRENT_STREAMS: 4}))
        waiting: list[int] = []
        while True:
            try:
                async with asyncio.timeout(0.02):
                    waiting.append((await heard(reader, frames.DATA))[0])
            except TimeoutError:
                for stream in waiting:
                    writer.write(head(stream) + data(b"hi", stream) + trailers(stream))
                waiting.clear()
            most = max(most, len(waiting))

    async with peer(talk) as address, mesh_of(address) as mesh:
        await asyncio.gather(*(unary(mesh, "Echo") for _ in range(50)))
        assert most == 4


async def test_an_agent_that_goes_away_ends_what_it_has_seen_and_nothing_else() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SETTINGS)
        for _ in range(3):
            await heard(reader, frames.DATA)
        writer.write(frames.frame(frames.GOAWAY, 0, 0, struct.pack(">II", 3, 0)))
        await asyncio.sleep(0.1)
        for stream in (1, 3):
            writer.write(head(stream) + data(b"hi", stream) + trailers(stream))

    async with peer(talk) as address, mesh_of(address) as mesh:
        calls = [asyncio.create_task(unary(mesh, "Echo")) for _ in range(3)]
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert [each[0] for each in ended[:2]] == [b"hi", b"hi"]
        assert ended[2].code() is C.UNAVAILABLE
        assert ended[2].unseen


async def test_metadata_that_is_too_large_ends_its_call_and_no_other() -> None:
    large = frames.headers(1, OK + hpack.literal(b"x", bytes(100_000)), frames.DEFAULT_FRAME)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SETTINGS)
        for _ in range(2):
            await heard(reader, frames.DATA)
        writer.write(large + head(3) + data(b"hi", 3) + trailers(3))

    async with peer(talk) as address, mesh_of(address) as mesh:
        calls = [asyncio.create_task(unary(mesh, "Echo")) for _ in range(2)]
        failed, answered = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(failed, CallFailed)
        assert failed.code() is C.RESOURCE_EXHAUSTED
        assert isinstance(answered, tuple)
        assert answered[0] == b"hi"


async def test_an_agent_is_told_at_once_that_no_dynamic_table_is_used() -> None:
    """One whose settings allow a smaller one than usual may close the connection otherwise (RFC 9113, 4.3.1)."""
    blocks: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frames.settings({frames.HEADER_TABLE_SIZE: 0}))
        for stream in (1, 3):
            blocks.append((await heard(reader, frames.HEADERS))[2])
            writer.write(head(stream) + data(b"hi", stream) + trailers(stream))

    async with peer(talk) as address, mesh_of(address) as mesh:
        for _ in range(2):
            await unary(mesh, "Echo")
    first, second = (hpack.decode(block, 10_000) for block in blocks)
    assert blocks[0].startswith(hpack.NO_TABLE)
    assert not blocks[1].startswith(hpack.NO_TABLE)
    assert first[:4] == second[:4]


async def test_windows_are_kept_to() -> None:
    got = bytearray()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frames.settings({frames.INITIAL_WINDOW_SIZE: 10}))
        stream, flags = 0, 0
        room = 10
        while not flags & frames.END_STREAM:
            stream, flags, payload = await heard(reader, frames.DATA)
            got.extend(payload)
            room -= len(payload)
            assert room >= 0
            if not room:
                writer.write(frames.window_update(stream, 100))
                room = 100
        writer.write(head() + data(b"hi") + trailers())

    async with peer(talk) as address, mesh_of(address) as mesh:
        message = bytes(range(256)) * 40
        assert (await unary(mesh, "Echo", message))[0] == b"hi"
        assert got == prefixed(message)


async def test_an_answer_before_the_request_is_complete() -> None:
    reset = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SETTINGS)
        await heard(reader, frames.HEADERS)
        writer.write(head() + data(b"enough") + trailers())
        await heard(reader, frames.RST_STREAM)
        reset.set()

    async with peer(talk) as address, mesh_of(address) as mesh:
        call = await begin(mesh, "Chat")
        assert await call.receive() == b"enough"
        assert await call.receive() is None
        await asyncio.wait_for(reset.wait(), 2)


class Wire(asyncio.Transport):
    """What a connection writes, kept."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close


@pytest.fixture
def connected() -> Callable[[], tuple[Connection, Wire]]:
    def connect() -> tuple[Connection, Wire]:
        connection, wire = Connection(set()), Wire()
        connection.connection_made(wire)
        connection.data_received(SETTINGS)
        return connection, wire

    return connect


async def sending(connection: Connection, message: bytes | None = None) -> Call:
    """A call that has begun, with its only message or none yet."""
    call = Call(b"", None, unary=False)
    if message is not None:
        call.put(message, last=True)
    connection.begin(call)
    await asyncio.sleep(0)  # it is written
    return call


async def test_a_call_ends_though_its_window_is_below_zero(
    connected: Callable[[], tuple[Connection, Wire]],
) -> None:
    connection, wire = connected()
    call = await sending(connection)
    call.put(bytes(995), last=False)
    connection.data_received(frames.settings({frames.INITIAL_WINDOW_SIZE: 10}))
    assert call.room < 0
    call.close_sending()
    await asyncio.sleep(0)
    assert wire.written.endswith(frames.frame(frames.DATA, frames.END_STREAM, 1))
    assert connection._room == frames.DEFAULT_WINDOW - 1000


async def test_a_call_ends_though_the_connection_has_no_room(
    connected: Callable[[], tuple[Connection, Wire]],
) -> None:
    connection, wire = connected()
    one, other = await sending(connection), await sending(connection)
    one.put(bytes(frames.DEFAULT_WINDOW - 5), last=False)
    assert not connection._room
    connection.pause_writing()
    other.close_sending()
    connection.resume_writing()
    await asyncio.sleep(0)
    assert wire.written.endswith(frames.frame(frames.DATA, frames.END_STREAM, other.stream))


async def test_small_messages_that_nobody_has_read_count_in_full(
    connected: Callable[[], tuple[Connection, Wire]],
) -> None:
    connection, wire = connected()
    call = await sending(connection, b"")
    connection.data_received(head() + 3000 * frames.frame(frames.DATA, 0, 1, 10 * prefixed(b"")))
    before = len(wire.written)
    while len(wire.written) == before:
        assert await call.receive() == b""
        await asyncio.sleep(0)
    kind, granted = wire.written[before + 3], frames.number(wire.written, before + 9)
    assert kind == frames.WINDOW_UPDATE
    unread = 5 * len(call._inbox)
    assert granted == 150_000 - unread
    assert unread < 20_000


async def test_no_more_pings_than_servers_take_who_are_not_set_up_for_them(
    connected: Callable[[], tuple[Connection, Wire]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each beyond the first two, and sooner than after 5 minutes, counts against us until the server sends headers or data."""
    monkeypatch.setattr("weft.gateway.dataplane.connection._KEEPALIVE", 0.0)
    connection, wire = connected()
    ping = frames.frame(frames.PING, 0, 0, bytes(8))

    async def silence() -> int:
        """Pings while nothing comes but their answers, however many calls begin."""
        before = wire.written.count(ping)
        for _ in range(5):
            await sending(connection, b"")
            connection._look()
            await asyncio.sleep(0)
            connection.data_received(frames.frame(frames.PING, frames.ACK, 0, bytes(8)))
        return wire.written.count(ping) - before

    assert await silence() == 2
    connection.data_received(head())
    assert await silence() == 2
    assert await silence() == 0
    connection.connection_lost(None)


async def test_calls_take_turns_and_none_takes_two(
    connected: Callable[[], tuple[Connection, Wire]],
) -> None:
    connection, wire = connected()
    connection.data_received(frames.settings({frames.INITIAL_WINDOW_SIZE: frames.LARGEST}))
    connection.data_received(frames.window_update(0, frames.LARGEST - frames.DEFAULT_WINDOW))
    calls = [Call(b"", None, unary=False) for _ in range(8)]
    for call in calls:
        call.put(bytes(1024 * 1024), last=True)
        connection.begin(call)
    await asyncio.sleep(0)  # that is the first turn of each
    most, before = 0, len(wire.written)
    while any(call.unsent for call in calls):
        await asyncio.sleep(0)
        most, before = max(most, len(wire.written) - before), len(wire.written)
    assert most == 8 * 4 * (frames.HEAD.size + frames.DEFAULT_FRAME)


ANSWER = (
    head() + data(b"a" * 40_0) + frames.frame(frames.PING, 0, 0, bytes(8)) + data(b"") + trailers()
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, len(ANSWER))))
async def test_it_is_all_the_same_how_octets_arrive(
    connected: Callable[[], tuple[Connection, Wire]], cuts: list[int]
) -> None:
    connection, _ = connected()
    call = Call(b"", None, unary=False)
    call.put(b"", last=True)
    connection.begin(call)
    places = sorted({0, *cuts, len(ANSWER)})
    for start, end in pairwise(places):
        connection.data_received(ANSWER[start:end])
    assert [await call.receive() for _ in range(3)] == [b"a" * 400, b"", None]


@settings(
    deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    said=st.lists(
        st.builds(
            frames.frame,
            st.integers(0, 12),
            st.sampled_from([0, 1, 4, 5, 8, 0x2D, 0xFF]),
            st.sampled_from([0, 1, 1, 1, 2, 3]),
            st.one_of(st.binary(max_size=60), st.just(OK), st.just(DONE), st.just(prefixed(b"a"))),
        ),
        max_size=12,
    )
)
async def test_whatever_a_peer_says_a_call_ends_or_goes_on(
    connected: Callable[[], tuple[Connection, Wire]], said: list[bytes]
) -> None:
    connection, wire = connected()
    call = Call(b"", None, unary=True)
    call.put(b"", last=True)
    connection.begin(call)
    for each in said:
        if not wire.closed:
            connection.data_received(each)
    connection.connection_lost(None)
    assert call.done
    assert not connection._calls
    with contextlib.suppress(CallFailed):
        assert isinstance(await call.answer(), bytes)


async def test_connections_are_not_kept(
    connected: Callable[[], tuple[Connection, Wire]],
) -> None:
    connection, wire = connected()
    connection.retire()
    assert wire.closed
    await wait_until(connection.gone.done)
