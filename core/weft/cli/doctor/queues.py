"""The broker and its queues: what waits, what is dead, what is lost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from weft.cli import output
from weft.cli.doctor.model import Finding, fail, ok, warn

if TYPE_CHECKING:
    from weft.config import Settings
    from weft.v1 import broker_pb2 as pb

_OLD = timedelta(minutes=10)
_PATIENCE = 3.0  # seconds


async def look(settings: Settings) -> list[Finding]:
    """The broker, and all queues that are not as they should be."""
    from weft import rpc
    from weft.cli import brokers, failures
    from weft.v1 import broker_pb2

    if not settings.broker:
        return [ok("broker", "none is set: there are no messages")]
    try:
        async with brokers.connected(settings.broker) as broker:
            request = broker_pb2.ListQueuesRequest(page_size=1_000)
            answer = await broker.call("ListQueues", request, timeout=_PATIENCE)
    except (failures.Failure, rpc.Error) as failed:
        return [
            fail(
                "broker",
                str(failed).splitlines()[0],
                "No message is accepted or delivered.",
                "Start it: `weft up`, or `weft broker`; or name another one: --broker or WEFT_BROKER.",
            )
        ]
    found = [finding for queue in answer.queues for finding in _queue(queue)]
    return [ok("broker", f"{settings.broker} has {len(answer.queues)} queues"), *found]


def _queue(queue: pb.QueueStatus) -> Iterator[Finding]:
    check = f"queue {queue.queue}"
    if queue.data_loss:
        yield fail(
            check,
            queue.data_loss,
            "Messages whose senders were told that they were accepted are gone.",
            "docs/runbooks/WeftDataLoss.md",
        )
    if queue.dead:
        yield warn(
            check,
            f"{queue.dead} dead letters",
            "These messages could not be handled, and wait for somebody.",
            f"`weft dead list {queue.queue}`",
        )
    age = queue.oldest_age.ToTimedelta()
    if queue.paused:
        yield warn(
            check, "is paused", "Nothing of it is delivered.", f"`weft queues resume {queue.queue}`"
        )
    elif age > _OLD:
        consumers = f"{len(queue.consumers)} consumers"
        yield warn(
            check,
            f"the oldest message waits for {output.age(age)}; {consumers}",
            "It is handled late, or never.",
            f"Start its agent, or look at what its consumers do: `weft queues show {queue.queue}`",
        )
