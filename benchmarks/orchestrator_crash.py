"""Workflows while everything dies: `python benchmarks/orchestrator_crash.py --runs 60`.

Runs of a graph of twelve steps, with fan-out, a way round and an approval, while orchestrators, agents, PostgreSQL and Redis
are killed with -9 at random moments and started again, and orchestrators are stopped for longer than their lease. Then each
run must have ended with the result that a reference computes, no step begun again that had finished, no effect had
twice, each run of a killed orchestrator resumed within a lease and a second, and nothing written by one that had
lost its runs. Exits with 1 where a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import measure

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.faults.orchestrator.rounds import Outcome, Setup, play


def _say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Workflows while orchestrators, agents, PostgreSQL and Redis are killed with -9 and started again."
    )
    parser.add_argument("--runs", type=int, default=60, help="how many (default 60)")
    parser.add_argument(
        "--minutes", type=float, default=1.5, help="time over which they begin (default 1.5)"
    )
    parser.add_argument("--seed", type=int, default=None, help="a former run's")
    parser.add_argument(
        "--pace", type=float, default=1.5, help="mean seconds between two blows (default 1.5)"
    )
    parser.add_argument(
        "--lease", type=float, default=2.0, help="seconds for which runs are leased (default 2)"
    )
    parser.add_argument("--workers", type=int, default=3, help="orchestrators (default 3)")
    parser.add_argument(
        "--only", action="append", default=[], help="kill this alone: orchestrator, agent-1, ..."
    )
    parser.add_argument("--keep", type=Path, help="folder to keep logs in")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


async def _main(setup: Setup, folder: Path) -> Outcome:
    _say(f"seed {setup.seed}")
    return await play(folder, setup, say=_say)


def _setup(arguments: argparse.Namespace) -> Setup:
    return Setup(
        seed=random.randrange(1 << 32) if arguments.seed is None else arguments.seed,
        runs=arguments.runs,
        spread=arguments.minutes * 60,
        pace=arguments.pace,
        lease=arguments.lease,
        workers=arguments.workers,
        only=tuple(arguments.only),
    )


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """A folder for a round; its logs go to `keep` in the end."""
    folder = Path(tempfile.mkdtemp(prefix="weft-crash-", dir="/tmp"))
    folder.chmod(0o711)  # PostgreSQL may run as somebody else
    try:
        yield folder
    finally:
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            for path in (*folder.glob("*.log"), *folder.glob("data/log/*.log")):
                shutil.copy(path, keep)
        shutil.rmtree(folder, ignore_errors=True)


def _show(seed: int, outcome: Outcome, *, as_json: bool) -> None:
    report = outcome.report
    if as_json:
        figures = dataclasses.asdict(outcome) | {"seed": seed, "ok": outcome.ok}
        measure.report({}, figures, as_json=True)
        return
    kills = ", ".join(f"{name} {number}" for name, number in sorted(outcome.kills.items()))
    ended = ", ".join(f"{number} {state}" for state, number in report.ended.items())
    stopped = f"{report.stops}, {report.taken_over} runs taken over meanwhile"
    for line in (
        f"{sum(report.ended.values())} runs ended: {ended}; {report.steps} calls of agents succeeded",
        f"finished steps repeated: {report.finished_repeated}; effects doubled: {report.effects_doubled}",
        f"calls with a key that was used before: {report.called_again}, {report.called_late} of them late",
        f"resumed after a kill: {_times(report.resumed)}",
        f"the same while the database or all orchestrators were away: {_times(report.resumed_in_the_dark)}",
        f"orchestrators stopped for longer than their lease: {stopped}",
        f"events written without the lease: {report.late_writes}",
        f"blows: {kills or 'none'}; callers tried again {outcome.retries} times; {outcome.seconds:.0f} s",
        *report.violations,
        f"{len(report.violations)} promises broken",
    ):
        print(line)


def _times(seconds: Sequence[float]) -> str:
    if not seconds:
        return "no run"
    middle = seconds[len(seconds) // 2]
    return f"{len(seconds)} runs, {middle:.2f} s (median), {seconds[-1]:.2f} s (longest)"


if __name__ == "__main__":
    asked = _arguments()
    chosen = _setup(asked)
    with _folder(asked.keep) as place:
        came = asyncio.run(_main(chosen, place))
    _show(chosen.seed, came, as_json=asked.json)
    sys.exit(0 if came.ok else 1)
