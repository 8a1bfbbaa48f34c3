"""What `weft up` shows while it runs: a table on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Self

from weft.cli import output
from weft.cli.house.child import Child, State

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from weft.cli.house.house import House

_EVENTS = 6  # latest events shown below the table
_REFRESH = 4  # times a second


class Lines:
    """Plain lines, for logs and pipes."""

    def __init__(self) -> None:
        self._out = output.console()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to undo."""

    def watch(self, house: House) -> None:
        """Lines come by `report` alone."""

    def report(self, text: str) -> None:
        """Says what happened."""
        self._out.print(text)

    def welcome(self, lines: Sequence[str]) -> None:
        """Says where everything is."""
        for line in lines:
            self._out.print(line)


class Table:
    """A live table of parts, the latest events below it."""

    def __init__(self) -> None:
        from rich.live import Live

        self._events: deque[str] = deque(maxlen=_EVENTS)
        self._house: House | None = None
        self._addresses: Sequence[str] = ()
        self._live = Live(
            get_renderable=self._render,
            console=output.console(),
            refresh_per_second=_REFRESH,
            transient=False,
        )

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failed: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, failed, trace)

    def watch(self, house: House) -> None:
        """Shows the parts of this house from now on."""
        self._house = house

    def report(self, text: str) -> None:
        """Says what happened."""
        self._events.append(text)

    def welcome(self, lines: Sequence[str]) -> None:
        """Shows where everything is, from now on."""
        self._addresses = lines

    def _render(self) -> RenderableType:
        from rich import text as rich_text
        from rich.console import Group
        from rich.table import Table as RichTable

        table = RichTable(box=None, pad_edge=False, header_style="dim")
        for header in ("PART", "STATE", "PID", "ADDRESS", "UPTIME", "RESTARTS"):
            table.add_column(header, justify="right" if header in ("PID", "RESTARTS") else "left")
        for name, state in (self._house.servers if self._house else {}).items():
            table.add_row(name, output.state(state), "", "private socket", "", "")
        for child in self._house.children if self._house else ():
            table.add_row(*_row(child))
        events = [rich_text.Text(event, style="dim", overflow="fold") for event in self._events]
        lasting = [rich_text.Text(line, overflow="fold") for line in self._addresses]
        return Group(table, rich_text.Text(""), *lasting, *events)


def _row(child: Child) -> list[str | Text]:
    up = timedelta(seconds=time.monotonic() - child.since) if child.state is State.READY else None
    return [
        child.name,
        output.state(child.state.value),
        str(child.pid or ""),
        child.address,
        output.age(up) if up else "",
        str(child.restarts or ""),
    ]
