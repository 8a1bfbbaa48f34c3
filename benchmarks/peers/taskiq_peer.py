"""taskiq with taskiq-redis' stream broker, 100 tasks at a time."""

from __future__ import annotations

import asyncio

import uvloop
from load import Phase, arguments, body, publish_all
from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker

ROLE, URL, COUNT = arguments()
broker = RedisStreamBroker(URL, queue_name="bench", consumer_id="0")
phase = Phase(COUNT)


@broker.task
async def work(message: str) -> None:
    if phase.saw(message):
        asyncio.get_running_loop().call_later(0.01, phase.end)


async def main() -> None:
    broker.is_worker_process = ROLE == "consume"
    await broker.startup()
    if ROLE == "publish":
        phase.begin()
        await publish_all(lambda number: work.kiq(body(number).decode()), COUNT)
        phase.end()
    await run_receiver_task(broker, max_async_tasks=100)


uvloop.run(main())
