"""Celery on Redis: a pool of 100 threads, acknowledged late, results ignored."""

from __future__ import annotations

import threading

from celery import Celery
from load import Phase, arguments, body

ROLE, URL, COUNT = arguments()
app = Celery("bench", broker=URL)
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=4,
    task_serializer="json",
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
)
phase = Phase(COUNT)
lock = threading.Lock()


@app.task(name="work")
def work(message: str) -> None:
    with lock:
        last = phase.saw(message)
    if last:
        threading.Timer(0.01, phase.end).start()


if ROLE == "publish":
    with app.producer_or_acquire() as producer:
        work.apply_async((body(0).decode(),), producer=producer)
        phase.begin()
        for number in range(1, COUNT):
            work.apply_async((body(number).decode(),), producer=producer)
    phase.end()
app.worker_main(
    [
        *("worker", "--pool=threads", "--concurrency=100", "--loglevel=ERROR"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
    ]
)
