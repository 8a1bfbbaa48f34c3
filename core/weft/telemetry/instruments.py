"""Every metric of Weft, in one place. Names follow the OpenTelemetry RPC semantic conventions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

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
        self.certificate_expiry = Gauge(
            "weft_mtls_certificate_expiry_seconds",
            "Seconds until the certificate of this process in the mesh expires; 0: there is no mTLS.",
            registry=self.registry,
        )
        self.instances = Gauge(
            "weft_registry_instances",
            "Instances that hold a lease, by agent and state.",
            ["agent", "state"],
            registry=self.registry,
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
        if usd:
            self._model_cost.labels(agent, model).inc(usd)

    def tool_use(self, tool: str) -> Callable[[grpc.StatusCode, float], None]:
        """A function that records one use of a tool: status, seconds."""
        return _by_code(self._tool, tool)

    def server_call(self, method: str) -> Callable[[grpc.StatusCode, float], None]:
        """A function that records one served call of `method`: status, seconds."""
        return _by_code(self._server, method)

    def client_call(self, method: str) -> Callable[[grpc.StatusCode, float], None]:
        """A function that records one made call of `method`: status, seconds."""
        return _by_code(self._client, method)

    def door_call(self, door: str, method: str) -> Callable[[grpc.StatusCode, float], None]:
        """A function that records one request at a door of the gateway: status, seconds."""
        return _by_code(self._door, door, method)


def _by_code(histogram: Histogram, *labels: str) -> Callable[[grpc.StatusCode, float], None]:
    # labels() takes a lock and builds a key; the few codes a method really returns are kept at hand.
    # An Enum hashes in Python code, so the usual status is asked for first.
    well = histogram.labels(*labels, "OK").observe
    others: dict[grpc.StatusCode, Callable[[float], None]] = {}

    def record(code: grpc.StatusCode, seconds: float) -> None:
        if code is grpc.StatusCode.OK:
            well(seconds)
            return
        observe = others.get(code)
        if observe is None:
            observe = others[code] = histogram.labels(*labels, code.name).observe
        observe(seconds)

    return record
