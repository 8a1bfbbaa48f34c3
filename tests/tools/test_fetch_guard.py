"""Where a page may not be read from, in every way to say it; a server inside hears nothing of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests.tools.callers import serving, signed
from tests.tools.web import INSIDE, PUBLIC, Site, answer, redirect, site

from weft import rpc
from weft.agents.tools import MemoryAudit, Toolbox
from weft.agents.tools.fetch import FetchRefused, FetchSettings, fetch
from weft.tools.v1.fetch_pb2 import FetchRequest, FetchResponse

# As free as it can be set up, but for the addresses.
FREE = FetchSettings(plaintext=True, ports=None)
WITH_PUBLIC = FetchSettings(plaintext=True, ports=None, networks=(f"{PUBLIC}/32",))
ANN = signed("user:ann", "tools.fetch")

# {port}: of a server on 127.0.0.1, {six}: of one on ::1.
REFUSED = {
    "loopback": "http://127.0.0.1:{port}/",
    "loopback, another": "http://127.8.8.8:{port}/",
    "loopback, short": "http://127.1:{port}/",
    "loopback, three parts": "http://127.0.1:{port}/",
    "loopback, decimal": "http://2130706433:{port}/",
    "loopback, hexadecimal": "http://0x7f000001:{port}/",
    "loopback, hexadecimal parts": "http://0x7f.0x0.0x0.0x1:{port}/",
    "loopback, octal": "http://017700000001:{port}/",
    "loopback, octal parts": "http://0177.0.0.01:{port}/",
    "loopback, long octal": "http://00000177.0.0.1:{port}/",
    "loopback, mixed": "http://0x7f.0.1:{port}/",
    "loopback, a dot at the end": "http://127.0.0.1.:{port}/",
    "loopback, in percents": "http://%31%32%37.0.0.1:{port}/",
    "loopback, wide digits": "http://\uff11\uff12\uff17.0.0.1:{port}/",
    "loopback, digits in circles": "http://①②⑦.⓪.⓪.①:{port}/",
    "loopback, wide dots": "http://127。0。0。1:{port}/",
    "loopback, its name": "http://localhost:{port}/",
    "loopback, its name, a dot at the end": "http://localhost.:{port}/",
    "loopback, its name in capitals": "http://LOCALHOST:{port}/",
    "nothing": "http://0:{port}/",
    "nothing, four parts": "http://0.0.0.0:{port}/",
    "this network": "http://0.1.2.3/",
    "private, 10": "http://10.0.0.1/",
    "private, 10, decimal": "http://167772161/",
    "private, 172.16": "http://172.16.0.1/",
    "private, 172.31": "http://172.31.255.254/",
    "private, 192.168": "http://192.168.1.1/",
    "link-local": "http://169.254.1.1/",
    "link-local, what clouds tell of machines": "http://169.254.169.254/latest/meta-data/",
    "link-local, the same, decimal": "http://2852039166/latest/meta-data/",
    "link-local, the same, hexadecimal": "http://0xa9fea9fe/latest/meta-data/",
    "shared (CGNAT)": "http://100.64.0.1/",
    "shared (CGNAT), its end": "http://100.127.255.254/",
    "a cloud's own in shared": "http://100.100.100.200/latest/meta-data/",
    "protocols": "http://192.0.0.8/",
    "protocols, anycast to the NAT": "http://192.0.0.9/",
    "6to4 relay": "http://192.88.99.1/",
    "benchmarks": "http://198.18.0.1/",
    "documentation": "http://203.0.113.1/",
    "multicast": "http://224.0.0.1/",
    "multicast, its end": "http://239.255.255.250/",
    "reserved": "http://240.0.0.1/",
    "broadcast": "http://255.255.255.255/",
    "v6 loopback": "http://[::1]:{six}/",
    "v6 loopback, written out": "http://[0:0:0:0:0:0:0:1]:{six}/",
    "v6 nothing": "http://[::]:{six}/",
    "v6 mapped": "http://[::ffff:127.0.0.1]:{port}/",
    "v6 mapped, hexadecimal": "http://[::ffff:7f00:1]:{port}/",
    "v6 mapped, private": "http://[::ffff:10.0.0.1]/",
    "v6 mapped, metadata": "http://[::ffff:a9fe:a9fe]/",
    "v6 compatible": "http://[::127.0.0.1]:{port}/",
    "v6 translated": "http://[::ffff:0:127.0.0.1]:{port}/",
    "v6 NAT64": "http://[64:ff9b::127.0.0.1]/",
    "v6 NAT64, metadata": "http://[64:ff9b::a9fe:a9fe]/",
    "v6 NAT64 of the local network": "http://[64:ff9b:1::8.8.8.8]/",
    "v6 NAT64 of the local network, its own form": "http://[64:ff9b:1:7f00:0:100:808:808]/",
    "v6 6to4": "http://[2002:7f00:1::1]/",
    "v6 6to4, private": "http://[2002:c0a8:101::1]/",
    "v6 Teredo": "http://[2001:0:4136:e378:8000:63bf:80ff:fffe]/",
    "v6 ISATAP": "http://[2606:4700::5efe:10.0.0.1]/",
    "v6 ISATAP, of a private id": "http://[2606:4700::200:5efe:192.168.0.1]/",
    "v6 link-local": "http://[fe80::1]/",
    "v6 link-local with a zone": "http://[fe80::1%25lo]/",
    "v6 site-local": "http://[fec0::1]/",
    "v6 unique local": "http://[fc00::1]/",
    "v6 unique local, metadata": "http://[fd00:ec2::254]/latest/meta-data/",
    "v6 multicast": "http://[ff02::1]/",
    "v6 documentation": "http://[2001:db8::1]/",
    "v6 documentation, the newer": "http://[3fff::1]/",
    "v6 discards": "http://[100::1]/",
    "v6 protocols": "http://[2001:1::1]/",
    "v6 ORCHID": "http://[2001:20::1]/",
    "v6 segment routing": "http://[5f00::1]/",
    "userinfo": "http://example.com@127.0.0.1:{port}/",
    "userinfo, public address": "http://user:password@1.1.1.1/",
    "userinfo with a fragment's sign": "http://127.0.0.1:{port}#@example.com/",
    "userinfo with a backslash": "http://example.com\\@127.0.0.1:{port}/",
    "userinfo in percents": "http://example.com%40127.0.0.1:{port}/",
    "two at-signs": "http://a@b@127.0.0.1:{port}/",
    "a file": "file:///etc/passwd",
    "a file of a host": "file://127.0.0.1/etc/passwd",
    "gopher of a public address": "gopher://1.1.1.1/_x",
    "ftp of a public address": "ftp://1.1.1.1/",
    "gopher": "gopher://127.0.0.1:{port}/_x",
    "ftp": "ftp://127.0.0.1:{port}/",
    "dict": "dict://127.0.0.1:{port}/d",
    "data": "data:text/plain,x",
    "a socket": "unix:///var/run/docker.sock",
    "a script": "javascript:alert(1)",
    "no scheme": "//127.0.0.1:{port}/",
    "no host": "http:///127.0.0.1:{port}/",
    "a port that is none": "http://127.0.0.1:99999/",
    "a line's end": "http://127.0.0.1:{port}/\r\nx: y",
    "a tab": "http://127.0.0.1\t:{port}/",
    "a space before": " http://127.0.0.1:{port}/",
    "a zero": "http://127.0.0.1\x00:{port}/",
    "nothing at all": "",
    "too long": "http://1.1.1.1/" + "x" * 2_000,
}


@pytest.fixture
async def inside() -> AsyncIterator[tuple[Site, Site]]:
    """What must never be reached."""
    async with site(INSIDE) as four, site("::1") as six:
        for each in (four, six):
            each.pages["/"] = answer(b"secret")
        yield four, six
        assert four.connections == 0
        assert six.connections == 0


async def read(url: str, settings: FetchSettings = FREE, **further: Any) -> FetchResponse:
    tool = fetch(settings, keeping=None, **further)
    async with Toolbox([tool], audit=MemoryAudit()) as toolbox:
        request = FetchRequest(url=url)
        return await serving(ANN, lambda: toolbox.use("fetch", request, FetchResponse))


def test_there_are_enough_cases() -> None:
    assert len(REFUSED) >= 40
    assert len(set(REFUSED.values())) == len(REFUSED)


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_not_public_is_refused(case, inside) -> None:
    url = REFUSED[case].format(port=inside[0].port, six=inside[1].port)
    with pytest.raises(FetchRefused):
        await read(url)


LEADING_INSIDE = [
    "http://127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "http://localhost:{port}/",
    "http://0x7f000001:{port}/",
    "http://[::1]:{six}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://169.254.169.254/latest/meta-data/",
    "http://example.com@127.0.0.1:{port}/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{port}/",
    "HTTP://127.0.0.1:{port}/",
    "http://10.0.0.1/",
]


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "303 Other", "307 Later", "308 For ever"]
)
@pytest.mark.parametrize("to", LEADING_INSIDE)
async def test_no_redirect_leads_inside(to, status, inside) -> None:
    async with site() as public:
        place = to.format(port=inside[0].port, six=inside[1].port)
        public.pages["/"] = redirect("/again", status)
        public.pages["/again"] = redirect(place, status)
        with pytest.raises(FetchRefused):
            await read(f"{public.url}/", WITH_PUBLIC)
        assert [path for path, _ in public.asked] == ["/", "/again"]


async def test_redirects_are_followed_so_far() -> None:
    async with site() as public:
        for number in range(9):
            public.pages[f"/{number}"] = redirect(f"/{number + 1}")
        public.pages["/9"] = answer(b"here")
        found = await read(f"{public.url}/4", WITH_PUBLIC)
        assert (found.text, found.url) == ("here", f"{public.url}/9")
        with pytest.raises(FetchRefused, match="more than 5 times"):
            await read(f"{public.url}/3", WITH_PUBLIC)
        public.pages["/loop"] = redirect("/loop")
        with pytest.raises(FetchRefused, match="more than 5 times"):
            await read(f"{public.url}/loop", WITH_PUBLIC)
        public.pages["/odd"] = redirect("http://[")
        with pytest.raises(rpc.Error):
            await read(f"{public.url}/odd", WITH_PUBLIC)


async def test_nothing_goes_along_to_the_next_hop() -> None:
    async with site() as public:
        public.pages["/"] = answer(
            status="302 Found", headers={"location": "/next", "set-cookie": "a=b; path=/"}
        )
        public.pages["/next"] = answer(b"here")
        await read(f"{public.url}/", WITH_PUBLIC)
        (_, first), (_, second) = public.asked
    assert first == second
    assert set(first) == {"host", "user-agent", "accept", "accept-encoding", "connection"}


class Names:
    """A resolver that says something else each time it is asked for a name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: Sequence[Sequence[str]]) -> None:
        self.asked: list[str] = []
        self._answers = {name.replace("_", "."): list(given) for name, given in answers.items()}
        loop = asyncio.get_running_loop()
        real = loop.getaddrinfo

        async def look_up(host: Any, port: Any, **further: Any) -> Any:
            name = host.decode() if isinstance(host, bytes) else host
            given = self._answers.get(name)
            if given is None:
                return await real(host, port, **further)
            self.asked.append(name)
            addresses = given.pop(0) if len(given) > 1 else given[0]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

        monkeypatch.setattr(loop, "getaddrinfo", look_up)


