"""An agent as a host serves it, and what operators want of it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from weft import rpc
from weft.agents.contract import Contract
from weft.agents.messaging.consumer import Consumer
from weft.v1 import agent_pb2, lifecycle_pb2

_MAX_PROBLEMS, _MAX_TEXT = 20, 500  # weft/v1/agent.proto


@dataclass(slots=True, kw_only=True, eq=False)
class Member:
    """One agent of a host.

    Attributes:
        instance: as it is registered.
        contract: what it serves.
        load: its calls, and how many it takes at a time.
        live: what operators have set.
        limit: calls it takes at a time where operators say nothing.
        wanted: version of what operators want, as obeyed last.
        held: whether operators hold it back; it consumes no messages then.
        consumers: of its queues; none while it is held back.
        tending: held while its consumers are begun or ended.
    """

    instance: agent_pb2.Instance
    contract: Contract
    load: rpc.LoadMeter
    live: rpc.LiveSettings
    limit: int
    wanted: int = 0
    held: bool = False
    consumers: list[Consumer] = field(default_factory=list)
    tending: asyncio.Lock = field(default_factory=asyncio.Lock)

    def obey(self, directive: lifecycle_pb2.Directive, models: Collection[str]) -> list[str]:
        """Does as operators say, for calls from now on; what cannot be done, for people.

        Args:
            directive: all of what they say.
            models: names of the models that this process has.
        """
        settings = directive.settings
        self.wanted = directive.version
        self.held = directive.HasField("hold")
        paused = self.held and directive.hold.state == agent_pb2.INSTANCE_STATE_PAUSED
        self.live.paused = directive.hold.reason if paused else None
        self.load.let_in(settings.max_concurrency or self.limit, closed=paused)
        self.live.prompts = dict(settings.prompts)
        if not directive.report_utilization:
            self.live.utilization = None
        elif self.live.utilization is None:
            self.live.utilization = rpc.Utilization(self.load)
        problems = []
        self.live.model = settings.model
        if settings.model and settings.model not in models:
            self.live.model = ""
            known = ", ".join(sorted(models)) or "none"
            problems.append(f"this process has no model {settings.model!r}; it has {known}")
        timeouts = {name: span.ToTimedelta() for name, span in settings.timeouts.items()}
        paths = dict(self._methods())
        self.live.timeouts = {
            paths[name]: span.total_seconds() for name, span in timeouts.items() if name in paths
        }
        problems += [f"there is no method {name!r}" for name in sorted(timeouts.keys() - paths)]
        return [problem[:_MAX_TEXT] for problem in problems[:_MAX_PROBLEMS]]

    def _methods(self) -> Iterator[tuple[str, str]]:
        service = self.contract.descriptor
        for method in service.methods:
            yield method.name, f"/{service.full_name}/{method.name}"

    def told(self) -> agent_pb2.Load:
        """Its load."""
        meter = self.load
        load = agent_pb2.Load(in_flight=meter.in_flight, calls=meter.calls, failures=meter.failures)
        load.latency_ewma.FromTimedelta(timedelta(seconds=meter.latency_ewma))
        return load
