"""`weft alerts`: tells alerts to a webhook."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import click

from weft.cli import failures, part
from weft.cli.options import configured, examples

if TYPE_CHECKING:
    from weft.config import Settings

_ANYWHERE = ("0.0.0.0/0", "::/0")  # whoever runs it names the receiver


@click.command(
    epilog=examples(
        "weft alerts --to https://discord.com/api/webhooks/ID/TOKEN --format discord",
        "WEFT_ALERTS_TO=https://hooks.slack.com/services/... weft alerts --format slack",
    )
)
@configured(listen="alerts_listen", to="alerts_to", format="alerts_format", log_format="log_format")
@part.supervisor_option
def alerts(*, settings: Settings, supervised: str | None) -> None:
    """Tell alerts of Prometheus to a webhook: Discord, Slack, or JSON.

    It stands where Prometheus expects an Alertmanager (deploy/prometheus/prometheus.yml), or behind an
    Alertmanager, as the receiver of a webhook at /webhook. What begins and what ends is told, once, and again
    and again until it is answered 2xx. The URL of a receiver is a secret: WEFT_ALERTS_TO keeps it out of the
    list of processes.
    """
    if not settings.alerts_to:
        raise failures.WrongSetting(
            "Nobody to tell: give --to or WEFT_ALERTS_TO, the URL of a webhook."
        )
    part.run(_serve(settings, supervised), supervised)


async def _serve(settings: Settings, supervised: str | None) -> None:
    from weft.alerts import FORMS, App, Board, Outbox, Teller
    from weft.telemetry import logs
    from weft.webhooks import Targets, parse_secret

    logs.setup("alerts", form=part.log_format(settings), level=settings.log_level)
    targets = Targets(_ANYWHERE, plaintext=True)
    with failures.settings_checked("WEFT_ALERTS_TO, WEFT_ALERTS_SECRET"):
        targets.check(settings.alerts_to)
        secret = parse_secret(settings.alerts_secret) if settings.alerts_secret else b""
    outbox = Outbox(settings.alerts_to, secret)
    app = App(Board(), outbox, FORMS[settings.alerts_format])
    async with (
        _listening(settings.alerts_listen, app) as address,
        _doing(Teller(outbox, outbox, targets).run()),
        _doing(app.run()),
    ):
        await part.until_stopped(_serving(address, supervised))


async def _serving(address: str, supervised: str | None) -> None:
    part.announce(supervised, address=address)
    await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def _listening(listen: str, app: Any) -> AsyncIterator[str]:
    """An HTTP server with an application, and its address."""
    import socket

    import uvicorn

    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((host.strip("[]"), int(port)))
    except (OSError, ValueError, OverflowError) as failed:
        taken.close()
        raise failures.WrongSetting(
            f"Cannot listen on {listen}: stop what uses it, or choose another by --listen."
        ) from failed
    server = _Server(
        uvicorn.Config(
            app, lifespan="off", access_log=False, log_config=None, timeout_keep_alive=75
        )
    )
    serving = asyncio.create_task(server.serve([taken]), name="alerts")
    try:
        yield f"{host}:{taken.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        taken.close()


def _Server(config: Any) -> Any:
    import uvicorn

    class Quiet(uvicorn.Server):
        """Leaves signals to the command."""

        @contextlib.contextmanager
        def capture_signals(self) -> Any:
            yield

    return Quiet(config)


@contextlib.asynccontextmanager
async def _doing(work: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
