"""The models of a process, by the names that agents have for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from weft import rpc
from weft.agents.breaker import Breaker, BreakerSettings
from weft.agents.llm.asking import Asker, Candidate
from weft.agents.llm.endpoints import Endpoint
from weft.agents.llm.errors import ModelUnknown
from weft.agents.llm.model import Model
from weft.agents.llm.money import Books
from weft.agents.llm.prices import Prices
from weft.agents.llm.way import ModelSettings, Way
from weft.agents.llm.wire import Client
from weft.telemetry import Telemetry

DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """A model as settings name it.

    Attributes:
        endpoint: where it is.
        model: as its endpoint calls it.
        fallback: entries that stand in for it, in order.
        settings: how it is asked, and those that stand in for it.
        retries: how often it is asked again.
    """

    endpoint: Endpoint
    model: str
    fallback: Sequence[str] = ()
    settings: ModelSettings = field(default_factory=ModelSettings)
    retries: int = 2


class Models:
    """Models by name. The name of an agent that has no entry of its own stands for the entry "default", if there is one.

        model = models["support-solution"]
        models.get("support-solution")          # None where no model is set up: the agent does without

    Args:
        entries: by name.
        books: who pays; by default nobody is asked, and it is counted in this process alone.
        prices: what tokens cost; by default the shipped ones.
        breaker: when a model is left alone.
        telemetry: where requests are counted and traced.

    Raises:
        ValueError: an entry falls back to one that is not there.
    """

    def __init__(
        self,
        entries: Mapping[str, ModelEntry],
        *,
        books: Books | None = None,
        prices: Prices | None = None,
        breaker: BreakerSettings | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._entries = dict(entries)
        self.books = books or Books()
        self._prices = prices or Prices.shipped()
        self._breaker = breaker or BreakerSettings()
        self._telemetry = telemetry
        self._clients: dict[Endpoint, Client] = {}
        self._breakers: dict[tuple[Endpoint, str], Breaker] = {}
        self._models: dict[str, Model] = {}
        self._live: dict[tuple[str, str], Way] = {}
        for name, entry in self._entries.items():
            for other in entry.fallback:
                if other not in self._entries or other == name:
                    raise ValueError(f"{name}: there is no other model {other!r} to fall back to")

    def __contains__(self, name: object) -> bool:
        return name in self._entries or DEFAULT in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __getitem__(self, name: str) -> Model:
        """The model of a name.

        Raises:
            ModelUnknown: there is none.
        """
        model = self.get(name)
        if model is None:
            raise ModelUnknown(metadata={"name": name})
        return model

    def get(self, name: str) -> Model | None:
        """The model of a name; None: there is none."""
        if name not in self._models:
            entry = self._entries.get(name) or self._entries.get(DEFAULT)
            if entry is None:
                return None
            self._models[name] = Model(self._way(name, entry), name, lambda: self._set_live(name))
        return self._models[name]

    async def warm(self) -> None:
        """Gets ready what would take the first request seconds.

        Raises:
            ExtraMissing: the extra `llm` is not installed.
        """
        for name in self._entries:
            self.get(name)
        await asyncio.gather(*(client.ready() for client in self._clients.values()))

    async def close(self) -> None:
        """Closes all connections."""
        await asyncio.gather(*(client.close() for client in self._clients.values()))
        self._clients.clear()
        self._models.clear()
        self._live.clear()

    def _way(self, name: str, entry: ModelEntry) -> Way:
        chain = [entry, *(self._entries[other] for other in entry.fallback)]
        asker = Asker(
            [self._candidate(each) for each in chain],
            agent=name,
            books=self.books,
            metrics=self._telemetry.metrics if self._telemetry else None,
            retries=entry.retries,
        )
        return Way(asker, entry.settings)

    def _set_live(self, name: str) -> Way | None:
        """The way that operators have set of the agent that asks; None: they have set none."""
        call = rpc.current_call()
        if call is None or call.live is None or not call.live.model:
            return None
        entry = self._entries.get(call.live.model)
        if entry is None:
            return None
        key = (name, call.live.model)
        if key not in self._live:
            self._live[key] = self._way(name, entry)
        return self._live[key]

    def _candidate(self, entry: ModelEntry) -> Candidate:
        endpoint = entry.endpoint
        client = self._clients.get(endpoint)
        if client is None:
            client = self._clients[endpoint] = Client(endpoint, self._telemetry)
        known = (endpoint, entry.model)
        if known not in self._breakers:
            named = f"{entry.model} at {endpoint.name}"
            self._breakers[known] = Breaker(self._breaker, named)
        return Candidate(
            model=entry.model,
            client=client,
            breaker=self._breakers[known],
            prices=self._prices,
        )
