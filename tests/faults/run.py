"""The fault suite: `python tests/faults/run.py --minutes 10`.

Everything runs while processes are killed and stopped, connections cut, delayed and damaged, the clock of Redis' host
jumps and its disk is full; then a checker goes over the histories of all clients. Exits with 1 when a promise was broken,
with the seed and the lines that show it.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.faults.arena import Setup
from tests.faults.rounds import Outcome, play
from tests.faults.scenarios import fail_over, older_data


def _say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)  # noqa: T201 whoever runs it wants to know


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Weft's fault suite")
    parser.add_argument("--minutes", type=float, default=10.0, help="of faults")
    parser.add_argument("--seed", type=int, default=None, help="a former run's")
    parser.add_argument("--rate", type=float, default=600.0, help="messages a second")
    parser.add_argument(
        "--pace", type=float, default=1.0, help="mean seconds between two faults of a lane"
    )
    parser.add_argument("--lanes", type=int, default=2, help="faults at the same time")
    parser.add_argument("--plant", default="", help="a bug that the broker shall have")
    parser.add_argument("--only", action="append", default=[], help="these faults alone")
    parser.add_argument("--without", action="append", default=[], help="not these faults")
    parser.add_argument("--scenario", choices=("all", "fail-over", "older-data"), default="all")
    parser.add_argument("--keep", type=Path, help="folder to keep histories and logs in")
    return parser.parse_args()


async def _main(arguments: argparse.Namespace) -> Outcome:
    seed = random.randrange(1 << 32) if arguments.seed is None else arguments.seed
    setup = Setup(seed=seed, rate=arguments.rate, plant=arguments.plant)
    _say(f"seed {seed}")
    folder = Path(tempfile.mkdtemp(prefix="weft-faults-", dir="/tmp"))
    try:
        seconds = arguments.minutes * 60
        if arguments.scenario == "fail-over":
            return await fail_over(folder, setup, seconds, pace=arguments.pace, say=_say)
        if arguments.scenario == "older-data":
            return await older_data(folder, setup, seconds)
        return await play(
            folder,
            setup,
            seconds,
            pace=arguments.pace,
            lanes=arguments.lanes,
            only=arguments.only,
            without=arguments.without,
            say=_say,
        )
    finally:
        if arguments.keep is not None:
            _keep(folder, arguments.keep)
        shutil.rmtree(folder, ignore_errors=True)


def _keep(folder: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder / "histories", target / "histories", dirs_exist_ok=True)
    for path in folder.glob("*.log"):
        shutil.copy(path, target)


if __name__ == "__main__":
    outcome = asyncio.run(_main(_arguments()))
    _say(outcome.summary())
    if not outcome.ok:
        _say(outcome.details())
        sys.exit(1)