async def test_a_name_that_is_bound_anew_leads_where_it_led_when_it_was_checked(
    inside, monkeypatch
) -> None:
    async with site(port=inside[0].port) as public:
        public.pages["/"] = answer(b"public")
        names = Names(monkeypatch, rebinding_test=[[PUBLIC], [INSIDE]])
        found = await read(f"http://rebinding.test:{public.port}/", WITH_PUBLIC)
        assert found.text == "public"
        assert names.asked == ["rebinding.test"]  # once: nobody looks again before connecting
        assert public.asked[0][1]["host"] == f"rebinding.test:{public.port}"
        with pytest.raises(FetchRefused):  # and by then it leads inside
            await read(f"http://rebinding.test:{public.port}/", WITH_PUBLIC)


async def test_a_name_that_is_bound_anew_between_hops_is_found_out(inside, monkeypatch) -> None:
    async with site(port=inside[0].port) as public:
        public.pages["/"] = redirect("/next")
        Names(monkeypatch, rebinding_test=[[PUBLIC], [INSIDE]])
        with pytest.raises(FetchRefused):
            await read(f"http://rebinding.test:{public.port}/", WITH_PUBLIC)
        assert len(public.asked) == 1


@pytest.mark.parametrize(
    "addresses",
    [[PUBLIC, INSIDE], [INSIDE, PUBLIC], ["1.1.1.1", "10.0.0.1"], ["169.254.169.254"], ["0.0.0.0"]],
)
async def test_a_name_is_refused_for_the_sake_of_one_address(
    addresses, inside, monkeypatch
) -> None:
    Names(monkeypatch, several_test=[addresses])
    with pytest.raises(FetchRefused):
        await read(f"http://several.test:{inside[0].port}/", WITH_PUBLIC)


