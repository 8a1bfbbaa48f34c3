"""`weft call`: any skill of any agent, typed by what the registry knows of it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from weft.cli import complete, failures, output
from weft.cli.options import configured, examples

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from weft.cli.catalog import Skill
    from weft.config import Settings


@click.command(
    epilog=examples(
        'weft call support-triage.Classify \'{"text": "My card has not arrived yet"}\'',
        "weft call support-triage.Classify --template > request.json",
        "weft call support-triage.Classify @request.json --timeout 2 --wait 10",
    )
)
@click.argument("target", metavar="AGENT.METHOD", shell_complete=complete.skills)
@click.argument("request_json", metavar="[JSON|@FILE|-]", default="{}")
@click.option("--template", is_flag=True, help="Print a request with every field and its type.")
@click.option(
    "--timeout", type=float, metavar="SECONDS", help="Deadline; by default what the skill declares."
)
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Wait that long for the agent to be in service.",
)
@configured("registry")
def call(
    *,
    settings: Settings,
    target: str,
    request_json: str,
    template: bool,
    timeout: float | None,
    wait: float,
) -> None:
    """Call a skill of an agent and print its answer in JSON.

    The request is JSON, `@FILE`, or `-` for standard input; // comments in it are fine. A skill that
    streams answers prints one a line; one that takes a stream takes one document after another.
    """
    from weft.cli import connect

    agent, _, method = target.partition(".")
    if not method:
        raise click.UsageError(
            f"{target!r} is not AGENT.METHOD, such as support-triage.Classify; press Tab to see all."
        )
    if timeout is not None and timeout <= 0:
        raise click.UsageError("--timeout must be more than 0 seconds.")
    text = "" if template else _read(request_json)
    connect.run(_run(settings, agent, method, text, timeout, template=template, wait=wait))


def _read(given: str) -> str:
    try:
        if given == "-":
            return sys.stdin.read()
        return Path(given[1:]).read_text() if given.startswith("@") else given
    except (OSError, UnicodeDecodeError) as failed:
        raise failures.WrongSetting(f"The request cannot be read: {failed}") from failed


async def _run(
    settings: Settings,
    agent: str,
    method: str,
    text: str,
    timeout: float | None,  # noqa: ASYNC109 gRPC's own
    *,
    template: bool,
    wait: float,
) -> None:
    from weft.cli import catalog, connect, identities
    from weft.cli.template import render

    async with connect.registry(settings.registry) as registry:
        if wait:
            await registry.until_in_service(agent, wait)
        instances = await registry.agent(agent)
        # Replicas may differ in version for a while; any of them may get the call.
        services = {s.name: s for instance in instances for s in instance.services}.values()
        sets = await registry.descriptors(catalog.digests(services))
    skill = catalog.find(catalog.skills(services, sets), method, agent)
    if template:
        click.echo(render(skill.method.input_type))
        return
    requests = _requests(skill, text)
    identity = identities.operator(settings)
    async with connect.to_agent(settings.registry, agent, identity, zone=settings.zone) as channel:
        async for response in _responses(channel, skill, requests, timeout):
            document = _document(response, skill)
            if skill.streams[1]:
                output.print_line(document)
            else:
                output.print_json(document)


def _requests(skill: Skill, text: str) -> list[Message]:
    from google.protobuf import json_format

    from weft.cli import documents

    about = "`--template` prints a request to fill in."
    try:
        found = [
            json_format.ParseDict(document, skill.request_class(), descriptor_pool=skill.pool)
            for document in documents.read(text)
        ]
    except (ValueError, json_format.ParseError) as failed:
        name = skill.method.input_type.full_name
        why = " ".join(str(failed).split()).rstrip(".")
        raise failures.WrongSetting(f"The request is no {name}: {why}. {about}") from failed
    if not skill.streams[0] and len(found) != 1:
        raise failures.WrongSetting(
            f"{skill.method.name} takes one request, {len(found)} were given. {about}"
        )
    return found


def _responses(
    channel: Any,
    skill: Skill,
    requests: list[Message],
    timeout: float | None,
) -> AsyncIterator[Message]:
    from weft.cli import connect

    makers = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }
    made = makers[skill.streams](
        skill.path, skill.request_class.SerializeToString, skill.response_class.FromString
    )
    if timeout is None:  # the channel knows only contracts that are part of this program
        timeout = skill.options.default_timeout.ToTimedelta().total_seconds() or None
    started = made(
        _each(requests) if skill.streams[0] else requests[0],
        timeout=timeout,
        metadata=connect.traced_metadata(),
    )
    return started if skill.streams[1] else _one(started)


async def _each(requests: list[Message]) -> AsyncIterator[Message]:
    for request in requests:
        yield request


async def _one(started: Any) -> AsyncIterator[Message]:
    yield await started


def _document(message: Message, skill: Skill) -> Any:
    from google.protobuf import json_format

    return json_format.MessageToDict(message, descriptor_pool=skill.pool)
