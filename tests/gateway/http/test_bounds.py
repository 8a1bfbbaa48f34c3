"""What a connection may not do to the gateway, over raw sockets."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import tracemalloc
from datetime import timedelta

import pytest

from weft.gateway.guards import HeadLimits
from weft.rpc.testing import wait_until

HEAD = b"GET /x HTTP/1.1\r\nHost: a\r\n"
SHORT = timedelta(milliseconds=150)


@contextlib.contextmanager
def at_most(megabytes):
    """Nothing within keeps or builds more than this in memory."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < megabytes * 1_000_000
    finally:
        tracemalloc.stop()


async def still_serves(connect):
    response = await (await connect()).get()
    assert response.status == 200


# Size of the head


async def test_a_hundred_thousand_headers_are_refused(open_server):
    app, _, connect = await open_server()
    client = await connect()
    await client.send(HEAD)
    await client.flood(b"".join(b"X-%d: y\r\n" % n for n in range(1_000)), 100)
    response = await client.response()
    assert (response.status, response.reason) == (431, "HEADERS_TOO_LARGE")
    assert response.headers["connection"] == "close"
    assert app.seen == []
    await still_serves(connect)


async def test_a_header_line_of_ten_megabytes_is_not_kept_in_memory(open_server):
    app, _, connect = await open_server()
    client = await connect()
    with at_most(megabytes=3):
        await client.send(HEAD + b"X: ")
        await client.flood(b"a" * 65_536, 160)
        response = await client.response()
    assert (response.status, response.reason) == (431, "HEADERS_TOO_LARGE")
    assert app.seen == []
    await still_serves(connect)


async def test_a_request_line_without_end_is_refused(open_server):
    app, _, connect = await open_server()
    client = await connect()
    await client.send(b"GET /")
    await client.flood(b"a" * 65_536, 160)
    assert (await client.response()).status == 431
    assert app.seen == []


async def test_blank_lines_without_end_are_refused(open_server):
    _, _, connect = await open_server()
    client = await connect()
    await client.flood(b"\r\n" * 32_768, 160)
    assert (await client.response()).status == 431


@pytest.mark.parametrize(("count", "status"), [(9, 200), (10, 431)])
async def test_the_number_of_headers_is_exact(open_server, count, status):
    _, _, connect = await open_server(head=HeadLimits(count=10))
    client = await connect()
    response = await client.get(headers="".join(f"X-{n}: y\r\n" for n in range(count)))
    assert response.status == status


@pytest.mark.parametrize(("length", "status"), [(990, 200), (991, 431)])
async def test_the_size_of_the_head_is_exact(open_server, length, status):
    # "/x", "Host", "a", "X": 8 bytes
    _, _, connect = await open_server(head=HeadLimits(total_bytes=998))
    client = await connect()
    assert (await client.get(headers=f"X: {'v' * length}\r\n")).status == status


async def test_a_head_in_pieces_is_counted_as_a_whole(open_server):
    _, _, connect = await open_server(head=HeadLimits(total_bytes=998))
    client = await connect()
    await client.send(HEAD + b"X: " + b"v" * 900)
    await still_serves(connect)  # so the first piece is read
    await client.send(b"v" * 91 + b"\r\n\r\n")
    assert (await client.response()).status == 431


async def test_too_many_headers_are_refused_before_the_head_ends(open_server):
    _, _, connect = await open_server(head=HeadLimits(count=10))
    client = await connect()
    await client.send(HEAD + b"X: y\r\n" * 11)
    assert (await client.response()).status == 431


async def test_whole_heads_before_an_unfinished_one_do_not_count_for_it(open_server):
    _, _, connect = await open_server()
    client = await connect()
    whole = HEAD + b"X: " + b"v" * 5_000 + b"\r\n\r\n"
    await client.send(whole * 20 + HEAD)
    for _ in range(20):
        assert (await client.response()).status == 200
    await client.send(b"\r\n")
    assert (await client.response()).status == 200


async def test_heads_of_one_connection_are_counted_apart(open_server):
    _, _, connect = await open_server(head=HeadLimits(total_bytes=998))
    client = await connect()
    for _ in range(20):
        assert (await client.get(headers=f"X: {'v' * 900}\r\n")).status == 200


async def test_trailers_are_bounded_and_never_become_headers(open_server):
    app, _, connect = await open_server()
    client = await connect()
    start = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
    await client.send(start + b"X-Api-Key: forged\r\n\r\n")
    assert (await client.response()).body == b"/x abc"
    assert [name for name, _ in app.headers] == [b"host", b"transfer-encoding"]
    await client.send(start)
    await client.flood(b"".join(b"X-%d: y\r\n" % n for n in range(1_000)), 100)
    assert (await client.response()).status == 431


