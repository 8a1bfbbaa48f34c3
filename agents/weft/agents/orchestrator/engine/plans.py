"""Workflows as workers have them: compiled once per version."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from google.protobuf.message import Message

from weft.agents.orchestrator.engine.model import StoredRun
from weft.agents.orchestrator.errors import WorkflowNotFound
from weft.agents.orchestrator.plan.model import Plan
from weft.agents.orchestrator.run.turns import Turn
from weft.agents.orchestrator.typed import Types
from weft.postgres import Database
from weft.v1.identity_pb2 import Identity
from weft.v1.orchestrator_pb2 import RunEvent
from weft.v1.workflow_pb2 import SpecFault, WorkflowSpec

_KEPT = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A workflow that can be run."""

    plan: Plan
    types: Types
    world: bytes = b""
    """What has to be known to compile it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What came of a check: faults, or a compiled workflow."""

    faults: Sequence[SpecFault] = ()
    output_type: str = ""
    compiled: Compiled | None = None


class Interpreting(Protocol):
    """Says what a run does next; see run/interpreter.py."""

    def apply(self, event: RunEvent) -> object:
        """Takes in what happened."""
        ...

    def turn(self) -> Turn:
        """What is next."""
        ...


class Compiler(Protocol):
    """Checks and compiles workflows."""

    async def check(self, spec: WorkflowSpec, tenant: str, identity: Identity | None) -> Checked:
        """Checks a workflow that a caller submits.

        Raises:
            rpc.Unavailable: what it has to know is not to be had now.
        """
        ...

    async def restore(self, spec: WorkflowSpec, version: int, world: bytes) -> Compiled:
        """Compiles a workflow again that was checked once, whatever has become of its agents."""
        ...

    def interpreter(self, compiled: Compiled, run: StoredRun, given: Message) -> Interpreting:
        """The interpreter of a run."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A version of a workflow, as it is stored."""

    number: int
    name: str
    version: int
    compiled: Compiled


class Plans:
    """Compiled workflows by their numbers."""

    def __init__(self, database: Database, compiler: Compiler) -> None:
        self._database = database
        self.compiler = compiler
        self._known: collections.OrderedDict[int, Stored] = collections.OrderedDict()
        self._numbers: collections.OrderedDict[tuple[str, str, int], int] = (
            collections.OrderedDict()
        )

    async def by_number(self, number: int) -> Stored:
        """A workflow.

        Raises:
            WorkflowNotFound: see there.
            rpc.Unavailable: the database is away.
        """
        if (known := self._known.get(number)) is not None:
            self._known.move_to_end(number)
            return known
        row = await self._database.fetchrow("get_workflow", number)
        if row is None:
            raise WorkflowNotFound
        spec = WorkflowSpec.FromString(row["spec"])
        stored = Stored(
            number=number,
            name=row["name"],
            version=row["version"],
            compiled=await self.compiler.restore(spec, row["version"], row["world"]),
        )
        self._known[number] = stored
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return stored

    async def by_version(self, tenant: str, name: str, version: int) -> Stored:
        """A version of a workflow.

        Raises:
            WorkflowNotFound: see there.
            rpc.Unavailable: the database is away.
        """
        key = (tenant, name, version)
        number = self._numbers.get(key)
        if number is None:
            number = await self._database.fetchval("workflow_number", tenant, name, version)
            if number is None:
                raise WorkflowNotFound
            self._numbers[key] = number
            if len(self._numbers) > _KEPT:
                self._numbers.popitem(last=False)
        return await self.by_number(number)
