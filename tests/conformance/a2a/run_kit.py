"""Runs the A2A project's own conformance kit (github.com/a2aproject/a2a-tck, the 1.0 line) against the gateway.

python -m tests.conformance.a2a.run_kit FOLDER [--python PYTHON] [pytest arguments]

FOLDER holds the kit; it is in no package index. PYTHON has its dependencies (pip install -e FOLDER). Its tests that differ
from A2A 1.0.1 are left out: kit_exclusions.toml lists them with the reasons. Exits with 1 if any other test fails, or if
one that is left out passes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

from tests.conformance.a2a.kit_agent import mesh

from weft import embedded

EXCLUSIONS = Path(__file__).with_name("kit_exclusions.toml")


def excluded() -> dict[str, str]:
    """Tests that are left out: reasons by the end of their ids."""
    listed = tomllib.loads(EXCLUSIONS.read_text())["excluded"]
    return {test: each["reason"] for each in listed for test in each["tests"]}


def outcomes(report: Path) -> dict[str, str]:
    """What came of each test: its name after the class, with parameters."""
    found = {}
    for case in ET.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        outcome = (
            "failed"
            if kinds & {"failure", "error"}
            else "skipped"
            if "skipped" in kinds
            else "passed"
        )
        found[f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"] = outcome
    return found


async def run(kit: Path, python: str, arguments: list[str]) -> int:
    """Runs the kit; the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        async with embedded.launch(Path(folder)) as servers, mesh(servers.database_url) as gateway:
            environment = {
                name: value for name, value in os.environ.items() if name != "PYTHONPATH"
            }
            kit_run = await asyncio.create_subprocess_exec(
                *(python, "-m", "pytest", "tests/compatibility", "-q", "--tb=line"),
                *(f"--sut-host={gateway.url}", f"--junitxml={report}", *arguments),
                cwd=kit,
                env=environment,
                stdout=None if arguments else subprocess.DEVNULL,
            )
            await kit_run.wait()
        found = outcomes(report)
    return judge(found)


def judge(found: dict[str, str]) -> int:
    """Says what differs from what is expected."""
    known = excluded()
    failed = sorted(name for name, outcome in found.items() if outcome == "failed")
    wrong = [name for name in failed if name not in known]
    mended = [name for name in known if found.get(name) == "passed"]
    counts = {kind: list(found.values()).count(kind) for kind in ("passed", "failed", "skipped")}
    lines = [
        f"{counts}, excluded: {len(failed) - len(wrong)}",
        *(f"FAILED {name}" for name in wrong),
        *(f"PASSES, though it is left out: {name}" for name in mended),
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if wrong or mended or not counts["passed"] else 0


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kit", type=Path)
    parser.add_argument("--python", default=sys.executable)
    options, arguments = parser.parse_known_args()
    sys.exit(asyncio.run(run(options.kit.resolve(), options.python, arguments)))


if __name__ == "__main__":
    main()