@pytest.mark.parametrize("flood", [b"0\r\nX: ", b"3;", b"1\r\na\r\n" * 20_000 + b"0\r\nX: "])
async def test_endless_trailer_lines_and_chunk_extensions_are_refused(open_server, flood):
    _, _, connect = await open_server()
    client = await connect()
    with at_most(megabytes=3):
        await client.send(
            b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + flood
        )
        await client.flood(b"a" * 65_536, 160)
        assert (await client.response()).status == 431


async def test_many_small_chunks_are_no_flood(open_server):
    _, _, connect = await open_server()
    client = await connect()
    await client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    await client.send(b"1\r\na\r\n" * 200_000 + b"0\r\n\r\n")
    assert (await client.response()).body == b"/x " + b"a" * 200_000


# Time


@pytest.mark.parametrize("sent", [b"GET /x HT", HEAD, HEAD + b"X: "])
async def test_a_head_that_does_not_end_is_cut(open_server, sent):
    app, server, connect = await open_server(head_time=SHORT, linger=SHORT)
    client = await connect()
    await client.send(sent)
    await client.reader.read()
    await wait_until(lambda: server.connections == 0)
    assert app.seen == []


async def test_dripping_a_head_byte_by_byte_does_not_prolong_its_time(open_server):
    _, server, connect = await open_server(head_time=SHORT)
    client = await connect()
    await client.get()
    dripped = 0

    async def drip():
        nonlocal dripped
        while True:
            await client.send(HEAD[dripped : dripped + 1] or b"x")
            dripped += 1
            await asyncio.sleep(0.02)  # the pace of the attack; nothing waits for it

    dripping = asyncio.create_task(drip())
    response = await client.response()
    assert (response.status, response.reason) == (408, "REQUEST_TOO_SLOW")
    dripping.cancel()
    await asyncio.gather(dripping, return_exceptions=True)
    assert 2 < dripped < 20
    client.close()
    await wait_until(lambda: server.connections == 0)


async def test_a_silent_connection_is_closed_without_a_word(open_server):
    _, _, connect = await open_server(head_time=SHORT)
    assert await (await connect()).ended()


async def test_a_body_that_does_not_end_is_cut_and_its_request_ends(open_server):
    app, _, connect = await open_server(body_time=SHORT, linger=timedelta(seconds=30))
    client = await connect()
    await client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
    assert (await client.response()).status == 408
    await wait_until(lambda: app.left == 1)


async def test_a_slow_answer_is_not_cut_by_the_times_of_requests(open_server):
    app, _, connect = await open_server(head_time=SHORT, body_time=SHORT)
    client = await connect()
    await client.send(b"POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" + HEAD)
    await wait_until(lambda: app.held == 1)
    idle = await connect()  # its end tells that the times have passed
    await idle.ended()
    app.released.set()
    assert (await client.response()).body == b"/hold abc"
    await client.send(b"\r\n")
    assert (await client.response()).body == b"/x "


