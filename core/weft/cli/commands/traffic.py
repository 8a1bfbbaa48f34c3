"""`weft traffic`: how the calls of an agent find an instance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from weft.cli import control, failures, output, spreading
from weft.cli.control import agent_argument, reason_option
from weft.cli.options import configured, examples, json_option

if TYPE_CHECKING:
    from weft.config import Settings
    from weft.v1 import agent_pb2, traffic_pb2
    from weft.v1.lifecycle_pb2_grpc import LifecycleServiceAsyncStub

_ALL = (
    "subsets",
    "zones",
    "balancing",
    "hash_header",
    "outliers",
    "retries",
    "max_requests",
    "fault",
)
Change = Callable[["traffic_pb2.Traffic"], Sequence[str]]


@click.group(
    epilog=examples(
        "weft traffic show support-triage",
        "weft traffic split support-triage canary 10 --labels track=canary",
        "weft traffic set support-triage zones=prefer",
        "weft traffic fault support-triage --abort 20 --for 10m",
        "weft traffic reset support-triage",
    )
)
def traffic() -> None:
    """Say how calls of an agent find an instance; gRPC clients and the gateway follow within moments."""


@traffic.command(epilog=examples("weft traffic show support-triage"))
@agent_argument
@configured("registry")
@json_option
def show(*, settings: Settings, agent: str, as_json: bool) -> None:
    """Show what is in force, and the share of each instance's subset."""
    from weft.cli import connect

    connect.run(_show(settings, agent, as_json=as_json))


@traffic.command(
    epilog=examples(
        "weft traffic split support-triage canary 10 --labels track=canary",
        "weft traffic split support-triage next 50 --versions '>=2.0.0-0'",
        "weft traffic split support-triage canary 25",
        "weft traffic split support-triage canary --remove",
    )
)
@agent_argument
@click.argument("name")
@click.argument("percent", type=click.IntRange(0, 100), required=False)
@click.option("--labels", metavar="SELECTOR", help="Labels its instances have, as 'track=canary'.")
@click.option("--versions", metavar="RANGE", help="Versions its instances have, as '>=2.0.0-0'.")
@click.option("--remove", is_flag=True, help="Its instances are like all others again.")
@reason_option
@configured("registry")
@json_option
def split(
    *,
    settings: Settings,
    agent: str,
    name: str,
    percent: int | None,
    labels: str | None,
    versions: str | None,
    remove: bool,
    reason: str,
    as_json: bool,
) -> None:
    """Give a subset of the instances its own PERCENT of the calls; what is left goes to the rest."""
    if remove == (percent is not None):
        raise click.UsageError("Give a PERCENT, or --remove.")

    def change(found: traffic_pb2.Traffic) -> Sequence[str]:
        if remove:
            kept = [each for each in found.subsets if each.name != name]
            del found.subsets[:]
            found.subsets.extend(kept)
            return ("subsets",)
        own = next((each for each in found.subsets if each.name == name), None)
        own = own if own is not None else found.subsets.add(name=name)
        own.percent = percent or 0
        own.selector = own.selector if labels is None else labels
        own.versions = own.versions if versions is None else versions
        return ("subsets",)

    _put(settings, agent, change, reason, as_json=as_json)


@traffic.command(
    name="set",
    epilog=examples(
        "weft traffic set support-triage zones=prefer retries=1",
        "weft traffic set support-triage balancing=ring-hash header=x-session",
        "weft traffic set support-triage outliers=off",
        "weft traffic set support-triage balancing=",
    ),
)
@agent_argument
@click.argument("values", nargs=-1, required=True, metavar="NAME=VALUE...")
@reason_option
@configured("registry")
@json_option
def set_values(
    *, settings: Settings, agent: str, values: tuple[str, ...], reason: str, as_json: bool
) -> None:
    """Set how an instance is chosen; NAME= with no value takes it back.

    \b
    zones              prefer: stay in the caller's zone; spread (default)
    balancing          round-robin (default), weighted (by reported load), ring-hash (by a header)
    header             metadata that ring-hash goes by
    retries            second attempts of calls that may run twice, 0 to 4 (default: 3)
    max-requests       calls a gRPC client may have open at a time
    outliers           off: nobody is left alone for failing; on (default)
    outliers.failures  percent of failed calls from which on an instance is left alone (50)
    outliers.ejection  for how long at first, such as 10s (5s)
    outliers.ejected   percent of the instances that may be left alone at a time (50)
    """  # noqa: D301 click's mark for text that is not to be filled

    def change(found: traffic_pb2.Traffic) -> Sequence[str]:
        return [spreading.put(found, value) for value in values]

    _put(settings, agent, change, reason, as_json=as_json)


