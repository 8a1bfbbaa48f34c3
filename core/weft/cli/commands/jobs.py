"""`weft jobs`: calls that nobody waits for, what became of them, and what is told of them by webhook."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import click

from weft.cli import failures, output, progress, rest, spans
from weft.cli.options import configured, examples, json_option, key_option

if TYPE_CHECKING:
    from datetime import timedelta

    from weft.config import Settings

_STATES = ("queued", "running", "succeeded", "failed", "cancelled")
_ENDED = _STATES[2:]
_SECONDS = 20.0
_LONGEST_WAIT = 15.0  # seconds a question of `wait` takes
_PAUSE = 1.0  # seconds before a stream that broke off is taken up again
_MOST_LOST = 10  # times in a row

_id_argument = click.argument("job", metavar="JOB")


@click.group(
    invoke_without_command=True,
    epilog=examples(
        "weft jobs",
        "weft jobs wait 9f1c0e6e2c3e4a57b1a0c2d4 --timeout 5m",
        "weft jobs watch 9f1c0e6e2c3e4a57b1a0c2d4",
        "weft jobs webhooks --state dead",
    ),
)
@configured("gateway")
@key_option
@json_option
@click.pass_context
def jobs(ctx: click.Context, *, settings: Settings, key: str | None, as_json: bool) -> None:
    """Show your jobs, and look after them; with no command, list the newest.

    Any call becomes a job with the header `Prefer: respond-async`. You see the jobs of your key alone.
    """
    if ctx.invoked_subcommand is None:
        _list(settings, key, {"pageSize": 50}, as_json=as_json)


@jobs.command(name="list", epilog=examples("weft jobs list --state running --limit 10"))
@click.option("--state", type=click.Choice(_STATES), help="Jobs in this state only.")
@click.option("--method", metavar="METHOD", help="Jobs of package.Service/Method only.")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True)
@configured("gateway")
@key_option
@json_option
def list_jobs(
    *,
    settings: Settings,
    state: str | None,
    method: str | None,
    limit: int,
    key: str | None,
    as_json: bool,
) -> None:
    """List jobs, the newest first."""
    query: dict[str, Any] = {"pageSize": limit}
    query |= {"state": f"JOB_STATE_{state.upper()}"} if state else {}
    query |= {"method": method} if method else {}
    _list(settings, key, query, as_json=as_json)


@jobs.command(epilog=examples("weft jobs get 9f1c0e6e2c3e4a57b1a0c2d4"))
@_id_argument
@configured("gateway")
@key_option
@json_option
def get(*, settings: Settings, job: str, key: str | None, as_json: bool) -> None:
    """Show one job, with its result when it has ended."""
    with _gateway(settings, key) as gateway:
        found = gateway.get(_path(job))
    _show(found, as_json=as_json)


@jobs.command(epilog=examples("weft jobs wait 9f1c0e6e2c3e4a57b1a0c2d4 --timeout 5m"))
@_id_argument
@click.option("--timeout", type=spans.Span(), metavar="TIME", help="How long; by default for ever.")
@configured("gateway")
@key_option
@json_option
def wait(
    *, settings: Settings, job: str, timeout: timedelta | None, key: str | None, as_json: bool
) -> None:
    """Wait until a job has ended, and show it; exit status 1 unless it succeeded."""
    until = None if timeout is None else time.monotonic() + timeout.total_seconds()
    with _gateway(settings, key) as gateway, progress.Counting("messages") as counting:
        while True:
            left = _LONGEST_WAIT if until is None else until - time.monotonic()
            asked = {"timeout": f"{min(max(left, 0.0), _LONGEST_WAIT):.3f}s"}
            found = gateway.post(f"{_path(job)}:wait", asked)
            counting.show(int(found.get("messageCount", 0)), f", {_state(found)}")
            if _state(found) in _ENDED or (until is not None and time.monotonic() >= until):
                break
    _show(found, as_json=as_json)
    if _state(found) not in _ENDED:
        raise failures.Failure("The job has not ended yet.")
    if _state(found) != "succeeded":
        sys.exit(1)


@jobs.command(epilog=examples("weft jobs watch 9f1c0e6e2c3e4a57b1a0c2d4 --after 7"))
@_id_argument
@click.option(
    "--after",
    type=click.IntRange(min=0),
    default=0,
    metavar="NUMBER",
    help="Messages behind this number only.",
)
@configured("gateway")
@key_option
@json_option
def watch(*, settings: Settings, job: str, after: int, key: str | None, as_json: bool) -> None:
    """Follow a job until it ends: its states, and the messages of its stream as they come.

    With --json, one line for each change. A connection that breaks off is taken up again.
    """
    with _gateway(settings, key) as gateway:
        for change in _changes(gateway, job, after):
            if as_json:
                output.print_line(change)
            elif "job" in change:
                click.echo(f"{datetime.now(UTC).astimezone():%H:%M:%S} {_state(change['job'])}")
            else:
                message = change["message"]
                click.echo(f"{message['number']:>8} {output.one_line(_content(message))}")


@jobs.command(epilog=examples("weft jobs cancel 9f1c0e6e2c3e4a57b1a0c2d4"))
@_id_argument
@configured("gateway")
@key_option
@json_option
def cancel(*, settings: Settings, job: str, key: str | None, as_json: bool) -> None:
    """Cancel a job: its call is dropped."""
    with _gateway(settings, key) as gateway:
        found = gateway.post(f"{_path(job)}:cancel", {})
    if as_json:
        output.print_json(found)
    elif found.get("cancelling"):
        click.echo(f"{job} is being cancelled.")
    else:
        click.echo(f"{job} is {_state(found)}.")


@jobs.command(epilog=examples("weft jobs delete 9f1c0e6e2c3e4a57b1a0c2d4"))
@_id_argument
@configured("gateway")
@key_option
def delete(*, settings: Settings, job: str, key: str | None) -> None:
    """Forget a job that has ended, with its result."""
    with _gateway(settings, key) as gateway:
        gateway.delete(_path(job))
    click.echo(f"{job} is forgotten.")


@jobs.command(
    epilog=examples("weft jobs webhooks --state dead", "weft jobs redeliver msg_9f1c0e6e2c3e")
)
@click.option(
    "--state",
    type=click.Choice(["pending", "delivered", "dead"]),
    help="Deliveries in this state only; dead: those that were given up.",
)
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True)
@configured("gateway")
@key_option
@json_option
def webhooks(
    *, settings: Settings, state: str | None, limit: int, key: str | None, as_json: bool
) -> None:
    """List what was told, or is to be told, of ended jobs by webhook, the newest first."""
    query = {"pageSize": limit} | ({"state": f"WEBHOOK_STATE_{state.upper()}"} if state else {})
    with _gateway(settings, key) as gateway:
        found = gateway.get(f"/v1/webhooks?{urlencode(query)}").get("webhooks", [])
    if as_json:
        output.print_json(found)
        return
    output.print_table(
        ["WEBHOOK", "STATE", "URL", ">ATTEMPTS", "NEXT", "PROBLEM"],
        [
            [
                one["id"],
                output.state(_state(one)),
                one["url"],
                str(one.get("attempts", 0)),
                output.until(_moment(one["dueTime"])) if "dueTime" in one else "",
                one.get("problem", ""),
            ]
            for one in found
        ],
        "There is no webhook.",
    )


@jobs.command(epilog=examples("weft jobs redeliver msg_9f1c0e6e2c3e4a57b1a0c2d4"))
@click.argument("webhook", metavar="WEBHOOK")
@configured("gateway")
@key_option
@json_option
def redeliver(*, settings: Settings, webhook: str, key: str | None, as_json: bool) -> None:
    """Try a webhook again that was given up."""
    with _gateway(settings, key) as gateway:
        found = gateway.post(f"/v1/webhooks/{quote(webhook, safe='')}:retry", {})
    if as_json:
        output.print_json(found)
    else:
        click.echo(f"{webhook} is tried again.")


@contextmanager
def _gateway(settings: Settings, key: str | None) -> Iterator[rest.Gateway]:
    try:
        yield rest.Gateway(url=settings.gateway, key=key or "", timeout=_SECONDS)
    except rest.GatewayUnreachable as closed:
        raise failures.Failure(
            f"The gateway at {settings.gateway} cannot be reached. Start everything with `weft up`, "
            "or name another gateway with --gateway or WEFT_GATEWAY."
        ) from closed


def _list(settings: Settings, key: str | None, query: dict[str, Any], *, as_json: bool) -> None:
    with _gateway(settings, key) as gateway:
        found = gateway.get(f"/v1/jobs?{urlencode(query)}").get("jobs", [])
    if as_json:
        output.print_json(found)
        return
    output.print_table(
        ["JOB", "STATE", "METHOD", ">MESSAGES", "BEGUN", "TOOK", "EXPIRES"],
        [
            [
                one["id"],
                output.state(_state(one)),
                one["method"],
                str(one.get("messageCount", "")),
                output.moment(_moment(one["createTime"])),
                _took(one),
                output.until(_moment(one["expireTime"])) if "expireTime" in one else "",
            ]
            for one in found
        ],
        "You have no job.",
    )


def _changes(gateway: rest.Gateway, job: str, after: int) -> Iterator[dict[str, Any]]:
    from weft import rpc

    lost, told = 0, ""
    while True:
        try:
            for change in gateway.events(f"{_path(job)}:watch?after={after}"):
                lost = 0
                if "message" in change:
                    after = int(change["message"]["number"])
                elif (state := _state(change["job"])) == told:
                    continue  # said before the connection broke off
                else:
                    told = state
                yield change
                if told in _ENDED:
                    return
        except (rpc.Unavailable, rpc.DeadlineExceeded, rest.GatewayUnreachable, OSError):
            lost += 1
            if lost > _MOST_LOST or not told:
                raise
            time.sleep(_PAUSE)


def _show(job: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.print_json(job)
        return
    out = output.console()
    rows = [
        ("job", job["id"]),
        ("state", output.state("cancelling" if job.get("cancelling") else _state(job))),
        ("method", f"{job['method']} of {job['agent']}"),
        ("begun", output.moment(_moment(job["createTime"]))),
        ("took", _took(job)),
        ("messages", job.get("messageCount", "")),
        ("losses", job.get("losses", "")),
        ("expires", output.until(_moment(job["expireTime"])) if "expireTime" in job else ""),
        ("webhook", job.get("webhookUrl", "")),
    ]
    for name, value in rows:
        if value:
            out.print(f"{name:10}", value, sep="")
    if "error" in job:
        out.print(f"\n{job['error']['code']}: {job['error'].get('message', '')}")
    if "response" in job:
        out.print()
        output.print_json(_content({"content": job["response"]}))


def _content(message: dict[str, Any]) -> Any:
    content = message["content"]
    return content.get("json", content.get("binary"))


def _took(job: dict[str, Any]) -> str:
    if "startTime" not in job:
        return ""
    end = _moment(job["endTime"]) if "endTime" in job else datetime.now(UTC)
    return output.milliseconds(end - _moment(job["startTime"]))


def _state(one: dict[str, Any]) -> str:
    return str(one["state"]).rpartition("STATE_")[2].lower()


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _path(job: str) -> str:
    return f"/v1/jobs/{quote(job, safe='')}"
