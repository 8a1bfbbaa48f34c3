"""An answer of the support fleet, as a person reads it."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from weft.cli import output
from weft.support.v1 import supervisor_pb2, support_pb2

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_WIDTH = 96  # characters of a line of prose
_QUOTE = 160  # characters of a quotation
_MARKS = {
    support_pb2.STEP_OUTCOME_STARTED: ("·", "dim"),
    support_pb2.STEP_OUTCOME_OK: ("✓", "green"),
    support_pb2.STEP_OUTCOME_FAILED: ("✗", "red"),
    support_pb2.STEP_OUTCOME_SKIPPED: ("-", "yellow"),
}
_ORIGINS = {
    support_pb2.ORIGIN_EXTRACTIVE: "sentences of the sources as they stand",
    support_pb2.ORIGIN_MODEL: "written by a model from the sources",
    support_pb2.ORIGIN_PERSON: "written by a person",
}


def step_line(step: support_pb2.Step) -> Text:
    """One step: mark, agent and skill, time, what came out."""
    from rich.text import Text

    mark, style = _MARKS.get(step.outcome, ("?", "yellow"))
    line = Text.assemble((f"{mark} ", style), (f"{step.agent}.{step.skill}".ljust(32), "bold"))
    if step.HasField("duration"):
        line.append(output.milliseconds(step.duration.ToTimedelta()).rjust(8), "dim")
    if step.summary:
        line.append(f"  {step.summary}")
    return line


def follow(out: Console, step: support_pb2.Step) -> None:
    """Shows a step as it goes: on a terminal its end takes the place of its beginning."""
    begins = step.outcome == support_pb2.STEP_OUTCOME_STARTED
    if out.is_terminal or not begins:
        out.print(step_line(step), end="\r" if begins else "\n", no_wrap=True, overflow="ellipsis")


def show(out: Console, handled: supervisor_pb2.HandleResponse) -> None:
    """Answer, sources, route, and where to look further."""
    from rich.text import Text

    answer = handled.answer
    _prose(out, answer.text or "(no answer)")
    if origin := _ORIGINS.get(answer.origin):
        by = f" ({answer.model})" if answer.model else ""
        _prose(out, f"confidence {answer.confidence:.2f}; {origin}{by}", "dim")
    if answer.degraded:
        _prose(out, answer.degraded, "yellow")
    if answer.citations:
        out.print()
        out.print(Text("Sources", style="bold"))
        for citation in answer.citations:
            out.print(Text(f"  [{citation.number}] {citation.title} ({citation.passage_id})"))
            if citation.quote:
                _prose(out, f"“{_shortened(citation.quote)}”", "dim", indent=6)
    for missing in handled.missing:
        _prose(out, f"Missing: {missing}", "yellow")
    out.print()
    out.print(Text("Route", style="bold"))
    for step in handled.route:
        out.print(Text("  ") + step_line(step))
    out.print()
    facts = {"conversation": handled.conversation_id, "ticket": handled.ticket_id}
    for name, value in (facts | {"trace": handled.trace_id}).items():
        if value:
            out.print(Text.assemble((f"{name:<13}", "dim"), value))


def _prose(out: Console, text: str, style: str = "", indent: int = 0) -> None:
    from rich.text import Text

    width = min(out.width, _WIDTH) - indent
    for paragraph in text.splitlines():
        for line in textwrap.wrap(paragraph, width) or [""]:
            out.print(Text(" " * indent + line, style=style))


def _shortened(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _QUOTE else f"{flat[: _QUOTE - 1].rstrip()}…"