@traffic.command(
    epilog=examples(
        "weft traffic fault support-triage --abort 20 --for 10m",
        "weft traffic fault support-triage --delay 500ms --delayed 50 --for 1h",
        "weft traffic fault support-triage --abort 100 --code NOT_FOUND --header x-drill=yes --for 5m",
        "weft traffic fault support-triage --off",
    )
)
@agent_argument
@click.option("--abort", type=click.IntRange(1, 100), metavar="PERCENT", help="Calls that fail.")
@click.option("--code", default="UNAVAILABLE", show_default=True, help="Status they fail with.")
@click.option("--delay", metavar="DURATION", help="How long calls are held up, such as 500ms.")
@click.option(
    "--delayed",
    type=click.IntRange(1, 100),
    default=100,
    metavar="PERCENT",
    help="Of how many calls.",
)
@click.option("--header", metavar="NAME[=VALUE]", help="Only calls with this metadata.")
@click.option("--for", "lasting", metavar="DURATION", help="When it ends by itself, such as 10m.")
@click.option("--off", is_flag=True, help="End it now.")
@reason_option
@configured("registry")
@json_option
def fault(
    *,
    settings: Settings,
    agent: str,
    abort: int | None,
    code: str,
    delay: str | None,
    delayed: int,
    header: str | None,
    lasting: str | None,
    off: bool,
    reason: str,
    as_json: bool,
) -> None:
    """Make calls fail or wait on purpose, for a drill that ends by itself."""
    if off:
        _put(settings, agent, lambda found: _cleared(found, "fault"), reason, as_json=as_json)
        return
    if lasting is None or (abort is None and delay is None):
        raise click.UsageError("A drill needs --abort or --delay, and --for: when it ends.")
    ends = datetime.now(UTC) + control.duration(lasting)
    held_up = None if delay is None else control.duration(delay)
    number = spreading.code(code)
    name, _, value = (header or "").partition("=")

    def change(found: traffic_pb2.Traffic) -> Sequence[str]:
        found.ClearField("fault")
        drill = found.fault
        if abort is not None:
            drill.abort_percent, drill.abort_code = abort, number
        if held_up is not None:
            drill.delay_percent = delayed
            drill.delay.FromTimedelta(held_up)
        drill.header, drill.header_value = name, value
        drill.expire_time.FromDatetime(ends)
        return ("fault",)

    _put(settings, agent, change, reason, as_json=as_json)


@traffic.command(epilog=examples("weft traffic reset support-triage"))
@agent_argument
@reason_option
@configured("registry")
@json_option
def reset(*, settings: Settings, agent: str, reason: str, as_json: bool) -> None:
    """Take everything back that was said of an agent's traffic."""
    _put(settings, agent, lambda found: _cleared(found, *_ALL), reason, as_json=as_json)


def _cleared(found: traffic_pb2.Traffic, *names: str) -> Sequence[str]:
    for name in names:
        found.ClearField(name)  # type: ignore[arg-type]  # a field of Traffic
    return names


def _put(settings: Settings, agent: str, change: Change, reason: str, *, as_json: bool) -> None:
    from weft.cli import connect
    from weft.v1 import lifecycle_pb2

    async def act() -> None:
        found = (await control.asked(settings, control.getting(agent))).traffic
        paths = change(found)

        async def ask(stub: LifecycleServiceAsyncStub, metadata: Any) -> Any:
            request = lifecycle_pb2.SetTrafficRequest(
                agent=agent, traffic=found, update_paths=sorted(set(paths)), reason=reason
            )
            return await stub.SetTraffic(request, metadata=metadata, timeout=control.patience())

        await control.asked(settings, ask)
        await _show(settings, agent, as_json=as_json)

    connect.run(act())


async def _show(settings: Settings, name: str, *, as_json: bool) -> None:
    from weft.cli import connect

    async with connect.registry(settings.registry) as registry:
        agents = {agent.name: agent for agent in await registry.agents()}
    if name not in agents:
        raise failures.Failure(f"There is no agent {name!r}.{failures.nearest(name, agents)}")
    agent = agents[name]
    if as_json:
        output.print_json(output.as_json(agent.traffic))
        return
    out = output.console()
    for line in spreading.lines(agent.traffic):
        out.print(line, markup=False)
    output.print_table(
        ["INSTANCE", "SUBSET", ">PERCENT", "ZONE", "VERSION", "STATE"],
        [_row(agent, instance) for instance in agent.instances],
        "No instance is registered now.",
    )


def _row(agent: agent_pb2.Agent, instance: agent_pb2.Instance) -> list[Any]:
    from weft.v1 import agent_pb2

    state = agent_pb2.InstanceState.Name(instance.state).removeprefix("INSTANCE_STATE_")
    return [
        instance.instance_id[:8],
        instance.subset or "(rest)",
        str(spreading.percents(agent.traffic)[instance.subset]),
        instance.zone,
        instance.version,
        output.state(state),
    ]
