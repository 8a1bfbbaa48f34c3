"""A round: everything runs while the nemesis does its worst; then it is healed, drained and checked."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults import workload
from tests.faults.arena import Arena, Setup, arena
from tests.faults.checker import Promises, Report, check
from tests.faults.nemesis import Nemesis

_MOST_LINES = 40


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What a round brought."""

    setup: Setup
    seconds: float
    kills: int
    cuts: int
    faults: Counter[str]
    report: Report
    crashes: list[str]

    @property
    def ok(self) -> bool:
        return not self.report.violations and not self.crashes

    def summary(self) -> str:
        """One line."""
        counts, accepted = self.report.counts, self.report.counts["accepted"]
        return (
            f"seed {self.setup.seed}: {self.seconds:.0f} s, {accepted:,} messages accepted"
            f" ({accepted / self.seconds:.0f}/s), {counts['requests']:,} requests,"
            f" {counts['deliveries']:,} deliveries ({counts['redeliveries']:,} again),"
            f" {counts['dead']:,} dead, {self.kills} kills, {self.cuts} cuts,"
            f" {len(self.report.violations)} violations, {len(self.crashes)} crashes"
        )

    def details(self) -> str:
        """What was wrong, with the lines of the histories that show it."""
        lines = [f"{name}: {count}" for name, count in sorted(self.faults.items())]
        by_rule = Counter(violation.rule for violation in self.report.violations)
        lines += [f"violations of {rule}: {count}" for rule, count in by_rule.items()]
        shown: Counter[str] = Counter()
        for violation in self.report.violations:
            shown[violation.rule] += 1
            if shown[violation.rule] <= 3:
                lines.append(f"- {violation}")
                lines += [f"    {line}" for line in self.report.lines(violation)[:_MOST_LINES]]
        lines += [f"- {crash}" for crash in self.crashes]
        return "\n".join(lines)


class Progress:
    """How many messages were accepted and handled so far, as the histories grow."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}
        self.accepted = self.handled = 0

    def look(self) -> None:
        for path in self._folder.glob("*.log"):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                data = file.read()
                self._read[path] = file.tell()
            self.accepted += data.count(b"receipt\t")
            self.handled += data.count(b"done\t")


def promises(setup: Setup, *, strict: bool = True, loss: bool = False) -> Promises:
    """What the queues of the workload promise."""
    return Promises(
        visibility=int(workload.VISIBILITY.total_seconds() * 1e9),
        window=int(workload.WINDOW.total_seconds() * 1e9),
        max_attempts={"mortal": workload.MORTAL_ATTEMPTS},
        strict=strict,
        told=False,
        loss=loss,
    )


async def play(
    folder: Path,
    setup: Setup,
    seconds: float,
    *,
    pace: float = 1.0,
    lanes: int = 2,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    patience: float = 30.0,
    strict: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """One round. `only`, `without`: faults by name. `strict`: no redelivery after an ack, marked or not. `say`: told how it goes."""
    begin = time.monotonic()
    async with arena(folder, setup) as found:
        nemesis = Nemesis(found, setup.seed, pace=pace)
        watching = asyncio.create_task(_watch(found, nemesis, say))
        try:
            await nemesis.run(seconds, lanes=lanes, only=only, without=without)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        await found.heal()
        say("healed, draining")
        events, final = await found.finish(patience)
        elapsed = time.monotonic() - begin
        say(f"drained, checking {len(events):,} events")
        report = check(events, final, promises(setup, strict=strict))
        return Outcome(
            setup=setup,
            seconds=elapsed,
            kills=nemesis.kills,
            cuts=nemesis.cuts,
            faults=nemesis.counts,
            report=report,
            crashes=found.crashes,
        )


async def _watch(found: Arena, nemesis: Nemesis, say: Callable[[str], None]) -> None:
    """Restarts what ended by itself, and says now and then how far all is."""
    progress, begin, said = Progress(found.histories), time.monotonic(), 0.0
    while True:
        await asyncio.sleep(0.5)
        found.restart_the_fallen()
        now = time.monotonic() - begin
        if now - said >= 5:
            said = now
            progress.look()
            say(
                f"{now:5.0f} s  accepted {progress.accepted:8,}  handled {progress.handled:8,}"
                f"  kills {nemesis.kills:4}  cuts {nemesis.cuts:4}  crashes {len(found.crashes)}"
            )
