"""The drills: `python tests/drills/run.py` does all of them, `python tests/drills/run.py WeftAgentDown` one.

Each breaks a real mesh that a real Prometheus watches, until the alert fires, then mends it, until the alert has cleared.
Exits with 1 when one did not. Spans of time in the rules are shortened (tests/drills/prometheus.py says by how much).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.drills.drilling import all_done
from tests.drills.drills import DRILLS
from tests.drills.mesh import running
from tests.drills.prometheus import watching
from tests.drills.traffic import usual


def _say(*columns: object) -> None:
    print("{:<26}{:>10}{:>12}  {}".format(*columns), flush=True)  # noqa: T201 whoever runs it wants to know


async def _main(names: list[str]) -> int:
    drills = [DRILLS[name] for name in names or DRILLS]
    began = time.monotonic()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="weft-drills-", dir="/tmp") as folder:
        async with running(Path(folder)) as mesh, watching(mesh) as prometheus, usual(mesh):
            _say("ALERT", "FIRED s", "CLEARED s", f"({time.monotonic() - began:.0f} s to start)")
            async for outcome in all_done(drills, mesh, prometheus):
                fired = "" if outcome.fired is None else f"{outcome.fired:.1f}"
                cleared = "" if outcome.cleared is None else f"{outcome.cleared:.1f}"
                _say(outcome.alert, fired, cleared, outcome.problem)
                failed += not outcome.passed
    _say(f"{len(drills)} drills", "", "", f"{failed} failed, {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="Weft's drills")
    parser.add_argument("alerts", nargs="*", metavar="ALERT", help="these alone")
    given = parser.parse_args()
    if unknown := set(given.alerts) - DRILLS.keys():
        parser.error(f"there is no drill of {', '.join(sorted(unknown))}")
    sys.exit(asyncio.run(_main(given.alerts)))


if __name__ == "__main__":
    main()
