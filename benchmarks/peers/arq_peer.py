"""arq: burst worker with 100 jobs at a time, results not kept, polling every 10 ms."""

from __future__ import annotations

from urllib.parse import urlsplit

import uvloop
from arq import create_pool, func
from arq.connections import RedisSettings
from arq.worker import Worker
from load import Phase, arguments, body, publish_all

ROLE, URL, COUNT = arguments()
phase = Phase(COUNT)
where = urlsplit(URL)
settings = RedisSettings(host=where.hostname or "", port=where.port or 0)


async def work(_: object, message: bytes) -> None:
    phase.saw(message)


async def main() -> None:
    if ROLE == "publish":
        pool = await create_pool(settings)
        phase.begin()
        await publish_all(lambda number: pool.enqueue_job("work", body(number)), COUNT)
        phase.end()
    worker = Worker(
        functions=[func(work, name="work", keep_result=0)],
        redis_settings=settings,
        burst=True,
        max_jobs=100,
        poll_delay=0.01,
        keep_result=0,
        handle_signals=False,
        queue_read_limit=500,
    )
    await worker.async_run()
    phase.end()


uvloop.run(main())
