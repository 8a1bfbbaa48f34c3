"""The processes of the suite: `python -m tests.faults.roles broker|[sdk-]producer|[sdk-]consumer JSON`."""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from typing import Any

import uvloop
from tests.faults import consumer, producer
from tests.faults.connecting import stopping

from weft.telemetry import logs


async def broker(settings: dict[str, Any]) -> None:
    from weft.broker import Broker

    stop = stopping()
    if plant := settings.pop("plant", "") or os.environ.get("WEFT_BROKER_PLANT", ""):
        from tests.faults.planted import PLANTS

        PLANTS[plant]()
    beat = timedelta(seconds=settings.pop("beat"))
    async with Broker(beat=beat, **settings):
        await stop.wait()


async def produce(settings: dict[str, Any]) -> None:
    await producer.Producer(producer.Settings(**settings), stopping()).run()


async def consume(settings: dict[str, Any]) -> None:
    await consumer.run(consumer.Settings(**settings), stopping())


async def sdk_produce(settings: dict[str, Any]) -> None:
    from tests.faults import sdk

    await sdk.SdkProducer(producer.Settings(**settings), stopping()).run()


async def sdk_consume(settings: dict[str, Any]) -> None:
    from tests.faults import sdk

    await sdk.consume(consumer.Settings(**settings), stopping())


if __name__ == "__main__":
    logs.setup(sys.argv[1])
    roles = {
        "broker": broker,
        "producer": produce,
        "consumer": consume,
        "sdk-producer": sdk_produce,
        "sdk-consumer": sdk_consume,
    }
    uvloop.run(roles[sys.argv[1]](json.loads(sys.argv[2])))
