"""Makes the Grafana dashboards of deploy/grafana/dashboards: `python tools/dashboards.py`, with --check to compare only.

A dashboard is rows of panels; what all panels have in common stands here once. Tests run every query against a Prometheus
that scraped a mesh (tests/drills/test_dashboards.py): a panel with no data fails them.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

FOLDER = Path(__file__).parents[1] / "deploy" / "grafana" / "dashboards"
RUNBOOKS = "/docs/runbooks"  # of this repository; put the address it has at your place
FAULTS = "UNKNOWN|INTERNAL|UNAVAILABLE|DATA_LOSS|DEADLINE_EXCEEDED"
_WIDTH, _HEIGHT = 24, 8
_STAT = 4  # height
RATE = "$__rate_interval"

Unit = Literal[
    "short",
    "reqps",
    "s",
    "percentunit",
    "bytes",
    "currencyUSD",
    "ops",
    "bool_yes_no",
    "dtdurations",
]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel.

    Attributes:
        title: what it shows.
        about: how to read it.
        queries: expressions by their legend.
        unit: of its numbers.
        kind: how it is drawn.
        warn: from where it is yellow; None: never.
        bad: from where it is red; None: never. Below `warn`: little is bad.
        runbooks: alerts that are about what it shows.
        exemplars: whether points lead to traces.
        stacked: whether lines stand on each other.
    """

    title: str
    about: str
    queries: dict[str, str]
    unit: Unit = "short"
    kind: Literal["timeseries", "stat", "heatmap"] = "timeseries"
    warn: float | None = None
    bad: float | None = None
    runbooks: tuple[str, ...] = ()
    exemplars: bool = False
    stacked: bool = False


def share(metric: str, bad: str, by: str, of: str = "") -> str:
    """The share of calls of a histogram that have a label."""
    both = f"{of}, {bad}" if of else bad
    parts = f"rate({metric}_count{{{both}}}[{RATE}])", f"rate({metric}_count{{{of}}}[{RATE}])"
    failed, every = (f"sum by ({by}) ({part})" for part in parts)
    # With no failure there is no series of failures, and the share is nought, not unknown.
    return f"({failed} or 0 * {every}) / {every}"


def rate(metric: str, by: str, of: str = "") -> str:
    """Events a second."""
    return f"sum by ({by}) (rate({metric}{{{of}}}[{RATE}]))"


def quantiles(metric: str, by: str = "", of: str = "") -> dict[str, str]:
    """Half, one of 20 and one of 100 take longer."""
    groups = f"le, {by}" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    return {
        f"{legend}p{int(q * 100)}": f"histogram_quantile({q}, sum by ({groups}) (rate({metric}_bucket{{{of}}}[{RATE}])))"
        for q in (0.5, 0.95, 0.99)
    }


def p95(metric: str, by: str, of: str = "") -> str:
    """One of 20 takes longer."""
    return f"histogram_quantile(0.95, sum by (le, {by}) (rate({metric}_bucket{{{of}}}[{RATE}])))"


def process(of: str, by: str) -> list[Panel]:
    """What every dashboard of a part ends with."""
    return [
        Panel(
            title="Processor",
            about="Cores that are busy. A Python process that serves uses one at most: near 1 it is full.",
            queries={
                f"{{{{{by}}}}}": f"sum by ({by}) (rate(process_cpu_seconds_total{{{of}}}[{RATE}]))"
            },
            warn=0.8,
        ),
        Panel(
            title="Memory",
            about="Resident memory. What only ever grows is a leak.",
            queries={f"{{{{{by}}}}}": f"sum by ({by}) (process_resident_memory_bytes{{{of}}})"},
            unit="bytes",
        ),
        Panel(
            title="Open files",
            about="Share of the files that the process may have open; each connection is one.",
            queries={
                f"{{{{{by}}}}}": f"max by ({by}) (process_open_fds{{{of}}} / process_max_fds{{{of}}})"
            },
            unit="percentunit",
            warn=0.6,
            bad=0.8,
            runbooks=("WeftFileDescriptors",),
        ),
    ]


SERVER, CLIENT = "rpc_server_call_duration_seconds", "rpc_client_call_duration_seconds"
DOOR, MODEL = "weft_gateway_request_duration_seconds", "gen_ai_client_operation_duration_seconds"
RUN = "weft_orchestrator_run_duration_seconds"
BAD = f'rpc_response_status_code=~"{FAULTS}"'
AGENTS = 'job="weft-agents"'
CHOSEN = f'{AGENTS}, agents=~"$agents"'

