"""Jobs while everything dies: `python tests/faults/jobs/run.py --jobs 500`.

Gateways, agents, Redis, PostgreSQL and the receiver of webhooks are killed with -9 at random moments. Then each job must
have ended once, with its result, and each webhook must have arrived. Exits with 1 where a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.faults.jobs.rounds import Outcome, Setup, play


def _say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)  # noqa: T201 for whoever runs it


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Jobs while gateways, agents, Redis, PostgreSQL and the webhooks' receiver are killed with -9."
    )
    parser.add_argument("--jobs", type=int, default=500, help="how many (default 500)")
    parser.add_argument("--seed", type=int, default=None, help="a former run's")
    parser.add_argument(
        "--pace", type=float, default=1.2, help="mean seconds between two kills (default 1.2)"
    )
    parser.add_argument("--callers", type=int, default=60, help="jobs under way (default 60)")
    parser.add_argument(
        "--only", action="append", default=[], help="kill this alone: gateway, agent-1, redis, ..."
    )
    parser.add_argument("--keep", type=Path, help="folder to keep logs in")
    parser.add_argument("--json", action="store_true", help="print the outcome for programs")
    return parser.parse_args()


async def _main(arguments: argparse.Namespace) -> tuple[int, Outcome]:
    seed = random.randrange(1 << 32) if arguments.seed is None else arguments.seed
    setup = Setup(
        seed=seed,
        jobs=arguments.jobs,
        pace=arguments.pace,
        callers=arguments.callers,
        only=tuple(arguments.only),
    )
    _say(f"seed {seed}")
    folder = _folder()
    try:
        return seed, await play(folder, setup, say=_say)
    finally:
        if arguments.keep is not None:
            _keep(folder, arguments.keep)
        shutil.rmtree(folder, ignore_errors=True)


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="weft-jobs-", dir="/tmp"))
    folder.chmod(0o711)  # PostgreSQL may run as somebody else
    return folder


def _keep(folder: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for path in (*folder.glob("*.log"), folder / "calls", folder / "deliveries"):
        if path.exists():
            shutil.copy(path, target)


def _show(seed: int, outcome: Outcome, *, as_json: bool) -> None:
    found = dataclasses.asdict(outcome) | {"seed": seed, "ok": outcome.ok}
    if as_json:
        print(json.dumps(found))  # noqa: T201 its output
        return
    report = outcome.report
    kills = ", ".join(f"{name} {number}" for name, number in sorted(outcome.kills.items()))
    ended = ", ".join(f"{number} {name[10:].lower()}" for name, number in report.ended.items())
    for line in (
        f"{sum(report.ended.values())} jobs ended: {ended}",
        f"outcome unknown: {report.unknown}",
        f"begun again after their gateway was lost: {report.again}; called again: {report.called_again}",
        f"webhooks: {report.deliveries} attempts, {report.delivered_again} arrived more than once",
        f"kills: {kills or 'none'}; callers tried again {outcome.retries} times; {outcome.seconds:.0f} s",
        *report.violations,
        f"{len(report.violations)} promises broken",
    ):
        print(line)  # noqa: T201 its output


if __name__ == "__main__":
    asked = _arguments()
    chosen, came = asyncio.run(_main(asked))
    _show(chosen, came, as_json=asked.json)
    sys.exit(0 if came.ok else 1)
