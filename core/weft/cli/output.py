"""How commands print: tables for people, JSON for machines, never both."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from rich.console import Console
    from rich.text import Text

# What terminals obey, but for tabs and line ends.
_ORDERS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)])
_PIPE_WIDTH = 4_000  # characters: what goes to a program is not folded
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400  # seconds


def console(stream: IO[str] | None = None) -> Console:
    """The terminal, or a plain stream when output goes elsewhere. Texts, which others wrote, give it no orders."""
    from rich.console import Console
    from rich.segment import Segment

    class Guarded(Console):
        def render(self, *args: Any, **options: Any) -> Iterator[Segment]:
            for text, style, control in super().render(*args, **options):
                yield Segment(text if control else text.translate(_ORDERS), style, control)

    out = stream or sys.stdout
    return Guarded(
        file=out, highlight=False, markup=False, width=None if out.isatty() else _PIPE_WIDTH
    )


def print_json(value: Any) -> None:
    """One JSON document."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))  # noqa: T201 the command's output


def print_line(value: Any) -> None:
    """One JSON document on one line, at once: an element of a stream."""
    print(one_line(value), flush=True)  # noqa: T201 the command's output


def one_line(value: Any) -> str:
    """JSON on one line."""
    return json.dumps(value, ensure_ascii=False, default=str)


def as_json(message: Message) -> dict[str, Any]:
    """A message in ProtoJSON, as the gateway sends it."""
    from google.protobuf import json_format

    found: dict[str, Any] = json_format.MessageToDict(message)
    return found


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str | Text]], empty: str) -> None:
    """A table without lines; `empty` is said when it has no rows."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for header in headers:
        right = header.startswith(">")
        table.add_column(header.lstrip(">"), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    out = console()
    if not table.row_count:
        out.print(empty)
    elif out.is_terminal:
        out.print(table)
    else:  # programs and people who copy get no padding at the ends of lines
        with out.capture() as captured:
            out.print(table)
        for line in captured.get().splitlines():
            print(line.rstrip())  # noqa: T201 the command's output


def state(name: str) -> Text:
    """A state in its colour."""
    from rich.text import Text

    good = {
        "SERVING",
        "READY",
        "OK",
        "ANSWERED",
        "UP",
        "VALID",
        "SUCCEEDED",
        "DELIVERED",
        "APPROVED",
    }
    bad = {
        "UNREACHABLE",
        "FAILED",
        "DOWN",
        "REVOKED",
        "DEAD",
        "CANCELLED",
        "REJECTED",
        "EXPIRED",
        "FAIL",
    }
    word = name.upper()
    style = "green" if word in good else "red" if word in bad else "yellow"
    return Text(name, style=style)


def milliseconds(span: timedelta) -> str:
    """A short duration: "3.2 ms", "412 ms", "1.24 s"."""
    seconds = span.total_seconds()
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1_000:.1f} ms" if seconds < 0.01 else f"{seconds * 1_000:.0f} ms"  # noqa: PLR2004 10 ms


def age(span: timedelta) -> str:
    """A long duration in its two largest units: "42s", "3m 5s", "2h 1m", "4d 3h"."""
    seconds = max(0, int(span.total_seconds()))
    if seconds < _MINUTE:
        return f"{seconds}s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE}m {seconds % _MINUTE}s"
    if seconds < _DAY:
        return f"{seconds // _HOUR}h {seconds % _HOUR // _MINUTE}m"
    return f"{seconds // _DAY}d {seconds % _DAY // _HOUR}h"


def moment(when: datetime | None) -> str:
    """A date and time of this machine's zone; empty when there is none."""
    return "" if when is None else when.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def until(when: datetime) -> str:
    """How far away a moment is: "in 3m 5s" or "2h 1m late"."""
    left = when - datetime.now(UTC)
    return f"in {age(left)}" if left > timedelta(0) else f"{age(-left)} late"
