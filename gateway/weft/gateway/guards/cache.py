"""Answers kept for a while: of skills that say so (`cache_ttl`) and have no side effects.

An answer belongs to who asked, unless the skill says that it is the same for all (`cache_shared`), and to what was
asked: the method, the request in one canonical form, and the metadata sent along. Equal questions at the same time are
asked once. What is too old is kept for when the agent cannot be reached at all.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from google.protobuf import message_factory
from google.protobuf.message import DecodeError

from weft import rpc
from weft.gateway.failures import AgentUnavailable
from weft.gateway.guards.circuit import CircuitOpen
from weft.gateway.metadata import Beside
from weft.gateway.transcoding.catalog import Idempotency, Method
from weft.rpc.call import Call, Metadata

Headers = list[tuple[bytes, bytes]]
Make = Callable[[], Awaitable[tuple[bytes, Beside]]]

_OVERHEAD = 600  # bytes an entry takes beside what it holds
_SHARE = 8  # no entry is larger than this part of the cache
# Metadata that says how to ask, not what.
_NOT_ASKED = frozenset({"cache-control", "idempotency-key"})
_VARY = (b"vary", b"accept, x-goog-fieldmask, authorization, x-api-key")
_VARY_SHARED = (b"vary", b"accept, x-goog-fieldmask")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """How much is kept, and for how long.

    Raises:
        ValueError: a value is below 0.
    """

    max_bytes: int = 64 * 1024 * 1024
    """0: nothing is kept."""
    stale: timedelta = timedelta(hours=1)
    """For how long beyond its time an answer may stand in for an agent that cannot be reached."""

    def __post_init__(self) -> None:
        if self.max_bytes < 0 or self.stale < timedelta(0):
            raise ValueError("the cache's size and the time for stale answers must not be negative")


class Kept:
    """An answer."""

    __slots__ = ("at", "leading", "response", "size", "tag", "trailing")

    def __init__(self, response: bytes, beside: Beside, at: float) -> None:
        self.response = response
        self.leading = beside.leading
        self.trailing = beside.trailing
        self.at = at
        self.tag = b'W/"%s"' % hashlib.blake2b(response, digest_size=12).hexdigest().encode()
        beside_it = sum(len(k) + len(v) for k, v in (*self.leading, *self.trailing))
        self.size = len(response) + beside_it + _OVERHEAD


class Policy:
    """How the answers of one method are kept."""

    __slots__ = ("path", "request", "shared", "ttl")

    def __init__(self, method: Method) -> None:
        self.path = method.path
        self.ttl = method.skill.cache_ttl.total_seconds()
        self.shared = method.skill.cache_shared
        self.request: type[Any] = message_factory.GetMessageClass(method.input)

    def key(self, call: Call, request: bytes, sent: Metadata) -> bytes:
        """What an answer is kept under."""
        try:
            # Fields in order, maps sorted; unknown fields stay, for they are a part of the question.
            asked = self.request.FromString(request).SerializeToString(deterministic=True)
        except DecodeError:
            asked = request
        who = (b"", b"")
        if not self.shared and (identity := call.identity) is not None:
            who = (identity.subject.encode(), identity.tenant.encode())
        digest = hashlib.blake2b(digest_size=32)
        metadata = b"".join(
            part
            for name, value in sorted(sent, key=str)
            if name not in _NOT_ASKED
            for part in _sized(name, value)
        )
        for part in (self.path.encode(), *who, asked, metadata):
            digest.update(b"%d:%s" % (len(part), part))
        return digest.digest()


class ResponseCache:
    """The answers of one gateway; for one event loop.

    Args:
        settings: how much is kept.
        on_use: told the method and what became of it: hit, miss, joined or stale.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        settings: CacheSettings | None = None,
        *,
        on_use: Callable[[str, str], None] = lambda _method, _outcome: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        settings = settings or CacheSettings()
        self._max_bytes = settings.max_bytes
        self._stale = settings.stale.total_seconds()
        self._on_use = on_use
        self._clock = clock
        self._policies: dict[str, Policy] = {}
        self._entries: OrderedDict[bytes, Kept] = OrderedDict()
        self._flights: dict[bytes, _Flight] = {}
        self.bytes = 0

    def use(self, methods: Mapping[str, Method]) -> None:
        """Takes the methods that can be called, by path; forgets all answers, for contracts changed."""
        self._policies = {
            path: Policy(method)
            for path, method in methods.items()
            if self._max_bytes
            and method.skill.cache_ttl > timedelta(0)
            and method.idempotency is Idempotency.NO_SIDE_EFFECTS
            and not method.client_streaming
            and not method.server_streaming
        }
        self._entries.clear()
        self.bytes = 0

    def policy(self, path: str) -> Policy | None:
        """How the answers of a method are kept; None: not at all."""
        return self._policies.get(path)

    async def answer(
        self,
        policy: Policy,
        call: Call,
        request: bytes,
        *,
        beside: Beside,
        headers: Headers,
        control: bytes,
        make: Make,
    ) -> bytes:
        """An answer that is kept, or the one that `make` brings.

        Args:
            policy: of the method.
            call: who asks.
            request: the message.
            beside: what is sent beside it; takes what the answer has.
            headers: takes ETag, Age, Cache-Control, Vary, and Warning where the answer is stale.
            control: the caller's Cache-Control; no-cache asks the agent, no-store keeps nothing.
            make: makes the call.

        Raises:
            rpc.Error: the call failed, and there is no old answer to give instead.
        """
        asked = _directives(control)
        if "no-store" in asked:
            response, made = await make()
            beside.leading, beside.trailing = made.leading, made.trailing
            headers.append((b"cache-control", b"no-store"))
            return response
        key = policy.key(call, request, beside.sent)
        kept = self._entries.get(key)
        now = self._clock()
        outcome = "hit"
        if kept is None or now - kept.at >= min(policy.ttl, _most(asked)):
            try:
                outcome, kept = await self._flown(policy, key, call, make)
            except rpc.Unavailable as failed:
                if not self._stands_in(kept, policy, failed):
                    raise
                outcome = "stale"
        assert kept is not None
        if key in self._entries:
            self._entries.move_to_end(key)
        self._on_use(policy.path[1:], outcome)
        beside.leading, beside.trailing = kept.leading, kept.trailing
        headers += self._headers(policy, kept, stale=outcome == "stale")
        return kept.response

    async def settle(self) -> None:
        """Gives up the calls that are being made."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _stands_in(self, kept: Kept | None, policy: Policy, failed: rpc.Unavailable) -> bool:
        if kept is None or not isinstance(failed, CircuitOpen | AgentUnavailable):
            return False
        return self._clock() - kept.at < policy.ttl + self._stale

    async def _flown(self, policy: Policy, key: bytes, call: Call, make: Make) -> tuple[str, Kept]:
        while True:
            flight = self._flights.get(key)
            if flight is None:
                flight = self._flights[key] = _Flight(self._fetch(policy, key, make))
                flight.task.add_done_callback(functools.partial(self._landed, key))
                return "miss", await flight.wait(call)
            try:
                return "joined", await flight.wait(call)
            except (rpc.DeadlineExceeded, rpc.Cancelled):
                # Of whom was waited for, perhaps: who has time left asks again.
                if call.deadline is not None and call.deadline.expired():
                    raise

    def _landed(self, key: bytes, _: object) -> None:
        self._flights.pop(key, None)

    async def _fetch(self, policy: Policy, key: bytes, make: Make) -> Kept:
        response, beside = await make()
        kept = Kept(response, beside, self._clock())
        if key in self._entries:
            self.bytes -= self._entries.pop(key).size
        if kept.size <= self._max_bytes // _SHARE and policy is self._policies.get(policy.path):
            self._entries[key] = kept
            self.bytes += kept.size
            while self.bytes > self._max_bytes:
                _, oldest = self._entries.popitem(last=False)
                self.bytes -= oldest.size
        return kept

    def _headers(self, policy: Policy, kept: Kept, *, stale: bool) -> Headers:
        age = int(self._clock() - kept.at)
        scope = "public" if policy.shared else "private"
        headers = [
            (b"etag", kept.tag),
            (b"age", str(age).encode()),
            (b"cache-control", f"{scope}, max-age={policy.ttl:.0f}".encode()),
            _VARY_SHARED if policy.shared else _VARY,
        ]
        if stale:
            headers += [(b"warning", b'111 weft "Revalidation Failed"'), (b"weft-stale", b"true")]
        return headers


class _Flight:
    """A call that several wait for; given up when none does any more."""

    __slots__ = ("_waiting", "task")

    def __init__(self, fetch: Any) -> None:
        self._waiting = 0
        context = contextvars.copy_context()
        self.task: asyncio.Task[Kept] = asyncio.get_running_loop().create_task(
            fetch, context=context
        )

    async def wait(self, call: Call) -> Kept:
        self._waiting += 1
        seconds = math.inf if call.deadline is None else call.deadline.seconds()
        try:
            async with asyncio.timeout(None if math.isinf(seconds) else seconds):
                return await asyncio.shield(self.task)
        except TimeoutError:
            raise rpc.DeadlineExceeded from None
        except asyncio.CancelledError:
            if self.task.cancelled() and not _being_cancelled():
                raise rpc.Cancelled from None
            raise
        finally:
            self._waiting -= 1
            if not self._waiting and not self.task.done():
                self.task.cancel()
            elif self.task.done() and not self.task.cancelled():
                self.task.exception()  # who waited may have gone


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _directives(control: bytes) -> Mapping[str, str]:
    found = {}
    for part in control.decode("latin-1").lower().split(","):
        name, _, value = part.strip().partition("=")
        found[name] = value.strip('"')
    return found


def _most(asked: Mapping[str, str]) -> float:
    """Seconds of age that the caller takes."""
    if "no-cache" in asked:
        return 0.0
    age = asked.get("max-age", "")
    return float(age) if age.isascii() and age.isdigit() and len(age) < 10 else math.inf  # noqa: PLR2004 digits


def _sized(name: str, value: str | bytes) -> tuple[bytes, ...]:
    text = value if isinstance(value, bytes) else value.encode()
    key = name.encode()
    return (b"%d:%d:" % (len(key), len(text)), key, text)
