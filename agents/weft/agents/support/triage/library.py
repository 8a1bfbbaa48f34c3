"""Trained models, kept in step with what they were taught. The only place that trains.

A model is trained when it is first asked and again when its examples changed, once however many ask, in a thread:
most of a training runs in native code that leaves the event loop free. While a model trains, its former self answers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from weft import rpc
from weft.agents.support.triage.lesson import Example
from weft.agents.support.triage.store import Store

if TYPE_CHECKING:
    from weft.agents.support.triage.model import IntentModel

log = logging.getLogger("weft.agents.support")

# How old a look at the database may be: another replica's teaching is known this much later at most.
_FRESH = timedelta(seconds=1)


@dataclass(slots=True, kw_only=True)
class _Trained:
    model: IntentModel
    revision: int
    training_time: timedelta
    checked: float  # monotonic seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """A model as it is after it was taught."""

    model: IntentModel
    training_time: timedelta


class Library:
    """Trained models by name. Close it, so that no training outlives it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._trained: dict[str, _Trained] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}

    def warm(self, name: str) -> None:
        """Begins to train a model that will be asked."""
        self._begin("train", name)

    async def model(self, name: str) -> IntentModel:
        """The model of this name, trained.

        Raises:
            UnknownModel: there is no such model.
        """
        trained = self._trained.get(name)
        if trained is None:
            await self._once("train", name)
            trained = self._trained[name]
        elif time.monotonic() - trained.checked > _FRESH.total_seconds():
            self._begin("refresh", name)
        return trained.model

    async def teach(self, name: str, intents: Mapping[str, str]) -> Taught:
        """Stores texts with their intents, trains, and returns when the model that answers knows them.

        Raises:
            TooFewIntents: the model would know fewer than two intents; nothing is stored.
        """
        revision = await self._store.teach(name, intents)
        while (trained := self._trained.get(name)) is None or trained.revision < revision:
            await self._once("train", name)
        return Taught(model=trained.model, training_time=trained.training_time)

    async def delete(self, name: str) -> None:
        """Deletes a model, or takes the default one back to what it ships with.

        Raises:
            UnknownModel: there is no such model.
        """
        await self._store.delete(name)
        self._trained.pop(name, None)

    async def close(self) -> None:
        """Ends what is under way in the background."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _once(self, work: str, name: str) -> None:
        # Shielded: one caller who gives up must not end the training that others wait for.
        await asyncio.shield(self._begin(work, name))

    def _begin(self, work: str, name: str) -> asyncio.Task[None]:
        key = (work, name)
        task = self._tasks.get(key)
        if task is None:
            begin = {"train": self._train, "refresh": self._refresh}[work]
            # In a context of its own: the deadline of the first who asks is not that of the others.
            task = self._tasks[key] = asyncio.create_task(
                begin(name), name=f"{work} {name}", context=Context()
            )
            task.add_done_callback(lambda done: self._ended(key, done))
        return task

    def _ended(self, key: tuple[str, str], task: asyncio.Task[None]) -> None:
        del self._tasks[key]
        if not task.cancelled() and (failed := task.exception()):
            # Those who wait are told; this is for a refresh, which nobody waits for.
            log.warning("could not %s model %s: %s", *key, failed)

    async def _train(self, name: str) -> None:
        lesson = await self._store.lesson(name)
        started = time.monotonic()
        model = await asyncio.to_thread(_train, lesson.examples)
        ended = time.monotonic()
        self._trained[name] = _Trained(
            model=model,
            revision=lesson.revision,
            training_time=timedelta(seconds=ended - started),
            checked=started,
        )
        log.info(
            "trained model %s",
            name,
            extra={"examples": model.examples, "seconds": round(ended - started, 3)},
        )

    async def _refresh(self, name: str) -> None:
        try:
            revision = await self._store.revision(name)
        except rpc.NotFound:
            self._trained.pop(name, None)
            return
        trained = self._trained.get(name)
        if trained is None:
            return
        trained.checked = time.monotonic()
        if revision != trained.revision:
            await self._once("train", name)


def _train(examples: Sequence[Example]) -> IntentModel:
    # Imported by whoever trains first: scikit-learn takes two seconds of CPU, and most processes never need it.
    from weft.agents.support.triage.model import IntentModel

    return IntentModel.train(examples)
