"""Approvals as those see them who decide."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from weft import rpc
from weft.agents.orchestrator.approvals.announcing import announce
from weft.agents.orchestrator.approvals.model import StoredApproval, digest_of, may_decide
from weft.agents.orchestrator.asked import Asker
from weft.agents.orchestrator.engine.bells import Bells
from weft.agents.orchestrator.engine.plans import Plans
from weft.agents.orchestrator.errors import (
    ApprovalChanged,
    ApprovalDecided,
    ApprovalNotFound,
    ApprovalNotYours,
)
from weft.agents.orchestrator.typed import read, wired
from weft.postgres import Database
from weft.rpc.paging import page_begin, page_size, page_token
from weft.v1.orchestrator_pb2 import DecideApprovalRequest
from weft.v1.workflow_pb2 import VERDICT_APPROVED

_DEFAULT_PAGE, _LARGEST_PAGE = 50, 500
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MOST_HEARD = 1_000  # approvals a slow watcher may be behind


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which approvals."""

    open: bool = True
    ended: bool = False
    run: str = ""
    mine: bool = False


class Desk:
    """The approvals that are stored. Every method raises rpc.Unavailable where the database is away.

    Args:
        database: with the queries of weft.agents.orchestrator.sql.
        bells: what wakes watchers.
        plans: workflows.
    """

    def __init__(self, database: Database, bells: Bells, plans: Plans) -> None:
        self._database = database
        self._bells = bells
        self._plans = plans

    async def get(self, asker: Asker, id_: str) -> StoredApproval:
        """An approval.

        Raises:
            ApprovalNotFound: see there.
        """
        row = await self._database.fetchrow("get_approval", asker.tenant, id_)
        if row is None:
            raise ApprovalNotFound
        return StoredApproval.from_row(row)

    async def page(
        self, asker: Asker, wanted: Wanted, size: int, token: str
    ) -> tuple[Sequence[StoredApproval], str]:
        """Approvals of a tenant, those first that have to be decided first, and the token of the next page.

        Raises:
            InvalidArgument: `size` is negative, or `token` is of another list.
        """
        size = page_size(size, default=_DEFAULT_PAGE, most=_LARGEST_PAGE)
        made_for = f"approvals {asker.tenant}\0{wanted}" + (asker.subject if wanted.mine else "")
        last = page_begin(token, made_for=made_for, like=(0, 0))
        behind = (int(last[0]), int(last[1])) if last else (0, 0)
        found = await self._list(asker, wanted, behind, size + 1)
        more = ""
        if len(found) > size:
            found = found[:size]
            until = (found[-1].until - _BEGINNING) // _MICROSECOND
            more = page_token((until, found[-1].number), made_for=made_for)
        return found, more

    async def decide(self, asker: Asker, request: DecideApprovalRequest) -> StoredApproval:
        """Decides. The first decision counts; the same one by the same person again is that.

        Raises:
            ApprovalNotFound, ApprovalNotYours, ApprovalDecided, ApprovalChanged: see there.
            InvalidArgument: what is to be approved instead is of another type, or nothing may be.
        """
        found = await self.get(asker, request.id)
        if not may_decide(
            asker.identity, scope=found.scope, own=found.own, beginner=found.beginner
        ):
            raise ApprovalNotYours
        edited, digest = await self._edited(found, request)
        verdict = "APPROVED" if request.verdict == VERDICT_APPROVED else "REJECTED"
        args = (
            *(asker.tenant, found.id, asker.subject, asker.serialized, verdict, request.digest),
            *(request.comment, edited, digest),
        )
        row = await self._database.fetchrow("decide_approval", *args)
        if row is not None:
            decided = StoredApproval.from_row(row)
            if decided.verdict is not None:
                await announce(self._database, decided)
            return decided
        return self._undecided(await self.get(asker, found.id), asker, request, verdict, digest)

    def _undecided(
        self,
        now: StoredApproval,
        asker: Asker,
        request: DecideApprovalRequest,
        verdict: str,
        edited: str | None,
    ) -> StoredApproval:
        """Why a decision did not count; or the approval, where it counted before."""
        same = now.digest == (edited or request.digest)
        if now.verdict == verdict and now.subject == asker.subject and same:
            return now
        if verdict == "APPROVED" and asker.subject in now.approvers and same:
            return now
        if now.verdict is not None or now.until <= datetime.now(UTC):
            raise ApprovalDecided
        if now.digest != request.digest:
            raise ApprovalChanged
        raise ApprovalDecided("You have decided it.")

    async def _edited(
        self, found: StoredApproval, request: DecideApprovalRequest
    ) -> tuple[bytes | None, str | None]:
        if not request.HasField("edited"):
            return None, None
        if not found.editable:
            raise rpc.InvalidArgument("cannot be changed", field="edited")
        if request.verdict != VERDICT_APPROVED:
            raise rpc.InvalidArgument("goes with an approval only", field="edited")
        types = (await self._plans.by_number(await self._workflow(found))).compiled.types
        changed = wired(read(request.edited, types, found.shown_type, field="edited")).binary
        digest = digest_of(changed)
        # Against what the caller saw: what is shown now may be this very change, said again.
        if digest == request.digest:
            return None, None
        return changed, digest

    async def _workflow(self, found: StoredApproval) -> int:
        row = await self._database.fetchrow("get_run", found.tenant, found.run_id)
        if row is None:
            raise ApprovalNotFound
        number: int = row["workflow"]
        return number

    async def watch(self, asker: Asker, *, mine: bool) -> AsyncGenerator[StoredApproval, None]:
        """Approvals that are open, then each as it changes."""
        heard: asyncio.Queue[str | None] = asyncio.Queue(_MOST_HEARD)

        def hear(id_: str | None) -> None:
            if heard.full():  # who is too slow begins anew
                while not heard.empty():
                    heard.get_nowait()
                id_ = None
            heard.put_nowait(id_)

        wanted = Wanted(mine=mine)
        told: dict[str, tuple[str | None, int, str]] = {}
        with self._bells.approvals(hear):
            hear(None)
            while True:
                for each in await self._heard(asker, wanted, await heard.get(), told):
                    state = (each.verdict, len(each.approvers), each.digest)
                    if told.get(each.id) != state:
                        yield each
                    if each.verdict is None:
                        told[each.id] = state
                    else:
                        told.pop(each.id, None)

    async def _heard(
        self, asker: Asker, wanted: Wanted, id_: str | None, told: Mapping[str, object]
    ) -> Sequence[StoredApproval]:
        if id_ is not None:
            row = await self._database.fetchrow("get_approval", asker.tenant, id_)
            found = [] if row is None else [StoredApproval.from_row(row)]
            return [
                each for each in found if not wanted.mine or each.id in told or _mine(asker, each)
            ]
        everything: list[StoredApproval] = []
        # What ended while nothing was heard is told too.
        for known in list(told):
            row = await self._database.fetchrow("get_approval", asker.tenant, known)
            if row is not None:
                everything.append(StoredApproval.from_row(row))
        behind = (0, 0)
        while more := await self._list(asker, wanted, behind, _LARGEST_PAGE):
            everything += more
            behind = ((more[-1].until - _BEGINNING) // _MICROSECOND, more[-1].number)
        return everything

    async def _list(
        self, asker: Asker, wanted: Wanted, behind: tuple[int, int], size: int
    ) -> list[StoredApproval]:
        identity = asker.identity
        scopes = list(identity.scopes) if identity is not None else []
        everything = identity is not None and identity.all_scopes
        rows = await self._database.fetch(
            "list_approvals",
            *(asker.tenant, wanted.open, wanted.ended, wanted.run, wanted.mine),
            *(asker.subject, None if everything else scopes),
            *(_BEGINNING + behind[0] * _MICROSECOND, behind[1], size),
        )
        return [StoredApproval.from_row(row) for row in rows]


def _mine(asker: Asker, each: StoredApproval) -> bool:
    who = asker.identity
    return asker.subject not in each.approvers and may_decide(
        who, scope=each.scope, own=each.own, beginner=each.beginner
    )
