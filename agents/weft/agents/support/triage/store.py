"""What triage models were taught, in PostgreSQL."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from weft import rpc
from weft.agents.support.triage import shipped
from weft.agents.support.triage.lesson import Example
from weft.postgres import Database

DEFAULT_MODEL = "default"
_LEAST_INTENTS = 2


class UnknownModel(rpc.NotFound):
    """There is no model of this name."""

    reason = "UNKNOWN_MODEL"


class TooFewIntents(rpc.FailedPrecondition):
    """A model must know two intents or more before it can be asked."""

    reason = "TOO_FEW_INTENTS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """All examples a model knows.

    Attributes:
        revision: number of the change that led to it; greater for a later one, 0 for what triage ships with.
    """

    revision: int
    examples: Sequence[Example]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSummary:
    """A model and the size of what it knows. update_time is None for a model that was never taught."""

    model: str
    examples: int
    intents: int
    update_time: datetime | None


class Store:
    """Examples by model. The default model knows, besides what it was taught, what triage ships with."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def teach(self, model: str, intents: Mapping[str, str]) -> int:
        """Stores texts with their intents in one transaction and returns the model's new revision.

        Raises:
            TooFewIntents: the model would know fewer than two intents; nothing is stored.
        """
        texts = list(intents)
        async with self._database.transaction() as transaction:
            revision: int = await transaction.fetchval("put_model", model)
            await transaction.execute(
                "put_examples",
                model,
                [_digest(text) for text in texts],
                texts,
                list(intents.values()),
            )
            known = len(await transaction.fetch("model_intents", model))
            if known < _LEAST_INTENTS and model != DEFAULT_MODEL:
                raise TooFewIntents(metadata={"model": model, "intents": str(known)})
        return revision

    async def revision(self, model: str) -> int:
        """Number of the model's latest change.

        Raises:
            UnknownModel: there is no such model.
        """
        revision: int | None = await self._database.fetchval("model_revision", model)
        if revision is not None:
            return revision
        if model == DEFAULT_MODEL:
            return 0
        raise _unknown(model)

    async def lesson(self, model: str) -> Lesson:
        """Everything a model knows.

        Raises:
            UnknownModel: there is no such model.
        """
        # Read before the examples: a change in between is then seen as a change to come.
        revision = await self.revision(model)
        rows = await self._database.fetch("model_examples", model)
        known = {row["text"]: row["intent"] for row in rows}
        if model == DEFAULT_MODEL:
            known = {example.text: example.intent for example in shipped.examples()} | known
        return Lesson(
            revision=revision,
            examples=[Example(text=text, intent=intent) for text, intent in known.items()],
        )

    async def summaries(self) -> list[ModelSummary]:
        """All models, the default one first, then by name."""
        taught = [
            ModelSummary(
                model=row["model"],
                examples=row["examples"],
                intents=row["intents"],
                update_time=row["update_time"],
            )
            for row in await self._database.fetch("taught_models")
        ]
        default_time = next((one.update_time for one in taught if one.model == DEFAULT_MODEL), None)
        known = (await self.lesson(DEFAULT_MODEL)).examples
        default = ModelSummary(
            model=DEFAULT_MODEL,
            examples=len(known),
            intents=len({example.intent for example in known}),
            update_time=default_time,
        )
        return [default, *(one for one in taught if one.model != DEFAULT_MODEL)]

    async def delete(self, model: str) -> None:
        """Deletes what a model was taught.

        Raises:
            UnknownModel: there is no such model.
        """
        deleted = await self._database.fetchval("delete_model", model)
        if deleted is None and model != DEFAULT_MODEL:
            raise _unknown(model)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _unknown(model: str) -> UnknownModel:
    return UnknownModel(f'There is no model "{model}".', metadata={"model": model})
