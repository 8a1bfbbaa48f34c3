"""Following a run: on a terminal its steps as they are now, elsewhere a line for each that ends or waits."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

from weft.cli import output, steps, transcript
from weft.v1 import orchestrator_pb2 as pb

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.text import Text

_REFRESH = 8  # times a second
_PARTS = 8  # of a step, the latest
_STEPS = 40
_TOLD = {
    pb.STEP_STATE_WAITING,
    pb.STEP_STATE_SUCCEEDED,
    pb.STEP_STATE_FAILED,
    pb.STEP_STATE_COMPENSATED,
}


class Following:
    """Shows a run while it goes.

    Args:
        run: its id.
        as_json: each event is a line of JSON.
    """

    def __init__(self, run: str, *, as_json: bool) -> None:
        self._run = pb.Run(id=run)
        self._as_json = as_json
        self._out = output.console()
        self._steps: dict[str, pb.Step] = {}
        self._live: Live | None = None
        self.number = 0
        """Of the last event."""

    def __enter__(self) -> Self:
        if not self._as_json and sys.stdout.isatty():
            from rich.live import Live

            self._live = Live(
                get_renderable=self._render,
                console=self._out,
                refresh_per_second=_REFRESH,
                transient=False,
            )
            self._live.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)

    def seen(self, event: pb.RunEvent) -> None:
        """Takes in what happened."""
        self.number = event.number
        if self._as_json:
            output.print_line(output.as_json(event))
        kind = event.WhichOneof("kind")
        if kind in {"run", "ended"}:
            self._run = event.run if kind == "run" else event.ended
        elif kind == "step":
            self._step(event.step)

    def _step(self, step: pb.Step) -> None:
        before = self._steps.get(step.key)
        if before is not None and not step.HasField("start_time"):
            step.start_time.CopyFrom(before.start_time)
        self._steps[step.key] = step
        if not self._as_json and self._live is None and step.state in _TOLD:
            self._out.print(steps.line(step))

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        shown = [key for key in self._steps if "/" not in key]
        rows = []
        if len(shown) > _STEPS:
            rows.append(Text(f"… {len(shown) - _STEPS} steps before", style="dim"))
        for key in shown[-_STEPS:]:
            rows.append(steps.line(self._steps[key]))
            rows += self._parts(key)
        for row in rows:
            row.no_wrap, row.overflow = True, "ellipsis"
        if not steps.ended(self._run):  # `show_end` says that
            state = output.state(steps.state(self._run).lower())
            rows.append(Text.assemble(("run ", "dim"), self._run.id, " ", state))
        return Group(*rows)

    def _parts(self, key: str) -> Iterator[Text]:
        """The parts of a step: of a debate all, of others the latest."""
        from rich.text import Text

        parts = [step for part, step in self._steps.items() if part.startswith(f"{key}/")]
        if transcript.is_debate(parts):
            yield from transcript.lines(parts)
            return
        if len(parts) > _PARTS:
            yield Text(f"  … {len(parts) - _PARTS} parts before", style="dim")
        yield from (steps.line(part) for part in parts[-_PARTS:])


def show_end(run: pb.Run) -> None:
    """How a run ended: its state and time to standard error, its result to standard output."""
    words = f"run {run.id} {steps.state(run).lower()} after {steps.span(run)}"
    output.console(sys.stderr).print(words, style="dim")
    # Programs get the message.
    debated = transcript.result_of(run) if sys.stdout.isatty() else None
    if debated is not None:
        out = output.console()
        for line in transcript.verdict(debated):
            out.print(line)
    elif run.HasField("output"):
        output.print_json(steps.value(run.output))
    if run.HasField("failure"):
        output.console(sys.stderr).print(steps.failure(run.failure), style="red")