MESH = [
    [
        Panel(
            title="Alerts that fire",
            about="All alerts of Prometheus.",
            kind="stat",
            bad=1,
            queries={"": 'count(ALERTS{alertstate="firing"}) or vector(0)'},
        ),
        Panel(
            title="Parts that are down",
            about="Processes whose metrics cannot be read.",
            kind="stat",
            bad=1,
            queries={"": 'count(up{job=~"weft-.+"} == 0) or vector(0)'},
            runbooks=("WeftPartDown",),
        ),
        Panel(
            title="Agents with nobody in service",
            about="Agents that were ever registered and take no calls now.",
            kind="stat",
            warn=1,
            bad=1,
            runbooks=("WeftAgentDown",),
            queries={
                "": 'count(sum by (agent) (max by (agent, state) (weft_registry_instances{state=~"SERVING|DEGRADED"})) == 0) or vector(0)'
            },
        ),
        Panel(
            title="Calls a second",
            about="Calls that agents serve.",
            kind="stat",
            unit="reqps",
            queries={"": f"sum(rate({SERVER}_count{{{AGENTS}}}[{RATE}]))"},
        ),
        Panel(
            title="Calls that fail",
            about="By the fault of agents.",
            kind="stat",
            unit="percentunit",
            warn=0.01,
            bad=0.05,
            queries={"": share(SERVER, BAD, "job", AGENTS)},
            runbooks=("WeftAgentErrors",),
        ),
        Panel(
            title="xDS clients",
            about="gRPC clients and Envoys that hear of agents from the registry.",
            kind="stat",
            queries={"": "sum(weft_registry_xds_streams)"},
        ),
    ],
    [
        Panel(
            title="Parts that are up",
            about="Processes by what they are.",
            queries={"{{job}}": 'sum by (job) (up{job=~"weft-.+"})'},
            runbooks=("WeftPartDown", "WeftRestarts"),
        ),
        Panel(
            title="Instances by agent",
            about="Instances in service. Every registry tells of all.",
            queries={
                "{{agent}}": 'sum by (agent) (max by (agent, state) (weft_registry_instances{state=~"SERVING|DEGRADED"}))'
            },
            runbooks=("WeftAgentDown",),
        ),
        Panel(
            title="Instances by state",
            about="UNREACHABLE: they live and nobody gets through to them. PAUSED: by an operator.",
            queries={
                "{{state}}": "sum by (state) (max by (agent, state) (weft_registry_instances))"
            },
            stacked=True,
            runbooks=("WeftInstanceUnreachable",),
        ),
    ],
    [
        Panel(
            title="Calls served",
            about="A second, by the agents of a process.",
            unit="reqps",
            queries={"{{agents}}": rate(f"{SERVER}_count", "agents", AGENTS)},
        ),
        Panel(
            title="Calls that fail",
            about="By the fault of who serves them.",
            unit="percentunit",
            warn=0.01,
            bad=0.05,
            queries={"{{agents}}": share(SERVER, BAD, "agents", AGENTS)},
            runbooks=("WeftAgentErrors",),
        ),
        Panel(
            title="How long calls take",
            about="All agents. A point leads to a trace.",
            unit="s",
            exemplars=True,
            queries=quantiles(SERVER, of=AGENTS),
            runbooks=("WeftSlowCalls",),
        ),
    ],
    [
        Panel(
            title="Calls in flight",
            about="Being served now; streams that stay open are among them.",
            queries={"{{job}}": "sum by (job) (rpc_server_active_requests)"},
        ),
        Panel(
            title="Servers",
            about="1: PostgreSQL or Redis answers that part.",
            unit="bool_yes_no",
            queries={"{{dependency}} for {{job}}": "min by (dependency, job) (weft_dependency_up)"},
            runbooks=("WeftPostgresDown", "WeftRedisDown"),
        ),
        Panel(
            title="Restarts and rejected xDS",
            about="Starts of processes within an hour beyond the first, resources that clients rejected.",
            queries={
                "starts of {{job}}": 'sum by (job) (changes(process_start_time_seconds{job=~"weft-.+"}[1h]))',
                "rejected": f"sum(rate(weft_registry_xds_nacks_total[{RATE}])) or vector(0)",
            },
            runbooks=("WeftRestarts", "WeftXdsRejected"),
        ),
    ],
    process('job=~"weft-.+"', "job"),
]

