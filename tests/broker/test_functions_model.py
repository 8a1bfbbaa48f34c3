"""The functions against a model of a queue: whatever the order of calls, nothing is lost, stuck, doubled or out of order."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from weft import embedded
from weft.broker import functions
from weft.broker.bells import Bells
from weft.broker.functions import Ack, Death, Functions, Retry
from weft.broker.layout import Entry, lease_id
from weft.broker.policy import Policy
from weft.broker.queues import Queue
from weft.broker.redis import Redis

NOW = 1_800_000_000_000
KEYS = st.sampled_from([b"", b"", b"a", b"b"])
NUMBERS = itertools.count()
PRIORITIES = st.sampled_from([1, 2, 2, 3])


class Machine(RuleBasedStateMachine):
    """Two brokers that publish, read, settle, die and come back, in any order."""

    runner: asyncio.Runner
    url: str

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.queue = Queue(f"model{next(NUMBERS)}", Policy(max_attempts=3))
        self.published: dict[bytes, tuple[bytes, int]] = {}  # identity -> key, priority; in order
        self.held: dict[bytes, tuple[str, Entry]] = {}  # lease -> broker, entry
        self.stale: list[tuple[bytes, Entry]] = []
        self.begun: list[bytes] = []  # identities by first delivery
        self.done: set[bytes] = set()
        self.dead: set[bytes] = set()
        self.redis = self.run(Redis.connect(self.url, library=functions.SOURCE))
        bells = Bells(self.redis, "one")
        self.brokers = {
            name: Functions(self.redis, name, bells, archive=False) for name in ("one", "two")
        }
        self.run(self.brokers["one"].declare(self.queue))

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.drain()
        self.run(self.brokers["one"].delete(self.queue))
        self.run(self.redis.close())

    @rule(
        batch=st.lists(st.tuples(KEYS, PRIORITIES, st.sampled_from([0, 0, 50])), max_size=4),
        repeat=st.booleans(),
        take=st.sampled_from([0, 0, 1, 3]),
    )
    def publish(self, batch: list[tuple[bytes, int, int]], *, repeat: bool, take: int) -> None:
        entries = []
        for key, priority, delay in batch:
            identity = b"s\0%d" % len(self.published)
            self.published[identity] = (key, priority)
            entries.append(
                Entry(
                    message=identity,
                    identity=identity,
                    key=key,
                    priority=priority,
                    not_before=self.now + delay if delay else 0,
                ).pack()
            )
        codes = self._publish(entries, take)
        assert codes == b"+" * len(entries)
        if repeat:
            assert self._publish(entries) == b"=" * len(entries)

    def _publish(self, entries: list[bytes], take: int = 0) -> bytes:
        if not entries:
            return b""
        publishing = self.brokers["one"].publish(
            self.queue, entries, now=self.now, durability=0, take=take
        )
        found = self.run(publishing)
        assert len(found.taken) <= take
        for lease, stored in found.taken:
            self._hold("one", lease, stored)
        return bytes(found.codes)

    @rule(broker=st.sampled_from(["one", "two"]), priority=PRIORITIES, count=st.integers(1, 3))
    def read(self, broker: str, priority: int, count: int) -> None:
        stream = f"{self.queue.key}:{priority}"

        async def reading() -> Any:
            return await self.redis.send(
                self.queue.shard,
                *("XREADGROUP", "GROUP", "w", broker, "COUNT", count, "STREAMS", stream, ">"),
            )

        found = self.run(reading())
        for row in found[0][1] if found else []:
            self._hold(broker, lease_id(priority, row[0]), row[1][1])

    def _hold(self, broker: str, lease: bytes, stored: bytes) -> None:
        entry = Entry.unpack(stored)
        assert entry.identity not in self.done | self.dead
        if entry.attempt == 1:
            assert entry.identity not in self.begun
            self.begun.append(entry.identity)
        self.held[lease] = (broker, entry)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), broker=st.sampled_from(["one", "two"]))
    def ack(self, data: st.DataObject, broker: str) -> None:
        lease, (_, entry) = self._pick(data)
        assert self._ack(broker, lease, entry) == 1
        self.done.add(entry.identity)
        self._let_go(lease)

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def ack_late(self, data: st.DataObject) -> None:
        lease, entry = data.draw(st.sampled_from(self.stale))
        assert self._ack("one", lease, entry) == 0

    @precondition(lambda self: self.held)
    @rule(data=st.data(), delay=st.sampled_from([0, 50]))
    def retry(self, data: st.DataObject, delay: int) -> None:
        lease, (broker, entry) = self._pick(data)
        other = "two" if broker == "one" else "one"
        work = [
            Retry(lease_id=lease, attempt=entry.attempt + 1, due=self.now + delay if delay else 0)
        ]
        assert self.run(self.brokers[other].retry(self.queue, work, now=self.now)).done == 0
        assert self.run(self.brokers[broker].retry(self.queue, work, now=self.now)).done == 1
        self._let_go(lease)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        lease, (broker, entry) = self._pick(data)
        deaths = [Death(lease_id=lease, reason="REJECTED", error="no")]
        assert self.run(self.brokers[broker].kill(self.queue, deaths, now=self.now)).done == 1
        self.dead.add(entry.identity)
        self._let_go(lease)

    @rule(broker=st.sampled_from(["one", "two"]))
    def die(self, broker: str) -> None:
        other = "two" if broker == "one" else "one"
        mine = {lease: entry for lease, (who, entry) in self.held.items() if who == broker}
        moved, left = self.run(
            self.brokers[other].takeover(self.queue, broker, now=self.now, limit=100)
        )
        assert (moved, left) == (len(mine), False)
        for lease, entry in mine.items():
            if entry.attempt >= self.queue.policy.max_attempts:
                self.dead.add(entry.identity)
            self._let_go(lease)

    @rule()
    def wait(self) -> None:
        self.now += 50
        self.run(self.brokers["one"].due(self.queue.shard, now=self.now))

    @invariant()
    def one_message_of_a_key_is_in_hand(self) -> None:
        keys = Counter(entry.key for _, entry in self.held.values() if entry.key)
        assert not keys or max(keys.values()) == 1

    @invariant()
    def a_keys_messages_begin_in_the_order_they_were_accepted(self) -> None:
        for key in (b"a", b"b"):
            accepted = [one for one, (its, _) in self.published.items() if its == key]
            begun = [one for one in self.begun if self.published[one][0] == key]
            assert begun == accepted[: len(begun)]

    @invariant()
    def the_depth_is_what_is_neither_done_nor_dead(self) -> None:
        counts = self.run(self.brokers["one"].counts(self.queue))
        assert counts.depth == len(self.published) - len(self.done) - len(self.dead)
        assert counts.pending == len(self.held)
        assert counts.dead == len(self.dead)

    def drain(self) -> None:
        """In the end everything that was accepted can be handled: nothing is lost or stuck."""
        self.now += 1_000
        for _ in range(3 * len(self.published) + 1):
            self.run(self.brokers["one"].due(self.queue.shard, now=self.now))
            for priority in (1, 2, 3):
                self.read("one", priority, 100)
            for lease, (_, entry) in list(self.held.items()):
                assert self._ack("one", lease, entry) == 1
                self.done.add(entry.identity)
                self._let_go(lease)
        assert self.done | self.dead == set(self.published)
        counts = self.run(self.brokers["one"].counts(self.queue))
        assert (counts.depth, counts.blocked, counts.delayed, counts.bytes) == (0, 0, 0, 0)

    def _pick(self, data: st.DataObject) -> tuple[bytes, tuple[str, Entry]]:
        lease: bytes = data.draw(st.sampled_from(sorted(self.held)))
        return lease, self.held[lease]

    def _ack(self, broker: str, lease: bytes, entry: Entry) -> int:
        acks = [Ack(lease_id=lease, size=len(entry.pack()), key=entry.key, identity=entry.identity)]
        settled = self.run(self.brokers[broker].ack(self.queue, acks, now=self.now))
        return int(settled.done)

    def _let_go(self, lease: bytes) -> None:
        self.stale.append((lease, self.held.pop(lease)[1]))


def test_whatever_happens_nothing_is_lost_stuck_doubled_or_out_of_order(
    servers: embedded.Endpoints,
) -> None:
    with asyncio.Runner() as runner:
        Machine.runner = runner
        Machine.url = urlsplit(servers.redis_url)._replace(query="db=15").geturl()
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=25,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
