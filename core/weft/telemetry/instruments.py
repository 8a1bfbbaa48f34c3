"""Every metric of Weft, in one place. Names follow the OpenTelemetry RPC semantic conventions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import grpc
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

# Seconds. Agent calls reach from a fraction of a millisecond (a rule) to minutes (a model).
_BUCKETS = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    60,
    120,
)
# Those of the OpenTelemetry GenAI conventions.
_TOKENS = tuple(4**power for power in range(14))
# Seconds. Runs of workflows wait for people.
_LONG = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600, 14_400, 86_400)


class Record(Protocol):
    """Records one call, or whatever is timed: how it ended and how long it took."""

    def __call__(self, code: grpc.StatusCode, seconds: float, trace_id: str = "") -> None:
        """`trace_id`: the trace that shows it, 32 hexadecimal digits, told as an exemplar; empty: none does."""
        ...


class Instruments:
    """The metrics of one process, in a registry of their own.

    Args:
        service: what the process is, such as "gateway"; a label of `target_info`.
    """

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.target = Gauge(
            "target_info", "What this process is.", ["service_name"], registry=self.registry
        )
        self.target.labels(service).set(1)
        labels = ["rpc_method", "rpc_response_status_code"]
        self._server = Histogram(
            "rpc_server_call_duration_seconds",
            "Time from a call's arrival to its end, in seconds.",
            labels,
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._client = Histogram(
            "rpc_client_call_duration_seconds",
            "Time from a call's start to its end as its caller saw it, in seconds.",
            labels,
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "rpc_server_active_requests", "Calls being served.", registry=self.registry
        )
        self.dependency_up = Gauge(
            "weft_dependency_up",
            "Whether this process reaches a server it needs: postgres, redis. 1: yes, 0: no.",
            ["dependency"],
            registry=self.registry,
        )
        self.instances = Gauge(
            "weft_registry_instances",
            "Instances that hold a lease, by agent and state.",
            ["agent", "state"],
            registry=self.registry,
        )
        self.registry_revision = Gauge(
            "weft_registry_revision", "Revision this replica has.", registry=self.registry
        )
        self.registry_lag = Gauge(
            "weft_registry_lag_seconds",
            "How long this replica has been behind the database.",
            registry=self.registry,
        )
        self.registry_leases = Gauge(
            "weft_registry_leases", "Leases this replica holds.", registry=self.registry
        )
        self.registry_adopted = Counter(
            "weft_registry_adopted_leases",
            "Leases taken over from replicas that are gone.",
            registry=self.registry,
        )
        self.registry_watchers = Gauge(
            "weft_registry_watchers", "Open Watch streams.", registry=self.registry
        )
        self.xds_streams = Gauge(
            "weft_registry_xds_streams", "Open ADS streams.", registry=self.registry
        )
        self.xds_nacks = Counter(
            "weft_registry_xds_nacks",
            "xDS resources a client rejected.",
            ["type_url"],
            registry=self.registry,
        )
        self._door = Histogram(
            "weft_gateway_request_duration_seconds",
            "Time a door of the gateway took for a request, in seconds.",
            ["door", "rpc_method", "rpc_response_status_code"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.broker_data_loss = Counter(
            "weft_broker_data_loss",
            "Accepted messages that Redis is known to have lost, by queue; at least so many.",
            ["queue"],
            registry=self.registry,
        )
        self.broker_messages = Counter(
            "weft_broker_messages",
            "Messages of this broker by queue and what happened: accepted, duplicate, acked, retried, dead.",
            ["queue", "event"],
            registry=self.registry,
        )
        self.queue_messages = Gauge(
            "weft_broker_queue_messages",
            "Messages of a queue by state: ready, delayed, pending (delivered, not settled), blocked (behind "
            "another one of their key), dead. Every broker tells of all queues.",
            ["queue", "state"],
            registry=self.registry,
        )
        self.queue_oldest = Gauge(
            "weft_broker_queue_oldest_seconds",
            "Age of the oldest message of a queue that is ready; 0: none is. Every broker tells of all queues.",
            ["queue"],
            registry=self.registry,
        )
        self.queue_consumers = Gauge(
            "weft_broker_queue_consumers",
            "Consumers of a queue at this broker.",
            ["queue"],
            registry=self.registry,
        )
        self.breaker_transitions = Counter(
            "weft_gateway_breaker_transitions",
            "State changes of circuit breakers.",
            ["agent", "rpc_method", "state"],
            registry=self.registry,
        )
        self.breaker_state = Gauge(
            "weft_gateway_breaker_state",
            "State of a circuit breaker since its first change: 0 closed, 1 half-open, 2 open.",
            ["agent", "rpc_method"],
            registry=self.registry,
        )
        self.limited = Counter(
            "weft_gateway_limited",
            "Calls refused by a limit.",
            ["limit"],
            registry=self.registry,
        )
        self.limits_unshared = Counter(
            "weft_gateway_limits_unshared",
            "Calls whose limits this gateway kept by itself, for Redis was away.",
            registry=self.registry,
        )
        self.cache = Counter(
            "weft_gateway_cache",
            "Calls of methods with a cache: hit, miss, joined (one that was being made), stale.",
            ["rpc_method", "outcome"],
            registry=self.registry,
        )
        self.retries = Counter(
            "weft_gateway_retries",
            "Second attempts: retry, hedge; exhausted: the budget allowed none.",
            ["agent", "event"],
            registry=self.registry,
        )
        self.jobs = Gauge(
            "weft_gateway_jobs",
            "Jobs of all gateways that have not ended: queued, running.",
            ["state"],
            registry=self.registry,
        )
        self.jobs_oldest = Gauge(
            "weft_gateway_jobs_oldest_seconds",
            "For how long the oldest job waits that nobody runs; 0: none waits.",
            registry=self.registry,
        )
        self.jobs_ended = Counter(
            "weft_gateway_jobs_ended",
            "Jobs that this gateway ended: succeeded, failed, cancelled.",
            ["state"],
            registry=self.registry,
        )
        self.webhooks_pending = Gauge(
            "weft_gateway_webhooks_pending",
            "Webhooks of all gateways that have not arrived and are not given up.",
            registry=self.registry,
        )
        self.webhooks = Counter(
            "weft_gateway_webhooks",
            "Attempts of this gateway to deliver a webhook: delivered, pending (it is tried again), dead (given up).",
            ["outcome"],
            registry=self.registry,
        )
        self.certificate_expiry = Gauge(
            "weft_certificate_expiry_timestamp_seconds",
            "When a certificate this process serves with ends, in seconds since 1970.",
            ["certificate"],
            registry=self.registry,
        )
        self.runs = Gauge(
            "weft_orchestrator_runs",
            "Runs of all orchestrators that have not ended: queued, running, waiting.",
            ["state"],
            registry=self.registry,
        )
        self.runs_overdue = Gauge(
            "weft_orchestrator_runs_overdue_seconds",
            "For how long the oldest run is due that no orchestrator takes; 0: none is.",
            registry=self.registry,
        )
        self.approvals = Gauge(
            "weft_orchestrator_approvals", "Decisions people are asked for.", registry=self.registry
        )
        self.run_seconds = Histogram(
            "weft_orchestrator_run_duration_seconds",
            "Time from the start of a run to its end, in seconds, of runs this orchestrator ended: succeeded, "
            "failed, cancelled. Workflows that were never submitted are `inline`.",
            ["workflow", "state"],
            buckets=_LONG,
            registry=self.registry,
        )
        self._tool = Histogram(
            "weft_tool_use_duration_seconds",
            "Time a use of a tool took, in seconds; also of those that were refused.",
            ["tool", "outcome"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.tools_kept = Counter(
            "weft_tool_kept",
            "Uses of tools whose results are kept: hit, miss.",
            ["tool", "outcome"],
            registry=self.registry,
        )
        self._model_seconds = Histogram(
            "gen_ai_client_operation_duration_seconds",
            "Time of a request to a model, in seconds, by how it ended: OK or the reason of its error.",
            ["weft_agent", "gen_ai_request_model", "outcome"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._model_usage = Histogram(
            "gen_ai_client_token_usage",
            "Tokens of a request to a model: input (what was read from and written to caches among it), output.",
            ["weft_agent", "gen_ai_request_model", "gen_ai_operation_name", "gen_ai_token_type"],
            buckets=_TOKENS,
            registry=self.registry,
        )
        self._model_tokens = Counter(
            "weft_model_tokens",
            "Tokens of models: input, cache_read, cache_write, output.",
            ["weft_agent", "gen_ai_request_model", "kind"],
            registry=self.registry,
        )
        self._model_cost = Counter(
            "weft_model_cost_usd",
            "What requests to models cost, in US dollars, where that is known.",
            ["weft_agent", "gen_ai_request_model"],
            registry=self.registry,
        )

    def model_request(
        self,
        agent: str,
        model: str,
        outcome: str,
        seconds: float,
        tokens: Mapping[str, int],
        usd: float,
    ) -> None:
        """Records one request to a model, with its tokens by kind."""
        self._model_seconds.labels(agent, model, outcome).observe(seconds)
        for kind, number in tokens.items():
            if number:
                self._model_tokens.labels(agent, model, kind).inc(number)
        if tokens.get("output") or tokens.get("input"):
            made = tokens.get("output", 0)
            for kind, number in (("input", sum(tokens.values()) - made), ("output", made)):
                self._model_usage.labels(agent, model, "chat", kind).observe(number)
        if usd:
            self._model_cost.labels(agent, model).inc(usd)

    def tool_use(self, tool: str) -> Record:
        """Records uses of a tool."""
        return _by_code(self._tool, tool)

    def server_call(self, method: str) -> Record:
        """Records calls of `method` that are served."""
        return _by_code(self._server, method)

    def client_call(self, method: str) -> Record:
        """Records calls of `method` that are made."""
        return _by_code(self._client, method)

    def door_call(self, door: str, method: str) -> Record:
        """Records requests at a door of the gateway."""
        return _by_code(self._door, door, method)


def _by_code(histogram: Histogram, *labels: str) -> Record:
    # labels() takes a lock and builds a key; the few codes a method really returns are kept at hand.
    # An Enum hashes in Python code, so the usual status is asked for first.
    well = histogram.labels(*labels, "OK").observe
    others: dict[grpc.StatusCode, Callable[[float, dict[str, str] | None], None]] = {}

    def record(code: grpc.StatusCode, seconds: float, trace_id: str = "") -> None:
        exemplar = {"trace_id": trace_id} if trace_id else None
        if code is grpc.StatusCode.OK:
            well(seconds, exemplar)
            return
        observe = others.get(code)
        if observe is None:
            observe = others[code] = histogram.labels(*labels, code.name).observe
        observe(seconds, exemplar)

    return record