async def test_nobody_finds_out_which_names_there_are_inside(inside, monkeypatch) -> None:
    names = {"there_test": [["10.0.0.1"]], "both_test": [[PUBLIC, INSIDE]], "empty_test": [[]]}
    Names(monkeypatch, **names)
    told = []
    for host in ("there.test", "both.test", "empty.test", "nowhere.invalid", "10.0.0.1"):
        with pytest.raises(rpc.Error) as refused:
            await read(f"http://{host}:{inside[0].port}/", WITH_PUBLIC)
        error = refused.value
        details = [each.SerializeToString() for each in error.details]
        told.append((type(error), error.code, error.reason, error.message, details, error.metadata))
    assert told == [told[0]] * len(told)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("here.test", True),
        ("HERE.test.", True),
        ("a.b.below.test", True),
        ("below.test", False),
        ("nothere.test", False),
        ("here.test.evil.test", False),
        ("xbelow.test", False),
        (PUBLIC, False),
    ],
)
async def test_only_hosts_that_are_named_are_read_and_looked_up(host, allowed, monkeypatch) -> None:
    settings = replace(WITH_PUBLIC, hosts=("here.test", "*.below.test"))
    name = host.lower()
    names = Names(monkeypatch, **{name.replace(".", "_"): [[PUBLIC]]})
    async with site() as public:
        public.pages["/"] = answer(b"public")
        reading = read(f"http://{host}:{public.port}/", settings)
        if allowed:
            assert (await reading).text == "public"
        else:
            with pytest.raises(FetchRefused, match="not one of those that are allowed"):
                await reading
            assert names.asked == []


