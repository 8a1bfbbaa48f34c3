"""Every part is restarted under load: `python tests/faults/rolling/run.py`.

Registries, brokers, gateways, agents, Redis and PostgreSQL, one after the other, under 200 calls and 200 messages a
second. No idempotent call may fail, no message that was accepted may be lost. Exits with 1 where one was.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.faults.rolling.drill import Outcome, play


def _say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)  # noqa: T201 for whoever runs it


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Every part restarted, one after the other, under load."
    )
    parser.add_argument(
        "--rate", type=float, default=200.0, help="calls, and messages, a second (default 200)"
    )
    parser.add_argument(
        "--only", action="append", default=[], help="these parts: registry, gateway-1, redis, ..."
    )
    parser.add_argument("--keep", type=Path, help="folder to keep logs in")
    parser.add_argument("--json", action="store_true", help="print the outcome for programs")
    return parser.parse_args()


def _main(arguments: argparse.Namespace) -> Outcome:
    folder = Path(tempfile.mkdtemp(prefix="weft-rolling-", dir="/tmp"))
    folder.chmod(0o711)  # PostgreSQL may run as somebody else
    try:
        return asyncio.run(play(folder, rate=arguments.rate, say=_say, only=arguments.only))
    finally:
        if arguments.keep is not None:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            for path in folder.glob("*.log"):
                shutil.copy(path, arguments.keep)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    asked = _arguments()
    came = _main(asked)
    if asked.json:
        print(json.dumps(dataclasses.asdict(came) | {"ok": came.ok}))  # noqa: T201 its output
    else:
        print("\n".join(came.shown))  # noqa: T201 its output
    sys.exit(0 if came.ok else 1)
