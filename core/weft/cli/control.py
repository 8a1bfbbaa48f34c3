"""`weft agents pause`, `drain`, `resume`, `set`, `control` and `events`: what operators do to agents that run."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any

import click

from weft.cli import complete, failures, output
from weft.cli.options import configured, examples, json_option

if TYPE_CHECKING:
    import grpc

    from weft.config import Settings
    from weft.v1 import lifecycle_pb2
    from weft.v1.lifecycle_pb2_grpc import LifecycleServiceAsyncStub

_OBEYED = 10.0  # seconds instances get to do as told before the command says which did not
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_NUMBER = re.compile(r"[0-9]{1,9}")
_LONGEST = 365 * 86_400.0  # seconds
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0}

agent_argument = click.argument("agent", shell_complete=complete.agents)
_instances = click.option(
    "--instance",
    "instances",
    multiple=True,
    metavar="ID",
    help="Only this instance, by its id or the beginning of it; may be repeated. Default: all, and later ones.",
)
reason_option = click.option("--reason", default="", help="Why, for the record; callers are told.")

Ask = Callable[["LifecycleServiceAsyncStub", "grpc.aio.Metadata"], Awaitable[Any]]


@click.command(
    epilog=examples(
        "weft agents pause support-solution --reason 'wrong prices in the articles'",
        "weft agents pause support-solution --instance 3f9c2a",
    )
)
@agent_argument
@_instances
@reason_option
@configured("registry")
@json_option
def pause(
    *, settings: Settings, agent: str, instances: tuple[str, ...], reason: str, as_json: bool
) -> None:
    """Pause an agent: calls are refused, saying why, and messages wait.

    What is in hand is finished. Lasts until `weft agents resume`, over restarts of everything.
    """
    _hold("PauseAgent", settings, agent, instances, reason, as_json=as_json)


@click.command(epilog=examples("weft agents drain support-triage --instance 3f9c2a"))
@agent_argument
@_instances
@reason_option
@configured("registry")
@json_option
def drain(
    *, settings: Settings, agent: str, instances: tuple[str, ...], reason: str, as_json: bool
) -> None:
    """Drain instances: they finish what they have, new calls and messages go to the others."""
    _hold("DrainAgent", settings, agent, instances, reason, as_json=as_json)


@click.command(epilog=examples("weft agents resume support-solution"))
@agent_argument
@_instances
@reason_option
@configured("registry")
@json_option
def resume(
    *, settings: Settings, agent: str, instances: tuple[str, ...], reason: str, as_json: bool
) -> None:
    """Let a paused or drained agent go on."""
    _hold("ResumeAgent", settings, agent, instances, reason, as_json=as_json)


@click.command(
    name="set",
    epilog=examples(
        "weft agents set support-triage concurrency=20 timeout.Classify=2s",
        "weft agents set support-solution model=small prompt.answer=3",
        "weft agents set support-solution model=",
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
    """Set how an agent works while it runs; NAME= with no value takes it back.

    \b
    concurrency        calls an instance works on at a time
    timeout.METHOD     most time a call may take, such as 500ms or 2s
    model              name of the model its questions go to
    prompt.NAME        version of a prompt
    """  # noqa: D301 click's mark for text that is not to be filled
    from weft.v1 import lifecycle_pb2

    wanted, paths = _settings(values)

    async def ask(stub: LifecycleServiceAsyncStub, metadata: Any) -> Any:
        request = lifecycle_pb2.SetAgentRequest(
            agent=agent,
            settings=wanted,
            update_paths=paths,
            reason=reason,
        )
        return await stub.SetAgent(request, metadata=metadata, timeout=patience())

    _act(settings, agent, ask, as_json=as_json)


@click.command(epilog=examples("weft agents control support-solution"))
@agent_argument
@configured("registry")
@json_option
def control(*, settings: Settings, agent: str, as_json: bool) -> None:
    """Show what operators have set of an agent, and which instances do as told."""
    from weft.cli import connect

    found = connect.run(asked(settings, getting(agent)))
    _show(found, as_json=as_json)


@click.command(epilog=examples("weft agents events", "weft agents events support-solution"))
@click.argument("agent", required=False, default="", shell_complete=complete.agents)
@click.option("--limit", type=click.IntRange(1, 1_000), default=20, help="Most to show.")
@configured("registry")
@json_option
def events(*, settings: Settings, agent: str, limit: int, as_json: bool) -> None:
    """Show what operators did to agents, the latest first."""
    from weft.cli import connect
    from weft.v1 import lifecycle_pb2

    async def ask(stub: LifecycleServiceAsyncStub, metadata: Any) -> Any:
        request = lifecycle_pb2.ListControlEventsRequest(agent=agent, page_size=limit)
        return await stub.ListControlEvents(request, metadata=metadata, timeout=patience())

    found = connect.run(asked(settings, ask)).events
    if as_json:
        output.print_json([output.as_json(event) for event in found])
        return
    output.print_table(
        ["WHEN", "AGENT", "WHAT", "BY", "FROM", "REASON"],
        [
            [
                output.moment(event.create_time.ToDatetime(UTC)),
                event.agent,
                _what(event),
                event.identity.subject,
                event.peer,
                event.reason,
            ]
            for event in found
        ],
        "No operator did anything yet.",
    )


COMMANDS = (pause, drain, resume, set_values, control, events)


def _hold(
    method: str,
    settings: Settings,
    agent: str,
    instances: Sequence[str],
    reason: str,
    *,
    as_json: bool,
) -> None:
    from weft.v1 import lifecycle_pb2

    async def ask(stub: LifecycleServiceAsyncStub, metadata: Any) -> Any:
        ids = await _whole_ids(stub, agent, instances) if instances else []
        request = getattr(lifecycle_pb2, f"{method}Request")(
            agent=agent, instance_ids=ids, reason=reason
        )
        return await getattr(stub, method)(request, metadata=metadata, timeout=patience())

    _act(settings, agent, ask, as_json=as_json)


def _act(settings: Settings, agent: str, ask: Ask, *, as_json: bool) -> None:
    from weft.cli import connect

    async def act() -> lifecycle_pb2.Control:
        done = await asked(settings, ask)
        return await _obeyed(settings, agent, done.control.version)

    _show(connect.run(act()), as_json=as_json)


async def asked(settings: Settings, ask: Ask) -> Any:
    """What the registry answers an operator."""
    import grpc

    from weft.cli import connect, identities
    from weft.rpc.call import IDENTITY_KEY
    from weft.v1 import lifecycle_pb2_grpc

    who = identities.operator(settings)
    metadata = grpc.aio.Metadata(*([(IDENTITY_KEY, who.SerializeToString())] if who else []))
    async with connect.registry(settings.registry) as registry:
        return await ask(lifecycle_pb2_grpc.LifecycleServiceStub(registry.channel), metadata)


async def _obeyed(settings: Settings, agent: str, version: int) -> lifecycle_pb2.Control:
    """What is in force once every instance does as told, or when it has had its time."""
    from weft.cli import connect
    from weft.v1 import registry_pb2, registry_pb2_grpc

    async with connect.registry(settings.registry) as registry:
        watch = registry_pb2_grpc.RegistryServiceStub(registry.channel).Watch(
            registry_pb2.WatchRequest(agents=[agent]), timeout=_OBEYED + 1
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_OBEYED):
                async for change in watch:
                    instances = [i for found in change.agents for i in found.instances]
                    if all(i.applied.version >= version for i in instances):
                        break
        watch.cancel()
    found: lifecycle_pb2.Control = await asked(settings, getting(agent))
    return found


def getting(agent: str) -> Ask:
    """Asks for the Control of an agent."""
    from weft.v1 import lifecycle_pb2

    async def get(stub: LifecycleServiceAsyncStub, metadata: Any) -> Any:
        request = lifecycle_pb2.GetControlRequest(agent=agent)
        return (await stub.GetControl(request, metadata=metadata, timeout=patience())).control

    return get


async def _whole_ids(
    stub: LifecycleServiceAsyncStub, agent: str, given: Sequence[str]
) -> list[str]:
    """Ids of instances by their beginnings, as tables show them."""
    from weft.v1 import lifecycle_pb2

    request = lifecycle_pb2.GetControlRequest(agent=agent)
    known = (await stub.GetControl(request, timeout=patience())).control.instances
    ids = [instance.instance_id for instance in known]
    whole = []
    for beginning in given:
        found = [one for one in ids if one.startswith(beginning)]
        if len(found) != 1:
            many = "several instances whose ids begin" if found else "no instance whose id begins"
            raise failures.Failure(
                f"{agent} has {many} with {beginning!r}. `weft agents control {agent}` lists them."
            )
        whole += found
    return whole


def _settings(values: Sequence[str]) -> tuple[lifecycle_pb2.AgentSettings, list[str]]:
    from weft.v1 import lifecycle_pb2

    settings = lifecycle_pb2.AgentSettings()
    paths = []
    for value in values:
        name, sign, given = value.partition("=")
        kind, _, key = name.partition(".")
        if not sign or (kind in {"timeout", "prompt"}) != bool(key):
            raise click.UsageError(f"{value!r} is not NAME=VALUE, such as concurrency=20.")
        match kind:
            case "concurrency":
                paths.append("max_concurrency")
                settings.max_concurrency = whole_number("concurrency", given or "0")
            case "timeout":
                paths.append(f"timeouts.{key}")
                if given:
                    settings.timeouts[key].FromTimedelta(duration(given))
            case "model":
                paths.append("model")
                settings.model = given
            case "prompt":
                paths.append(f"prompts.{key}")
                if given:
                    settings.prompts[key] = given
            case _:
                names = ["concurrency", "timeout.METHOD", "model", "prompt.NAME"]
                hint = failures.nearest(kind, [each.partition(".")[0] for each in names])
                raise click.UsageError(f"There is no {kind!r} to set.{hint} {', '.join(names)}.")
    return settings, paths


def whole_number(name: str, given: str) -> int:
    """A number as a uint32 holds it."""
    if not _NUMBER.fullmatch(given):
        raise click.UsageError(f"{name} is a whole number of at most 9 digits, and not {given!r}.")
    return int(given)


def duration(given: str) -> timedelta:
    """A duration as people write it."""
    found = _DURATION.fullmatch(given)
    if found is None:
        raise click.UsageError(f"{given!r} is no duration, such as 500ms, 2s or 1.5m.")
    seconds = float(found[1]) * _UNITS[found[2]]
    if seconds > _LONGEST:
        raise click.UsageError(f"{given!r} is too long: nothing here lasts for more than a year.")
    return timedelta(seconds=seconds)


def _what(event: lifecycle_pb2.ControlEvent) -> str:
    only = ", ".join(one[:8] for one in event.instance_ids)
    if event.action == "traffic":
        names = event.update_paths or [field.name for field, _ in event.traffic.ListFields()]
        return f"traffic: {', '.join(names)}"
    if event.action != "set":
        return f"{event.action} {only}".rstrip()
    return f"set {', '.join(_lines(event.settings)) or 'back'}"


def _lines(settings: lifecycle_pb2.AgentSettings) -> list[str]:
    lines = []
    if settings.max_concurrency:
        lines.append(f"concurrency={settings.max_concurrency}")
    for name, span in sorted(settings.timeouts.items()):
        lines.append(f"timeout.{name}={span.ToTimedelta().total_seconds():g}s")
    if settings.model:
        lines.append(f"model={settings.model}")
    lines += [f"prompt.{name}={version}" for name, version in sorted(settings.prompts.items())]
    return lines


def _show(found: lifecycle_pb2.Control, *, as_json: bool) -> None:
    from weft.v1 import agent_pb2

    if as_json:
        output.print_json(output.as_json(found))
        return
    out = output.console()
    if found.HasField("hold"):
        state = agent_pb2.InstanceState.Name(found.hold.state).removeprefix("INSTANCE_STATE_")
        why = f": {found.hold.reason}" if found.hold.reason else ""
        out.print(f"{found.agent} is {state}{why}")
    if lines := _lines(found.settings):
        out.print(f"set: {', '.join(lines)}")
    output.print_table(
        ["INSTANCE", "STATE", "DOES AS TOLD", "WHAT IT CANNOT DO"],
        [
            [
                one.instance_id[:8],
                output.state(
                    agent_pb2.InstanceState.Name(one.state).removeprefix("INSTANCE_STATE_")
                ),
                "yes" if one.applied.version >= found.version else "not yet",
                "; ".join(one.applied.problems),
            ]
            for one in found.instances
        ],
        "No instance is registered now; those that come do as told.",
    )


def patience() -> float:
    """Seconds the registry may take."""
    from weft.cli import connect

    return connect.PATIENCE
