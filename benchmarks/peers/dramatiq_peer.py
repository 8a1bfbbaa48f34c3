"""Dramatiq on Redis with its default worker of 8 threads."""

from __future__ import annotations

import threading

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from load import Phase, arguments, body

ROLE, URL, COUNT = arguments()
broker = RedisBroker(url=URL)
dramatiq.set_broker(broker)
phase = Phase(COUNT)
lock = threading.Lock()


@dramatiq.actor(max_retries=0)
def work(message: str) -> None:
    with lock:
        last = phase.saw(message)
    if last:
        threading.Timer(0.01, phase.end).start()


if ROLE == "publish":
    phase.begin()
    for number in range(COUNT):
        work.send(body(number).decode())
    phase.end()
worker = dramatiq.Worker(broker, worker_threads=8)
worker.start()
threading.Event().wait()