AGENT = [
    [
        Panel(
            title="Calls a second",
            about="That the chosen agents serve.",
            kind="stat",
            unit="reqps",
            queries={"": f"sum(rate({SERVER}_count{{{CHOSEN}}}[{RATE}]))"},
        ),
        Panel(
            title="Calls that fail",
            about="By the fault of the agent.",
            kind="stat",
            unit="percentunit",
            warn=0.01,
            bad=0.05,
            queries={"": share(SERVER, BAD, "job", CHOSEN)},
            runbooks=("WeftAgentErrors",),
        ),
        Panel(
            title="Calls that are refused",
            about="Since instances work on as much as they may.",
            kind="stat",
            unit="percentunit",
            warn=0.01,
            bad=0.05,
            queries={
                "": share(SERVER, 'rpc_response_status_code="RESOURCE_EXHAUSTED"', "job", CHOSEN)
            },
            runbooks=("WeftAgentOverloaded",),
        ),
        Panel(
            title="One of 20 takes longer",
            about="Of all methods.",
            kind="stat",
            unit="s",
            warn=2.5,
            bad=10,
            queries={"": p95(SERVER, "job", CHOSEN)},
            runbooks=("WeftSlowCalls",),
        ),
    ],
    [
        Panel(
            title="Calls by method",
            about="A second.",
            unit="reqps",
            queries={"{{rpc_method}}": rate(f"{SERVER}_count", "rpc_method", CHOSEN)},
        ),
        Panel(
            title="Calls that fail by method",
            about="By the fault of the agent.",
            unit="percentunit",
            warn=0.01,
            bad=0.05,
            queries={"{{rpc_method}}": share(SERVER, BAD, "rpc_method", CHOSEN)},
            runbooks=("WeftAgentErrors",),
        ),
        Panel(
            title="How calls end",
            about="Status of calls, a second.",
            unit="reqps",
            stacked=True,
            queries={
                "{{rpc_response_status_code}}": rate(
                    f"{SERVER}_count", "rpc_response_status_code", CHOSEN
                )
            },
        ),
    ],
    [
        Panel(
            title="How long calls take",
            about="A point leads to a trace: failed and slow calls always have one.",
            unit="s",
            exemplars=True,
            queries=quantiles(SERVER, of=CHOSEN),
            runbooks=("WeftSlowCalls",),
        ),
        Panel(
            title="Slowest methods",
            about="One of 20 calls takes longer.",
            unit="s",
            exemplars=True,
            queries={"{{rpc_method}}": f"topk(10, {p95(SERVER, 'rpc_method', CHOSEN)})"},
            runbooks=("WeftSlowCalls",),
        ),
        Panel(
            title="Where the time is",
            about="How many calls took how long.",
            unit="s",
            kind="heatmap",
            queries={"{{le}}": f"sum by (le) (increase({SERVER}_bucket{{{CHOSEN}}}[{RATE}]))"},
        ),
    ],
    [
        Panel(
            title="Calls to others",
            about="That these processes make, a second, the broker and the registry among them.",
            unit="reqps",
            queries={"{{rpc_method}}": rate(f"{CLIENT}_count", "rpc_method", CHOSEN)},
        ),
        Panel(
            title="How long others take",
            about="One of 20 calls takes longer.",
            unit="s",
            exemplars=True,
            queries={"{{rpc_method}}": p95(CLIENT, "rpc_method", CHOSEN)},
        ),
        Panel(
            title="Messages",
            about="Of the agents' queues, a second.",
            unit="ops",
            queries={
                "{{event}}": f'sum by (event) (rate(weft_broker_messages_total{{queue=~"$agents"}}[{RATE}]))'
            },
            runbooks=("WeftQueueStuck", "WeftDeadLetters"),
        ),
    ],
    [
        Panel(
            title="Calls in flight",
            about="Being served now.",
            queries={"{{agents}}": f"sum by (agents) (rpc_server_active_requests{{{CHOSEN}}})"},
            runbooks=("WeftAgentOverloaded",),
        ),
        Panel(
            title="Uses of tools",
            about="A second, by tool and how they ended.",
            unit="ops",
            queries={
                "{{tool}} {{outcome}}": f"sum by (tool, outcome) (rate(weft_tool_use_duration_seconds_count{{{CHOSEN}}}[{RATE}])) or vector(0)"
            },
        ),
        Panel(
            title="How long tools take",
            about="One of 20 uses takes longer.",
            unit="s",
            queries={
                "{{tool}}": f"{p95('weft_tool_use_duration_seconds', 'tool', CHOSEN)} or vector(0)"
            },
        ),
    ],
    process(CHOSEN, "agents"),
]

