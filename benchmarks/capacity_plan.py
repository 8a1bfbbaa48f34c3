"""What a site of a size takes: the arithmetic of docs/capacity.md, from costs that capacity.py measured.

Every assumption is a field of Site, and an option of this command. Nothing is planned larger than was measured: a mesh
has at most the instances, agents and hosts of the largest points, and what needs more is several meshes.

python benchmarks/capacity_plan.py                          the sites of docs/capacity.md
python benchmarks/capacity_plan.py --people 2e6 --turns 20  one of your own
python benchmarks/capacity_plan.py --write                  tables and picture of docs/capacity.md, from the data
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import capacity_chart

HERE = Path(__file__).resolve().parent
DATA = HERE / "data" / "capacity.json"
PAGE = HERE.parent / "docs" / "capacity.md"
PICTURE = HERE.parent / "docs" / "capacity.svg"
_DAY = 86_400  # seconds

Costs = Mapping[str, Mapping[str, Mapping[str, float]]]
Points = Mapping[str, Sequence[Mapping[str, float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What is assumed of a site."""

    people: float = 1e5  # who use it on a day
    turns: float = 10  # questions each of them asks a day
    peak: float = 3  # busiest second / mean second
    calls: float = 4  # calls of agents for a turn, the one by the gateway among them
    messages: float = 1  # durable messages for a turn
    events: float = 200  # events in which the answer of a turn is streamed
    answering: float = 10  # seconds for which the stream of an answer is open
    working: float = 5  # seconds a call takes, nearly all of them at a model
    concurrency: float = 100  # calls an instance has in flight, waiting for models
    agents: float = 100  # with a contract each
    per_host: float = 20  # instances in one process
    followed: float = 10  # agents each process calls
    restarts: float = 3  # of each instance a day: releases, scaling, failures; two changes each
    waiting: float = 60  # seconds of messages that the broker can keep while consumers are away
    kept: float = 30  # days of messages in the archive
    busy: float = 0.5  # share of a core that is planned to be used
    tokens: float = 2_000  # of models for a turn, read and written
    million_tokens: float = 1.0  # US dollars
    core_hour: float = 0.04  # US dollars


