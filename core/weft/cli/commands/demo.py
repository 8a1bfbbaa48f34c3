"""`weft demo`: a real question on its way through the mesh."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from typing import TYPE_CHECKING, Any

import click

from weft.cli import membership, output
from weft.cli.options import configured, examples, json_option, key_option

if TYPE_CHECKING:
    from rich.console import Console

    from weft.config import Settings
    from weft.support.v1 import supervisor_pb2, support_pb2
    from weft.v1 import trace_pb2

QUESTION = "I am still waiting on my card. It should have arrived a week ago, what can I do?"
_TRACE_WAIT = 5.0  # seconds


@click.command(epilog=examples("weft demo"))
@click.option("--question", default=QUESTION, metavar="TEXT", help="What to ask instead.")
@key_option
@configured("data", "gateway", "registry")
@json_option
def demo(*, settings: Settings, question: str, key: str | None, as_json: bool) -> None:
    """Show a real question going through the mesh and coming back as an answer with its sources.

    Uses the mesh that runs at --gateway; where none does it starts one of its own on free ports, with its
    data in DATA/demo, and stops it at the end.
    """
    from weft.cli.rest import Gateway, serves

    shown = _Demo(question, key or "", as_json=as_json)
    if serves(Gateway(url=settings.gateway, key=key or "", timeout=2.0)):
        shown.say(f"Using the mesh at {settings.gateway}.")
        asyncio.run(shown.ask(settings))
    else:
        _in_own_house(settings, shown)
    shown.finish()


def _in_own_house(settings: Settings, shown: _Demo) -> None:
    from weft.cli.house import HouseLock, any_ports, with_free_ports

    settings = dataclasses.replace(
        any_ports(settings),
        data=settings.data / "demo",
        trace_sample=1.0,
        gateway_auth="off",
        mtls="off",
    )
    membership.remember(settings)
    with HouseLock(settings.data) as lock:
        settings = with_free_ports(settings)
        lock.describe(settings.gateway)
        shown.say(f"Starting a mesh of its own; its data is in {settings.data}.")
        asyncio.run(_run(settings, shown))


async def _run(settings: Settings, shown: _Demo) -> None:
    from weft.cli.house import House, Interrupt

    house = House(settings, environ=os.environ, report=shown.say)
    with Interrupt(house.kill) as interrupt:
        try:
            async with house:
                await house.ready()
                await shown.ask(settings)
        except asyncio.CancelledError:
            if interrupt.asked:
                raise KeyboardInterrupt from None
            raise


class _Demo:
    """What the demonstration says, and what it found."""

    def __init__(self, question: str, key: str, *, as_json: bool) -> None:
        self._question = question
        self._key = key
        self._as_json = as_json
        self._began = time.monotonic()
        self._out: Console = output.console()
        self._found: dict[str, Any] = {}

    def say(self, text: str) -> None:
        """Progress, with the time it came at."""
        if not self._as_json:
            from rich.text import Text

            self._out.print(Text(f"{time.monotonic() - self._began:5.1f} s  {text}", style="dim"))

    async def ask(self, settings: Settings) -> None:
        """Asks, and shows steps, answer and trace."""
        from weft.cli import question, traced
        from weft.cli.rest import Gateway
        from weft.support.v1 import supervisor_pb2

        self._heading("Question", self._question)
        gateway = Gateway(url=settings.gateway, key=self._key, timeout=30.0)
        request = supervisor_pb2.HandleRequest(text=self._question)
        handled = await asyncio.to_thread(question.through, gateway, request, self._step)
        spans: list[trace_pb2.Span] = []
        if handled.trace_id:
            spans = await traced.spans(settings.registry, handled.trace_id, _TRACE_WAIT)
        self._show(handled, spans)

    def finish(self) -> None:
        """The last word."""
        if self._as_json:
            output.print_json(self._found)
        else:
            self._out.print()
            self.say("Done. `weft up` keeps a mesh running; `weft ask` asks it your own questions.")

    def _step(self, step: support_pb2.Step) -> None:
        if not self._as_json:
            from weft.cli import answer

            answer.follow(self._out, step)

    def _show(self, handled: supervisor_pb2.HandleResponse, spans: list[trace_pb2.Span]) -> None:
        from weft.cli import answer, waterfall

        if self._as_json:
            self._found = {
                "question": self._question,
                "result": output.as_json(handled),
                "trace": [output.as_json(span) for span in spans],
            }
            return
        self._heading("Answer")
        answer.show(self._out, handled)
        if spans:
            self._heading("Trace")
            waterfall.show(self._out, spans)

    def _heading(self, title: str, text: str = "") -> None:
        if self._as_json:
            return
        from rich.text import Text

        self._out.print()
        self._out.print(Text(title, style="bold"))
        if text:
            self._out.print(text)