BROKER_OF = 'job="weft-broker"'
ACCEPTED, ACKED = 'event="accepted"', 'event="acked"'
BROKER = [
    [
        Panel(
            title="Messages that wait",
            about="Ready, in all queues.",
            kind="stat",
            queries={"": 'sum(max by (queue) (weft_broker_queue_messages{state="ready"}))'},
            runbooks=("WeftQueueGrows",),
        ),
        Panel(
            title="Oldest message that waits",
            about="In any queue.",
            kind="stat",
            unit="s",
            warn=60,
            bad=600,
            queries={"": "max(weft_broker_queue_oldest_seconds)"},
            runbooks=("WeftQueueStuck",),
        ),
        Panel(
            title="Dead letters",
            about="Messages that could not be handled, and wait for somebody.",
            kind="stat",
            warn=1,
            bad=1,
            queries={"": 'sum(max by (queue) (weft_broker_queue_messages{state="dead"}))'},
            runbooks=("WeftDeadLetters",),
        ),
        Panel(
            title="Messages lost by Redis",
            about="That are known.",
            kind="stat",
            bad=1,
            queries={"": "sum(weft_broker_data_loss_total) or vector(0)"},
            runbooks=("WeftDataLoss",),
        ),
        Panel(
            title="Redis",
            about="Whether it answers the brokers.",
            kind="stat",
            unit="bool_yes_no",
            warn=1,
            bad=0,
            queries={"": 'min(weft_dependency_up{job="weft-broker", dependency="redis"})'},
            runbooks=("WeftRedisDown",),
        ),
    ],
    [
        Panel(
            title="Ready by queue",
            about="What waits for consumers. Every broker tells of all queues.",
            queries={
                "{{queue}}": 'topk(20, max by (queue) (weft_broker_queue_messages{state="ready"}))'
            },
            runbooks=("WeftQueueGrows",),
        ),
        Panel(
            title="Oldest by queue",
            about="How long the oldest message waits.",
            unit="s",
            warn=60,
            bad=600,
            queries={"{{queue}}": "topk(20, max by (queue) (weft_broker_queue_oldest_seconds))"},
            runbooks=("WeftQueueStuck",),
        ),
        Panel(
            title="Dead letters by queue",
            about="`weft dead list QUEUE` shows them.",
            warn=1,
            queries={
                "{{queue}}": 'topk(20, max by (queue) (weft_broker_queue_messages{state="dead"}))'
            },
            runbooks=("WeftDeadLetters",),
        ),
    ],
    [
        Panel(
            title="What happens to messages",
            about="A second.",
            unit="ops",
            queries={"{{event}}": rate("weft_broker_messages_total", "event")},
        ),
        Panel(
            title="Accepted by queue",
            about="A second.",
            unit="ops",
            queries={
                "{{queue}}": f"topk(20, {rate('weft_broker_messages_total', 'queue', ACCEPTED)})"
            },
        ),
        Panel(
            title="Acknowledged by queue",
            about="A second. Less than accepted: the queue grows.",
            unit="ops",
            queries={
                "{{queue}}": f"topk(20, {rate('weft_broker_messages_total', 'queue', ACKED)})"
            },
            runbooks=("WeftQueueStuck",),
        ),
    ],
    [
        Panel(
            title="Not ready",
            about="In the hands of consumers, delayed, or behind another message of their key.",
            stacked=True,
            queries={
                "{{state}}": 'sum by (state) (max by (queue, state) (weft_broker_queue_messages{state=~"pending|delayed|blocked"}))'
            },
        ),
        Panel(
            title="Consumers by queue",
            about="Streams of all brokers.",
            queries={"{{queue}}": "sum by (queue) (weft_broker_queue_consumers)"},
            runbooks=("WeftQueueStuck",),
        ),
        Panel(
            title="How long brokers take",
            about="One of 20 unary calls takes longer; a durable publish ends on disk.",
            unit="s",
            exemplars=True,
            queries={
                "{{rpc_method}}": p95(
                    SERVER, "rpc_method", f'{BROKER_OF}, rpc_method!~".+/(Consume|PublishStream)"'
                )
            },
        ),
    ],
    process(BROKER_OF, "instance"),
]