SITES = {
    "a team": Site(people=1e3, agents=20, concurrency=10),
    "a company": Site(people=1e6, agents=300),
    "the internet": Site(people=1e9, agents=10_000),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the plan."""

    name: str
    value: float
    unit: str
    how: str


class Plan:
    """The arithmetic for one site."""

    def __init__(self, site: Site, costs: Costs, points: Points) -> None:
        self._site, self._costs, self._points = site, costs, points

    def rows(self) -> Iterator[Row]:
        """The plan."""
        site, each, most = self._site, self._each, self._most
        turns = site.people * site.turns / _DAY * site.peak
        calls, messages, events = turns * site.calls, turns * site.messages, turns * site.events
        inner = calls - turns
        streams = turns * site.answering
        in_flight = calls * site.working
        yield Row("turns", turns, "/s", "people x turns / day x peak")
        yield Row("calls of agents", calls, "/s", "turns x calls")
        yield Row("messages", messages, "/s", "turns x messages")
        yield Row("events to people", events, "/s", "turns x events")
        yield Row("open streams", streams, "", "turns x answering")
        yield Row("calls in flight", in_flight, "", "calls x working (Little's law)")

        instances = max(2 * site.agents, math.ceil(in_flight / site.concurrency))
        hosts = math.ceil(instances / site.per_host)
        largest = most("instances"), most("agents"), most("hosts")
        meshes = math.ceil(
            max(
                instances / largest[0],
                site.agents / largest[1],
                hosts / largest[2],
            )
        )
        yield Row("instances", instances, "", "in flight / concurrency; two of each agent at least")
        yield Row("processes of agents", hosts, "", "instances / per_host")
        yield Row("meshes", meshes, "", "none larger than was measured")

        gateway = (
            turns * self._call("rest_gateway_us") + events * each("events", "gateway_ms") * 1e3
        ) / 1e6
        agent = (
            turns * self._call("rest_agent_us")
            + inner * (self._call("direct_agent_us") + self._call("direct_caller_us"))
            + events * each("events", "agent_ms") * 1e3
        ) / 1e6
        queues = self._point("queues", site.agents / meshes)
        broker = messages * queues["broker_us"] / 1e6
        redis = messages * queues["redis_us"] / 1e6
        archive = messages * queues["postgres_us"] / 1e6
        yield Row("gateway", gateway / site.busy, "cores", "turns by REST + events")
        yield Row("", streams * each("streams_sse", "gateway_mb") / 1e3, "GB", "open streams")
        yield Row(
            "agents, without their own work",
            agent / site.busy,
            "cores",
            "calls, and events they say",
        )
        yield Row("", streams * each("streams_sse", "agent_mb") / 1e3, "GB", "open streams")
        yield Row("broker", broker / site.busy, "cores", "messages, over as many queues as agents")
        yield Row("Redis", redis / site.busy, "cores", "messages; a shard has one")
        waiting = messages * site.waiting * each("waiting", "redis_mb") / 1e3
        yield Row("", waiting, "GB", "messages that wait")
        yield Row("archive", archive / site.busy, "cores", "messages")
        stored = messages / site.peak * _DAY * site.kept * queues["archive_kb"] / 1e9
        yield Row("", stored, "TB", "messages of the days that are kept")

        memory, cpu, changes = self._registry(instances / meshes, hosts / meshes, meshes)
        yield Row(
            "registry, each of 3 replicas of a mesh", memory, "GB", "agents, instances, leases"
        )
        yield Row("", cpu / site.busy, "cores", "leases, and changes to all who follow the agent")
        yield Row("changes", changes, "/s of a mesh", "instances x restarts x 2 / day x peak")

        cores = gateway + agent + broker + redis + archive + 3 * meshes * cpu
        mesh_day = cores / site.peak / site.busy * 24 * site.core_hour
        model_day = site.people * site.turns * site.tokens / 1e6 * site.million_tokens
        yield Row("models", model_day, "$ a day", "turns x tokens x million_tokens")
        yield Row("all cores above", mesh_day, "$ a day", "at their mean use, core_hour")
        yield Row("of what the models cost", mesh_day / model_day * 100, "%", "")

    def _registry(self, instances: float, hosts: float, meshes: int) -> tuple[float, float, float]:
        """GB and cores a replica uses, and changes a second."""
        site, each = self._site, self._each
        agents = site.agents / meshes
        changes = instances * site.restarts * 2 / _DAY * site.peak
        replicas = 3
        # Whoever calls an agent hears of its changes: each process follows some of the agents.
        following = hosts * min(1.0, site.followed / max(1.0, agents)) / replicas
        told = each("clients", "change_ms") / 1e3 * following
        memory = (
            self._costs["hosts"]["registry_mb"]["base"]
            + agents * each("agents", "registry_mb")
            + instances * each("instances", "registry_mb")
            + hosts * each("hosts", "registry_mb")
        ) / 1e3
        cpu = hosts / replicas * each("hosts", "registry_cpu") + changes * (
            self._costs["watchers"]["change_ms"]["base"] / 1e3 + told
        )
        return memory, cpu, changes

    def _each(self, sweep: str, name: str) -> float:
        return self._costs[sweep][name]["each"]

    def _most(self, sweep: str) -> float:
        return self._points[sweep][-1]["n"]

    def _call(self, name: str) -> float:
        """Microseconds of a call, which do not depend on how many agents there are: the mean of all that was measured."""
        found = [point[name] for point in self._points["calls"]]
        return sum(found) / len(found)

    def _point(self, sweep: str, n: float) -> Mapping[str, float]:
        """The first measured point with at least so many, else the last."""
        points = self._points[sweep]
        return next((point for point in points if point["n"] >= n), points[-1])


def number(value: float) -> str:
    """For people: three digits, and thousands apart."""
    if 0 < value < 0.001:
        return "< 0.001"
    rounded = float(f"{value:.3g}")
    if rounded == int(rounded):
        return f"{rounded:,.0f}"
    return f"{rounded:,.{2 - math.floor(math.log10(rounded))}f}"


def plans(sites: Mapping[str, Site], data: Mapping[str, Any]) -> list[list[Row]]:
    """The rows of each site."""
    costs, points = data["figures"]["costs"], data["figures"]["points"]
    return [list(Plan(site, costs, points).rows()) for site in sites.values()]


def table(sites: Mapping[str, Site], data: Mapping[str, Any]) -> list[str]:
    """The plans beside each other, as Markdown."""
    found = plans(sites, data)
    lines = [
        f"| | {' | '.join(sites)} | |",
        f"|---|{'---:|' * len(sites)}---|",
    ]
    for rows in zip(*found, strict=True):
        values = " | ".join(f"{number(row.value)} {row.unit}".strip() for row in rows)
        lines.append(f"| {rows[0].name} | {values} | {rows[0].how} |")
    return lines


def assumptions(sites: Mapping[str, Site]) -> list[str]:
    """What is assumed, as Markdown, with the words of Site."""
    said = {
        line.split(":", 1)[0].strip(): line.split("#", 1)[1].strip()
        for line in Path(__file__).read_text(encoding="utf-8").splitlines()
        if ": float = " in line and "#" in line
    }
    lines = [f"| assumption | | {' | '.join(sites)} |", f"|---|---|{'---:|' * len(sites)}"]
    for field in fields(Site):
        values = " | ".join(number(getattr(site, field.name)) for site in sites.values())
        lines.append(f"| `{field.name}` | {said[field.name]} | {values} |")
    return lines


_COSTS = (
    ("an instance", "instances", "registry_mb", 1e3, "kB of each replica of the registry"),
    ("an agent with a contract of its own", "agents", "registry_mb", 1e3, "kB of each replica"),
    ("", "agents", "database_mb", 1e3, "kB of PostgreSQL"),
    ("a process with a lease", "hosts", "registry_mb", 1e3, "kB of its replica"),
    ("", "hosts", "registry_cpu", 1e6, "µs of CPU a second: its report and a health check each"),
    ("a watcher of everything", "watchers", "registry_mb", 1e3, "kB of its replica"),
    ("", "watchers", "change_ms", 1e3, "µs of CPU for each change"),
    ("an ADS client of all agents", "clients", "registry_mb", 1e3, "kB of its replica"),
    ("", "clients", "change_ms", 1e3, "µs of CPU for each change"),
    ("an open SSE stream", "streams_sse", "gateway_mb", 1e3, "kB of the gateway"),
    ("", "streams_sse", "agent_mb", 1e3, "kB of the agent"),
    ("an open gRPC stream by the gateway", "streams_grpc", "gateway_mb", 1e3, "kB of the gateway"),
    ("", "streams_grpc", "agent_mb", 1e3, "kB of the agent"),
    ("an event of a stream", "events", "gateway_ms", 1e3, "µs of CPU of the gateway"),
    ("", "events", "agent_ms", 1e3, "µs of CPU of the agent"),
    ("a waiting message of 1 kB", "waiting", "redis_mb", 1e3, "kB of Redis"),
)


def costs(data: Mapping[str, Any]) -> list[str]:
    """What one more costs, as Markdown."""
    lines = ["| one more | costs | | off the line |", "|---|---:|---|---:|"]
    for what, sweep, name, scale, unit in _COSTS:
        slope = data["figures"]["costs"][sweep][name]["each"] * scale
        off = data["ratios"][f"{sweep}.{name}"]
        lines.append(f"| {what} | {number(slope)} | {unit} | {off:.0%} |")
    return lines


def flat(data: Mapping[str, Any]) -> list[str]:
    """What a call costs, which does not grow with the mesh, and by its size; and a message, by queues. As Markdown."""
    points = data["figures"]["points"]
    lines = ["| | agent | gateway | caller |", "|---|---:|---:|---:|"]
    names = {
        "direct": "a call by `xds:///`",
        "grpc": "by the gateway, gRPC",
        "rest": "by the gateway, REST",
    }
    for sweep, of in (("calls", "{:,.0f} other agents"), ("call_bytes", "{:,.0f} bytes")):
        for way, name in names.items():
            for point in points[sweep]:
                cells = (point.get(f"{way}_{part}_us") for part in ("agent", "gateway", "caller"))
                values = " | ".join("" if cell is None else f"{cell:.0f} µs" for cell in cells)
                lines.append(f"| {name}, {of.format(point['n'])} | {values} |")
    return lines


def queues(data: Mapping[str, Any]) -> list[str]:
    """What a message costs by queues, as Markdown."""
    lines = [
        "| queues | broker | Redis | PostgreSQL | sender | consumer | messages a second |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    parts = ("broker", "redis", "postgres", "senders", "takers")
    for point in data["figures"]["points"]["queues"]:
        cells = " | ".join(f"{point[f'{part}_us']:.0f} µs" for part in parts)
        lines.append(f"| {point['n']:,.0f} | {cells} | {number(point['per_second'])} |")
    return lines


def written(page: str, data: Mapping[str, Any]) -> str:
    """The page with all that is generated in its place."""
    made = {
        "costs": costs(data),
        "calls": flat(data),
        "queues": queues(data),
        "assumptions": assumptions(SITES),
        "sites": table(SITES, data),
    }
    for name, lines in made.items():
        begin, end = f"<!-- {name}: capacity_plan.py --write -->\n", f"<!-- end of {name} -->"
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        page = before + begin + "\n".join(lines) + "\n" + end + after
    return page


def positive(text: str) -> float:
    """A number above 0. Raises ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def main() -> None:
    """Prints plans, or writes the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--costs", type=Path, default=DATA, help="what capacity.py --json printed")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--write", action="store_true", help="write docs/capacity.md and its picture"
    )
    parser.add_argument("--check", action="store_true", help="fail where --write would change them")
    for field in fields(Site):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", type=positive, help=f"({field.default})"
        )
    options = parser.parse_args()
    data = json.loads(options.costs.read_text(encoding="utf-8"))
    if options.write or options.check:
        made = {
            PAGE: written(PAGE.read_text(encoding="utf-8"), data),
            PICTURE: capacity_chart.chart(data["figures"]["points"]),
        }
        for path, text in made.items():
            if options.write:
                path.write_text(text, encoding="utf-8")
            elif path.read_text(encoding="utf-8") != text:
                sys.exit(f"{path.name} is not what the data says: capacity_plan.py --write")
        return
    own = {f.name: value for f in fields(Site) if (value := getattr(options, f.name)) is not None}
    sites = {"yours": replace(Site(), **own)} if own else SITES
    if options.json:
        found = plans(sites, data)
        print(
            json.dumps(
                {
                    name: [
                        {"name": r.name, "value": r.value, "unit": r.unit, "how": r.how}
                        for r in rows
                    ]
                    for name, rows in zip(sites, found, strict=True)
                }
            )
        )
        return
    for line in table(sites, data):
        print(line)


if __name__ == "__main__":
    main()
