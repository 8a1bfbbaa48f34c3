"""What is wrong with a workflow: collected, so that all of it is said in one answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from weft import rpc
from weft.v1.workflow_pb2 import FaultKind, SpecFault, SpecFaults

_ORDER: Final = ("name", "description", "input_type", "nodes", "edges", "output", "max_duration")
_PIECE: Final = re.compile(r"\d+|[^\d]+")
_LONGEST: Final = 300  # characters of a fault
_MOST_BYTES: Final = (
    4_000  # of faults in a status, which travels in trailers that peers cap at 8 KiB
)


class WorkflowInvalid(rpc.InvalidArgument):
    """The workflow cannot be run.

    Its details hold the first faults where all are too many for a status; the message says how many there are, and
    `CheckWorkflow` says all.

    Attributes:
        faults: all of them.
    """

    reason = "WORKFLOW_INVALID"

    def __init__(self, faults: Sequence[SpecFault]) -> None:
        first = faults[0]
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        super().__init__(
            f"The workflow cannot be run: {first.place}: {first.message}{more}",
            details=[_fitting(faults)],
        )
        self.faults = tuple(faults)


def _fitting(faults: Sequence[SpecFault]) -> SpecFaults:
    """The first faults, as many as a status holds."""
    fitting = SpecFaults()
    size = 0
    for fault in faults:
        size += fault.ByteSize()
        if size > _MOST_BYTES:
            break
        fitting.faults.append(fault)
    return fitting


class Faults:
    """Collects faults."""

    def __init__(self) -> None:
        self._found: dict[tuple[FaultKind.ValueType, str], SpecFault] = {}

    def add(self, kind: FaultKind.ValueType, place: str, message: str) -> None:
        """Takes down a fault; the first of a kind and place counts."""
        fault = SpecFault(kind=kind, place=place, message=message[:_LONGEST])
        self._found.setdefault((kind, place), fault)

    def __len__(self) -> int:
        return len(self._found)

    def sorted(self) -> list[SpecFault]:
        """The faults, in the order of their places."""
        return sorted(self._found.values(), key=_rank)


def _rank(fault: SpecFault) -> tuple[int, list[tuple[int, str]], int]:
    section = re.split(r"[\[.]", fault.place, maxsplit=1)[0]
    at = _ORDER.index(section) if section in _ORDER else len(_ORDER)
    pieces = _PIECE.findall(fault.place)
    return at, [(int(p), "") if p.isdigit() else (-1, p) for p in pieces], fault.kind