GATEWAY_OF = 'job="weft-gateway"'
GATEWAY = [
    [
        Panel(
            title="Requests a second",
            about="At all doors.",
            kind="stat",
            unit="reqps",
            queries={"": f"sum(rate({DOOR}_count[{RATE}]))"},
        ),
        Panel(
            title="Requests that fail",
            about="By our fault.",
            kind="stat",
            unit="percentunit",
            warn=0.005,
            bad=0.02,
            queries={"": share(DOOR, BAD, "job")},
            runbooks=("WeftGatewayErrors",),
        ),
        Panel(
            title="Circuits that are open",
            about="Methods that fail so often that they are not called.",
            kind="stat",
            bad=1,
            queries={
                "": "count(max by (agent, rpc_method) (weft_gateway_breaker_state) == 2) or vector(0)"
            },
            runbooks=("WeftBreakerOpen",),
        ),
        Panel(
            title="Jobs that wait",
            about="Of all gateways.",
            kind="stat",
            queries={"": 'max(weft_gateway_jobs{state="queued"})'},
            runbooks=("WeftJobsWaiting",),
        ),
        Panel(
            title="Certificate ends in",
            about="The first of all gateways that serve with TLS; nothing: none does.",
            kind="stat",
            unit="dtdurations",
            warn=30 * 86400,
            bad=14 * 86400,
            queries={"": "min(weft_certificate_expiry_timestamp_seconds) - time()"},
            runbooks=("WeftCertificateExpires",),
        ),
    ],
    [
        Panel(
            title="Requests by door",
            about="A second.",
            unit="reqps",
            queries={"{{door}}": rate(f"{DOOR}_count", "door")},
        ),
        Panel(
            title="Requests that fail by door",
            about="By our fault.",
            unit="percentunit",
            warn=0.005,
            bad=0.02,
            queries={"{{door}}": share(DOOR, BAD, "door")},
            runbooks=("WeftGatewayErrors",),
        ),
        Panel(
            title="How long requests take",
            about="All doors, streams among them. A point leads to a trace.",
            unit="s",
            exemplars=True,
            queries=quantiles(DOOR),
        ),
    ],
    [
        Panel(
            title="Busiest methods",
            about="A second.",
            unit="reqps",
            queries={"{{rpc_method}}": f"topk(10, {rate(f'{DOOR}_count', 'rpc_method')})"},
        ),
        Panel(
            title="How requests end",
            about="Status, a second.",
            unit="reqps",
            stacked=True,
            queries={
                "{{rpc_response_status_code}}": rate(f"{DOOR}_count", "rpc_response_status_code")
            },
        ),
        Panel(
            title="Slowest methods",
            about="One of 20 takes longer.",
            unit="s",
            exemplars=True,
            queries={"{{rpc_method}}": f"topk(10, {p95(DOOR, 'rpc_method')})"},
        ),
    ],
    [
        Panel(
            title="Circuits",
            about="Changes of state, a second.",
            unit="ops",
            runbooks=("WeftBreakerOpen",),
            queries={
                "{{agent}} {{state}}": f"sum by (agent, state) (rate(weft_gateway_breaker_transitions_total[{RATE}])) or vector(0)"
            },
        ),
        Panel(
            title="Refused by limits",
            about="A second, by the name of the limit; unshared: calls whose limits were kept without Redis.",
            unit="reqps",
            queries={
                "{{limit}}": f"sum by (limit) (rate(weft_gateway_limited_total[{RATE}])) or vector(0)",
                "unshared": f"sum(rate(weft_gateway_limits_unshared_total[{RATE}]))",
            },
            runbooks=("WeftCallsLimited", "WeftLimitsUnshared"),
        ),
        Panel(
            title="Second attempts",
            about="A second; exhausted: the budget allowed none.",
            unit="reqps",
            runbooks=("WeftRetriesSpent",),
            queries={
                "{{agent}} {{event}}": f"sum by (agent, event) (rate(weft_gateway_retries_total[{RATE}])) or vector(0)"
            },
        ),
    ],
    [
        Panel(
            title="Jobs",
            about="That have not ended, of all gateways.",
            queries={"{{state}}": "max by (state) (weft_gateway_jobs)"},
            stacked=True,
            runbooks=("WeftJobsWaiting",),
        ),
        Panel(
            title="Jobs that ended",
            about="A second, by how.",
            unit="ops",
            queries={"{{state}}": rate("weft_gateway_jobs_ended_total", "state")},
        ),
        Panel(
            title="Webhooks",
            about="Attempts a second; pending: not arrived yet.",
            unit="ops",
            runbooks=("WeftWebhooksDead",),
            queries={
                "{{outcome}}": f"sum by (outcome) (rate(weft_gateway_webhooks_total[{RATE}])) or vector(0)",
                "pending": "max(weft_gateway_webhooks_pending)",
            },
        ),
    ],
    [
        Panel(
            title="Cache",
            about="Calls of methods with a cache, a second.",
            unit="reqps",
            queries={
                "{{outcome}}": f"sum by (outcome) (rate(weft_gateway_cache_total[{RATE}])) or vector(0)"
            },
        ),
        Panel(
            title="Agents behind it",
            about="One of 20 calls takes agents longer; the difference to the doors is the gateway's own.",
            unit="s",
            queries={"{{rpc_method}}": f"topk(10, {p95(SERVER, 'rpc_method', AGENTS)})"},
        ),
        Panel(
            title="Oldest job that waits",
            about="For a gateway with room.",
            unit="s",
            warn=60,
            bad=300,
            queries={"": "max(weft_gateway_jobs_oldest_seconds)"},
            runbooks=("WeftJobsWaiting",),
        ),
    ],
    process(GATEWAY_OF, "instance"),
]

