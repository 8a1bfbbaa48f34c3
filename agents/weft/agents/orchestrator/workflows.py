"""Workflows as their tenants see them: check, store, look at."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import asyncpg

from weft import rpc
from weft.agents.orchestrator.asked import Asker
from weft.agents.orchestrator.engine.model import stamp
from weft.agents.orchestrator.engine.plans import Checked, Compiler
from weft.agents.orchestrator.errors import WorkflowNotFound
from weft.agents.orchestrator.plan.faults import WorkflowInvalid
from weft.postgres import Database
from weft.rpc.paging import page_begin, page_size, page_token
from weft.v1.orchestrator_pb2 import ListWorkflowsResponse, Workflow
from weft.v1.workflow_pb2 import FaultKind, SpecFault, WorkflowSpec

_DEFAULT_PAGE, _LARGEST_PAGE = 50, 500
_RACES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowContract:
    """What every version of a workflow begins with, and what it gives: full names of messages."""

    input_type: str
    output_type: str

    def broken(self, spec: WorkflowSpec, checked: Checked) -> list[SpecFault]:
        """What a version does not keep."""
        kind, name = FaultKind.FAULT_KIND_TYPE_MISMATCH, spec.name
        found: list[SpecFault] = []
        if spec.input_type != self.input_type:
            words = f"{name} begins with a {self.input_type}, in every version"
            found.append(SpecFault(kind=kind, place="input_type", message=words))
        if checked.output_type and checked.output_type != self.output_type:
            words = f"gives a {checked.output_type}: {name} gives a {self.output_type}, in every version"
            found.append(SpecFault(kind=kind, place="output", message=words))
        return found


class Workflows:
    """The workflows that are stored. Every method raises rpc.Unavailable where the database is away.

    Args:
        database: with the queries of weft.agents.orchestrator.sql.
        compiler: checks them.
        contracts: what is asked of workflows of some names, since others run them by their name.
    """

    def __init__(
        self,
        database: Database,
        compiler: Compiler,
        contracts: Mapping[str, WorkflowContract] = MappingProxyType({}),
    ) -> None:
        self._database = database
        self._compiler = compiler
        self._contracts = contracts

    async def check(self, asker: Asker, spec: WorkflowSpec) -> Checked:
        """Says what is wrong with a workflow."""
        checked = await self._compiler.check(spec, asker.tenant, asker.identity)
        contract = self._contracts.get(spec.name)
        broken = contract.broken(spec, checked) if contract is not None else []
        if not broken:
            return checked
        return Checked(faults=[*checked.faults, *broken], output_type=checked.output_type)

    async def submit(self, asker: Asker, spec: WorkflowSpec) -> Workflow:
        """Stores a workflow as the next version of its name; the same as the newest one is that.

        Raises:
            WorkflowInvalid: it has faults.
        """
        world, output_type = await self._compile(asker, spec)
        raw, digest = _serialized(spec)
        for _ in range(_RACES):
            row = await self._database.fetchrow("newest_workflow", asker.tenant, spec.name)
            if row is not None and row["digest"] == digest and row["world"] == world:
                return _workflow(row)
            args = (asker.tenant, spec.name, digest, raw, world, output_type, asker.subject)
            try:
                row = await self._database.fetchrow("add_workflow", *args)
            except rpc.AlreadyExists:
                continue  # somebody stored a version in between
            assert row is not None
            return _workflow(row)
        raise rpc.Aborted("Others store versions of this workflow just now; submit it again.")

    async def get(self, asker: Asker, name: str, version: int) -> Workflow:
        """A version of a workflow; 0: the newest.

        Raises:
            WorkflowNotFound: see there.
        """
        return _workflow(await self._find(asker, name, version))

    async def page(self, asker: Asker, size: int, token: str) -> ListWorkflowsResponse:
        """The workflows of a tenant by name, each in its newest version.

        Raises:
            InvalidArgument: `size` is negative, or `token` is of another list.
        """
        size = page_size(size, default=_DEFAULT_PAGE, most=_LARGEST_PAGE)
        made_for = f"workflows {asker.tenant}"
        last = page_begin(token, made_for=made_for, like=("",))
        behind = last[0] if last else ""
        rows = await self._database.fetch("list_workflows", asker.tenant, behind, size + 1)
        found = [_workflow(row) for row in rows[:size]]
        more = page_token((found[-1].name,), made_for=made_for) if len(rows) > size else ""
        return ListWorkflowsResponse(workflows=found, next_page_token=more)

    async def number_of(self, asker: Asker, name: str, version: int) -> int:
        """The number of a version of a workflow; 0: of the newest.

        Raises:
            WorkflowNotFound: see there.
        """
        number: int | None
        if version:
            number = await self._database.fetchval("workflow_number", asker.tenant, name, version)
        else:
            number = await self._database.fetchval("newest_workflow_number", asker.tenant, name)
        if number is None:
            raise WorkflowNotFound
        return number

    async def by_number(self, number: int) -> WorkflowSpec:
        """What was submitted under a number.

        Raises:
            WorkflowNotFound: see there.
        """
        row = await self._database.fetchrow("get_workflow", number)
        if row is None:
            raise WorkflowNotFound
        return WorkflowSpec.FromString(row["spec"])

    async def keep(self, asker: Asker, spec: WorkflowSpec) -> int:
        """Stores a workflow that is run without being stored by its name, and returns its number.

        Raises:
            WorkflowInvalid: it has faults.
        """
        world, output_type = await self._compile(asker, spec)
        raw, _ = _serialized(spec)
        # Two that see another world are two.
        digest = hashlib.sha256(hashlib.sha256(raw).digest() + world).digest()
        args = (asker.tenant, spec.name, digest, raw, world, output_type, asker.subject)
        row = await self._database.fetchrow("keep_workflow", *args)
        if row is None:
            row = await self._database.fetchrow("find_unnamed_workflow", asker.tenant, digest)
        assert row is not None
        number: int = row["number"]
        return number

    async def _compile(self, asker: Asker, spec: WorkflowSpec) -> tuple[bytes, str]:
        checked = await self.check(asker, spec)
        if checked.faults or checked.compiled is None:
            raise WorkflowInvalid(checked.faults)
        return checked.compiled.world, checked.output_type

    async def _find(self, asker: Asker, name: str, version: int) -> asyncpg.Record:
        if version:
            row = await self._database.fetchrow("find_workflow", asker.tenant, name, version)
        else:
            row = await self._database.fetchrow("newest_workflow", asker.tenant, name)
        if row is None:
            raise WorkflowNotFound
        return row


def _serialized(spec: WorkflowSpec) -> tuple[bytes, bytes]:
    raw: bytes = spec.SerializeToString(deterministic=True)
    return raw, hashlib.sha256(raw).digest()


def _workflow(row: asyncpg.Record) -> Workflow:
    workflow = Workflow(
        name=row["name"],
        version=row["version"],
        output_type=row["output_type"],
        subject=row["subject"],
    )
    if (spec := row.get("spec")) is not None:
        workflow.spec.ParseFromString(spec)
    stamp(workflow.create_time, row["create_time"])
    return workflow