async def test_a_head_begun_during_an_answer_has_its_time_after_it(open_server):
    app, server, connect = await open_server(head_time=SHORT, linger=SHORT)
    client = await connect()
    await client.send(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n" + HEAD)
    await wait_until(lambda: app.held == 1)
    app.released.set()
    assert (await client.response()).body == b"/hold "
    assert (await client.response()).status == 408
    await wait_until(lambda: server.connections == 0)


async def test_an_idle_connection_is_kept_and_then_closed(open_server):
    _, _, connect = await open_server(head_time=SHORT, keep_alive=timedelta(seconds=1))
    client = await connect()
    await client.get()
    idle = await connect()
    await idle.ended()  # longer than the time of a head
    assert (await client.get()).status == 200
    assert await client.ended()


async def test_blank_lines_do_not_keep_a_connection_open(open_server):
    _, _, connect = await open_server(head_time=SHORT)
    client = await connect()
    await client.get()
    await client.send(b"\r\n")
    await client.reader.read()


async def test_a_caller_that_does_not_read_its_answer_is_cut(open_server):
    _, server, connect = await open_server(write_time=SHORT)
    client = await connect()
    client.writer.transport.pause_reading()
    await client.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
    await wait_until(lambda: server.connections == 1)
    await wait_until(lambda: server.connections == 0)


async def test_little_is_made_for_a_caller_that_reads_nothing(open_server):
    app, server, _ = await open_server()
    host, port = server.address.rsplit(":", 1)
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        caller.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(caller, (host, int(port)))
        await loop.sock_sendall(caller, b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        await wait_until(lambda: app.sent > 0)
        before = -1
        while app.sent != before:
            before = app.sent
            await asyncio.sleep(0.2)
    assert app.sent < 500_000
    await wait_until(lambda: server.connections == 0)


async def test_hundreds_of_slow_senders_are_cut_and_keep_nobody_waiting(open_server):
    _, server, connect = await open_server(head_time=timedelta(seconds=2), linger=SHORT)
    slow = []
    for begun in (HEAD, b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Le") * 100:
        slow.append(await connect())
        await slow[-1].send(begun)
    await still_serves(connect)
    for client in slow:
        assert (await client.response()).status == 408
        client.close()
    await wait_until(lambda: server.connections == 1)  # who was served may ask again


# Bodies


async def test_a_hundred_megabytes_are_refused_before_they_are_sent(open_server):
    _, _, connect = await open_server()
    client = await connect()
    await client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
    response = await client.response()
    assert response.status == 413
    assert response.headers["connection"] == "close"


async def test_a_caller_that_sends_them_all_the_same_gets_to_read_the_answer(open_server):
    _, _, connect = await open_server(linger=timedelta(seconds=30))
    client = await connect()
    with at_most(megabytes=10):
        await client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
        assert await client.flood(b"a" * 1_000_000, 100) == 100
        assert (await client.response()).status == 413
    await still_serves(connect)


async def test_a_hundred_megabytes_in_chunks_are_refused_on_the_way(open_server):
    _, _, connect = await open_server()
    client = await connect()
    with at_most(megabytes=10):
        await client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        await client.flood(b"10000\r\n" + b"a" * 65_536 + b"\r\n", 1_600)
        assert (await client.response()).status == 413
    await still_serves(connect)


async def test_the_rest_of_a_refused_body_is_read_only_for_a_while(open_server):
    _, server, connect = await open_server(linger=SHORT)
    client = await connect()
    await client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
    assert (await client.response()).status == 413
    await wait_until(lambda: server.connections == 0)


async def test_a_body_that_comes_after_its_answer_is_not_the_next_request(open_server):
    _, _, connect = await open_server()
    client = await connect()
    await client.send(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n")
    assert (await client.response()).status == 401
    await client.send(b"abc")
    assert (await client.get()).body == b"/x "


async def test_continue_is_told_only_for_a_body_that_is_wanted(open_server):
    _, _, connect = await open_server()
    expect = b"POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    client = await connect()
    await client.send(expect % 3)
    assert (await client.response()).status == 100
    await client.send(b"abc")
    assert (await client.response()).body == b"/x abc"
    await client.send(expect % 100_000_000)
    assert (await client.response()).status == 413


# Pipelining


async def test_pipelined_requests_are_answered_in_order(open_server):
    _, _, connect = await open_server()
    client = await connect()
    await client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(20)))
    assert [(await client.response()).body for _ in range(20)] == [b"/%d " % n for n in range(20)]


async def test_a_pipeline_without_end_is_cut_after_what_is_owed(open_server):
    app, _, connect = await open_server(pipeline=8)
    client = await connect()
    await client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(5_000)))
    for n in range(9):
        response = await client.response()
        assert response.body == b"/%d " % n
    assert response.headers["connection"] == "close"
    assert await client.ended()
    assert len(app.seen) == 9


async def test_rubbish_behind_a_request_does_not_spoil_its_answer(open_server):
    app, _, connect = await open_server()
    client = await connect()
    await client.send(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n\x00\x01rubbish\r\n\r\n")
    await wait_until(lambda: app.held == 1)
    app.released.set()
    assert (await client.response()).body == b"/hold "
    assert await client.ended()


# Bad HTTP


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",  # HTTP/2 with prior knowledge
        b"HELLO / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nBad Header: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\n folded: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",  # smuggling
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -3\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_bad_http_is_a_clear_error_and_the_end(open_server, sent):
    _, _, connect = await open_server()
    client = await connect()
    await client.send(sent)
    response = await client.response()
    assert (response.status, response.reason) == (400, "MALFORMED_HTTP")
    assert await client.ended()
    await still_serves(connect)


async def test_an_upgrade_nobody_offers_is_answered_as_plain_http(open_server):
    _, _, connect = await open_server()
    client = await connect()
    response = await client.get(headers="Connection: Upgrade\r\nUpgrade: websocket\r\n")
    assert response.body == b"/x "


async def test_one_connection_too_many_is_told_so(open_server):
    _, server, connect = await open_server(connections=2)
    held = [await connect(), await connect()]
    for client in held:
        await client.get()
    extra = await connect()
    response = await extra.response()
    assert (response.status, response.reason) == (503, "TOO_MANY_CONNECTIONS")
    assert response.headers["retry-after"] == "1"
    for client in [*held, extra]:
        client.close()
    await wait_until(lambda: server.connections == 0)
    await still_serves(connect)


async def test_there_are_fewer_connections_where_there_are_fewer_files(open_server):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (257, hard))
    try:
        _, _, connect = await open_server()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (await (await connect()).get()).status == 200
    assert (await (await connect()).response()).reason == "TOO_MANY_CONNECTIONS"


async def test_small_answers_are_sent_without_delay(open_server):
    _, server, connect = await open_server()
    client = await connect()
    await client.get()
    (connection,) = server._state.connections
    option = connection.transport.get_extra_info("socket").getsockopt
    assert option(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