ORCHESTRATOR_OF = f'{AGENTS}, agents=~".*orchestrator.*"'
ORCHESTRATOR = [
    [
        Panel(
            title="Runs that go on",
            about="Of all orchestrators.",
            kind="stat",
            queries={"": "sum(max by (state) (weft_orchestrator_runs))"},
        ),
        Panel(
            title="Runs that fail",
            about="Share of those that end.",
            kind="stat",
            unit="percentunit",
            warn=0.02,
            bad=0.1,
            queries={"": share(RUN, 'state="failed"', "job")},
            runbooks=("WeftRunsFail",),
        ),
        Panel(
            title="Overdue",
            about="For how long the oldest run is due that no orchestrator takes.",
            kind="stat",
            unit="s",
            warn=5,
            bad=30,
            queries={"": "max(weft_orchestrator_runs_overdue_seconds)"},
            runbooks=("WeftRunsOverdue",),
        ),
        Panel(
            title="Decisions people are asked for",
            about="`weft approvals` lists them.",
            kind="stat",
            queries={"": "max(weft_orchestrator_approvals)"},
        ),
    ],
    [
        Panel(
            title="Runs by state",
            about="Queued: due, and nobody has it. Waiting: for people, time or messages.",
            stacked=True,
            queries={"{{state}}": "max by (state) (weft_orchestrator_runs)"},
            runbooks=("WeftRunsOverdue",),
        ),
        Panel(
            title="Runs that end",
            about="A second, by workflow and how.",
            unit="ops",
            queries={"{{workflow}} {{state}}": rate(f"{RUN}_count", "workflow, state")},
        ),
        Panel(
            title="Runs that fail by workflow",
            about="Share of those that end.",
            unit="percentunit",
            warn=0.02,
            bad=0.1,
            queries={"{{workflow}}": share(RUN, 'state="failed"', "workflow")},
            runbooks=("WeftRunsFail",),
        ),
    ],
    [
        Panel(
            title="How long runs take",
            about="From start to end, waiting for people included.",
            unit="s",
            queries=quantiles(RUN),
        ),
        Panel(
            title="How long runs take by workflow",
            about="One of 20 takes longer.",
            unit="s",
            queries={"{{workflow}}": p95(RUN, "workflow")},
        ),
        Panel(
            title="Overdue",
            about="For how long the oldest run is due that no orchestrator takes.",
            unit="s",
            warn=5,
            bad=30,
            queries={"": "max(weft_orchestrator_runs_overdue_seconds)"},
            runbooks=("WeftRunsOverdue",),
        ),
    ],
    [
        Panel(
            title="Steps",
            about="Calls the orchestrator makes, a second.",
            unit="reqps",
            queries={"{{rpc_method}}": rate(f"{CLIENT}_count", "rpc_method", ORCHESTRATOR_OF)},
        ),
        Panel(
            title="How long steps take",
            about="One of 20 takes longer.",
            unit="s",
            queries={"{{rpc_method}}": p95(CLIENT, "rpc_method", ORCHESTRATOR_OF)},
        ),
        Panel(
            title="PostgreSQL",
            about="Whether it answers the orchestrators.",
            unit="bool_yes_no",
            runbooks=("WeftPostgresDown",),
            queries={
                "{{instance}}": f'min by (instance) (weft_dependency_up{{dependency="postgres", {ORCHESTRATOR_OF}}})'
            },
        ),
    ],
    process(ORCHESTRATOR_OF, "instance"),
]