async def test_a_redirect_to_a_host_that_is_not_named_is_not_followed(monkeypatch) -> None:
    names = Names(monkeypatch, here_test=[[PUBLIC]], there_test=[[PUBLIC]])
    async with site() as public:
        public.pages["/"] = redirect(f"http://there.test:{public.port}/next")
        with pytest.raises(FetchRefused, match="not one of those that are allowed"):
            await read(
                f"http://here.test:{public.port}/", replace(WITH_PUBLIC, hosts=("here.test",))
            )
        assert len(public.asked) == 1
    assert names.asked == ["here.test"]


async def test_no_proxy_of_the_environment_is_used(monkeypatch, inside) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, inside[0].url)
    async with site() as public:
        public.pages["/"] = answer(b"direct")
        assert (await read(f"{public.url}/", WITH_PUBLIC)).text == "direct"


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        (FetchSettings(), "http://1.1.1.1/"),
        (FetchSettings(), "https://1.1.1.1:22/"),
        (FetchSettings(plaintext=True), "http://1.1.1.1:25/"),
        (FetchSettings(plaintext=True), "http://1.1.1.1:6379/"),
        # That http will do for networks of one's own does not make it do for others.
        (FetchSettings(networks=("10.0.0.0/8",)), "http://1.1.1.1/"),
    ],
)
async def test_as_it_comes_only_https_and_its_port(settings, url) -> None:
    with pytest.raises(FetchRefused):
        await read(url, settings)


def test_a_network_that_is_none_is_told_at_once() -> None:
    with pytest.raises(ValueError, match="10.0"):
        fetch(FetchSettings(networks=("10.0.0.1/8",)))
