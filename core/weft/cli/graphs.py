"""Workflows in files: read, and their faults told with the lines they are on."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from weft.cli import failures

if TYPE_CHECKING:
    from weft.agents.orchestrator.forms import ReadSpec
    from weft.v1.workflow_pb2 import SpecFault

_SUFFIXES = {".yaml", ".yml", ".json"}
_MOST_BYTES = 2**20


def is_file(name: str) -> bool:
    """Whether an argument names a file, or standard input."""
    return name == "-" or Path(name).suffix in _SUFFIXES or Path(name).is_file()


class Unreadable(failures.Failure):
    """A file holds no workflow. `faults`: all that is wrong with it."""

    def __init__(self, lines: Iterable[str], faults: list[dict[str, Any]]) -> None:
        super().__init__(
            "The workflow cannot be read:\n" + "\n".join(f"  {line}" for line in lines)
        )
        self.faults = faults


def read(name: str) -> ReadSpec:
    """The workflow in a file.

    Raises:
        WrongSetting: the file cannot be read.
        Unreadable: it holds no workflow.
    """
    from weft.agents.orchestrator.forms import SpecUnreadable, read_spec

    as_json = True if Path(name).suffix == ".json" else None
    try:
        return read_spec(_text(name), as_json=as_json)
    except SpecUnreadable as failed:
        raise Unreadable(
            [f"{name}:{fault}" for fault in failed.faults],
            [
                {
                    "line": fault.at.line,
                    "column": fault.at.column,
                    "place": fault.place,
                    "kind": "FAULT_KIND_MALFORMED",
                    "message": fault.message,
                }
                for fault in failed.faults
            ],
        ) from failed


def _text(name: str) -> str:
    try:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        if len(content) > _MOST_BYTES:
            raise failures.WrongSetting(f"{name}: a workflow has at most {_MOST_BYTES} bytes.")
        return content.decode()
    except (OSError, UnicodeDecodeError) as failed:
        raise failures.WrongSetting(f"The workflow cannot be read: {failed}") from failed


def located(faults: Iterable[SpecFault], found: ReadSpec) -> list[Mapping[str, Any]]:
    """Faults with the lines and columns they are at."""
    from weft.v1.workflow_pb2 import FaultKind

    told: list[Mapping[str, Any]] = []
    for fault in faults:
        at = found.position(fault.place)
        told.append(
            {
                "line": at.line if at else 1,
                "column": at.column if at else 1,
                "place": fault.place,
                "kind": FaultKind.Name(fault.kind),
                "message": fault.message,
            }
        )
    return told


def lines(name: str, faults: Iterable[Mapping[str, Any]]) -> list[str]:
    """Faults as compilers tell theirs: "graph.yaml:12:7: nodes[1].call.method: ..."."""
    return [
        f"{name}:{each['line']}:{each['column']}: "
        + (f"{each['place']}: " if each["place"] else "")
        + str(each["message"])
        for each in faults
    ]


def write(text: str, target: str) -> None:
    """Writes to a file, or to standard output.

    Raises:
        Failure: the file cannot be written.
    """
    if target == "-":
        click.echo(text, nl=False)
        return
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as failed:
        raise failures.Failure(f"{target} cannot be written: {failed.strerror}.") from failed