COST_PER = "weft_model_cost_usd_total"
COST = [
    [
        Panel(
            title="Spent within 24 hours",
            about="Where prices are known.",
            kind="stat",
            unit="currencyUSD",
            queries={"": f"sum(increase({COST_PER}[1d]))"},
            runbooks=("WeftModelSpend",),
        ),
        Panel(
            title="Spent an hour, now",
            about="At the present rate.",
            kind="stat",
            unit="currencyUSD",
            queries={"": f"sum(rate({COST_PER}[{RATE}])) * 3600"},
        ),
        Panel(
            title="Tokens a second",
            about="Of all kinds.",
            kind="stat",
            queries={"": f"sum(rate(weft_model_tokens_total[{RATE}]))"},
        ),
        Panel(
            title="Requests that fail",
            about="Share of requests to models.",
            kind="stat",
            unit="percentunit",
            warn=0.05,
            bad=0.2,
            queries={"": share(MODEL, 'outcome!="OK"', "job")},
            runbooks=("WeftModelErrors",),
        ),
    ],
    [
        Panel(
            title="Spending by agent",
            about="US dollars an hour.",
            unit="currencyUSD",
            stacked=True,
            queries={"{{weft_agent}}": f"sum by (weft_agent) (rate({COST_PER}[{RATE}])) * 3600"},
            runbooks=("WeftModelSpend",),
        ),
        Panel(
            title="Spending by model",
            about="US dollars an hour.",
            unit="currencyUSD",
            stacked=True,
            queries={
                "{{gen_ai_request_model}}": f"sum by (gen_ai_request_model) (rate({COST_PER}[{RATE}])) * 3600"
            },
            runbooks=("WeftModelSpend",),
        ),
        Panel(
            title="What a thousand requests cost",
            about="US dollars, by model.",
            unit="currencyUSD",
            queries={
                "{{gen_ai_request_model}}": f"1000 * sum by (gen_ai_request_model) (rate({COST_PER}[{RATE}])) / sum by (gen_ai_request_model) (rate({MODEL}_count[{RATE}]))"
            },
        ),
    ],
    [
        Panel(
            title="Tokens by kind",
            about="A second. cache_read is cheap, cache_write is not.",
            queries={"{{kind}}": rate("weft_model_tokens_total", "kind")},
        ),
        Panel(
            title="Tokens by agent",
            about="A second.",
            queries={"{{weft_agent}}": rate("weft_model_tokens_total", "weft_agent")},
        ),
        Panel(
            title="Tokens a request",
            about="By model, both ways.",
            queries={
                "{{gen_ai_request_model}}": f"{rate('weft_model_tokens_total', 'gen_ai_request_model')} / {rate(f'{MODEL}_count', 'gen_ai_request_model')}"
            },
        ),
    ],
    [
        Panel(
            title="Requests by model",
            about="A second.",
            unit="reqps",
            queries={"{{gen_ai_request_model}}": rate(f"{MODEL}_count", "gen_ai_request_model")},
        ),
        Panel(
            title="How requests end",
            about="OK, or the reason of the error, a second.",
            unit="reqps",
            stacked=True,
            queries={"{{outcome}}": rate(f"{MODEL}_count", "outcome")},
            runbooks=("WeftModelErrors",),
        ),
        Panel(
            title="How long models take",
            about="One of 20 requests takes longer.",
            unit="s",
            queries={"{{gen_ai_request_model}}": p95(MODEL, "gen_ai_request_model")},
            runbooks=("WeftSlowCalls",),
        ),
    ],
]

BOARDS: dict[str, tuple[str, list[list[Panel]]]] = {
    "mesh": ("Is everything there, and does it answer?", MESH),
    "agent": ("What agents do, how long it takes them, and what fails.", AGENT),
    "broker": ("Messages: what waits, what fails, what flows.", BROKER),
    "gateway": ("What callers from outside see, and what the guards do.", GATEWAY),
    "orchestrator": ("Runs of workflows.", ORCHESTRATOR),
    "cost": ("What models cost, and how well they answer.", COST),
}
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def _steps(panel: Panel) -> list[dict[str, Any]]:
    if panel.warn is None and panel.bad is None:
        return [{"color": "text" if panel.kind == "stat" else "green", "value": None}]
    if panel.warn is not None and panel.bad is not None and panel.bad < panel.warn:
        middle = panel.bad if panel.bad > 0 else panel.warn
        return [
            {"color": "red", "value": None},
            {"color": "yellow" if panel.bad > 0 else "green", "value": middle},
            {"color": "green", "value": panel.warn},
        ]
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.warn is not None and panel.warn != panel.bad:
        steps.append({"color": "yellow", "value": panel.warn})
    if panel.bad is not None:
        steps.append({"color": "red", "value": panel.bad})
    return steps


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + at),
            "datasource": _SOURCE,
            "expr": expression,
            "legendFormat": legend or "__auto",
            "exemplar": panel.exemplars,
            **({"format": "heatmap"} if panel.kind == "heatmap" else {}),
            **({"instant": True} if panel.kind == "stat" else {}),
        }
        for at, (legend, expression) in enumerate(panel.queries.items())
    ]
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "thresholds": {"mode": "absolute", "steps": _steps(panel)},
    }
    if panel.kind == "timeseries":
        lines = panel.warn is not None or panel.bad is not None
        defaults |= {
            "min": 0,
            "custom": {
                "fillOpacity": 30 if panel.stacked else 5,
                "lineWidth": 1,
                "showPoints": "never",
                "spanNulls": True,
                "stacking": {"mode": "normal" if panel.stacked else "none"},
                "thresholdsStyle": {"mode": "dashed" if lines else "off"},
            },
        }
    options: dict[str, dict[str, Any]] = {
        "timeseries": {
            "legend": {
                "displayMode": "table",
                "placement": "bottom",
                "calcs": ["mean", "max", "lastNotNull"],
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "stat": {
            "colorMode": "background" if len(_steps(panel)) > 1 else "value",
            "graphMode": "area",
            "reduceOptions": {"calcs": ["lastNotNull"]},
        },
        "heatmap": {
            "calculate": False,
            "yAxis": {"unit": "s"},
            "color": {"scheme": "Oranges", "mode": "scheme"},
        },
    }
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": place,
        "links": [
            {"title": f"Runbook: {name}", "url": f"{RUNBOOKS}/{name}.md", "targetBlank": True}
            for name in panel.runbooks
        ],
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options[panel.kind],
    }


def dashboard(name: str) -> dict[str, Any]:
    """A dashboard as Grafana reads it."""
    about, rows = BOARDS[name]
    panels, y = [], 0
    for row in rows:
        width, height = _WIDTH // len(row), _STAT if row[0].kind == "stat" else _HEIGHT
        for at, panel in enumerate(row):
            place = {"x": at * width, "y": y, "w": width, "h": height}
            panels.append(_panel(panel, len(panels) + 1, place))
        y += height
    variables: list[dict[str, Any]] = [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    ]
    if name == "agent":
        query = 'label_values(up{job="weft-agents"}, agents)'
        variables.append(
            {
                "name": "agents",
                "type": "query",
                "label": "Agents of a process",
                "datasource": _SOURCE,
                "query": {"query": query, "refId": "agents"},
                "definition": query,
                "refresh": 2,
                "sort": 1,
                "multi": True,
                "includeAll": True,
                "allValue": ".+",
                "current": {"text": "All", "value": "$__all"},
            }
        )
    return {
        "uid": f"weft-{name}",
        "title": f"Weft: {name}",
        "description": about,
        "tags": ["weft"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "graphTooltip": 1,
        "templating": {"list": variables},
        "annotations": {
            "list": [
                {
                    "name": "Alerts",
                    "datasource": _SOURCE,
                    "enable": True,
                    "iconColor": "red",
                    "expr": 'ALERTS{alertname=~"Weft.+", alertstate="firing"}',
                    "titleFormat": "{{alertname}}",
                }
            ]
        },
        "links": [
            {
                "type": "dashboards",
                "tags": ["weft"],
                "title": "Weft",
                "asDropdown": False,
                "includeVars": False,
                "keepTime": True,
            }
        ],
        "panels": panels,
    }


def main() -> None:
    """Writes the dashboards, or says which differ."""
    wrong = []
    for name in BOARDS:
        path = FOLDER / f"{name}.json"
        text = json.dumps(dashboard(name), indent=2) + "\n"
        if "--check" in sys.argv[1:]:
            if not path.exists() or path.read_text() != text:
                wrong.append(path.name)
        else:
            path.write_text(text)
    if wrong:
        sys.exit(f"{', '.join(wrong)}: not as tools/dashboards.py makes them; run it")


if __name__ == "__main__":
    main()
