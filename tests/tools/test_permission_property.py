"""A tool never runs for who may not use it: over identities, tools, ways to use them, what was kept, and tools within tools."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.tools.callers import STRANGER, VERIFIER, changed, expired, serving, signed

from weft import rpc
from weft.agents.tools import Keeping, MemoryAudit, MemoryShelf, Tool, Toolbox
from weft.agents.tools.keeping import Kept
from weft.tools.v1.calculator_pb2 import CalculateRequest, CalculateResponse
from weft.v1.identity_pb2 import Identity

SCOPES = ("a", "b", "c")
SUBJECTS = ("user:ann", "user:bob")
KINDS = (
    "signed",
    "signed",
    "signed",
    "everything",
    "unsigned",
    "stranger",
    "changed",
    "expired",
    "nobody",
)
WAYS = ("use", "offer", "stolen offer", "loop")
AUDIENCES = ("identity", "tenant", "everybody")


@dataclass(frozen=True, slots=True)
class Who:
    """An identity, and what it really may do."""

    kind: str
    subject: str
    tenant: str
    scopes: frozenset[str]

    @property
    def identity(self) -> Identity | None:
        who = (self.subject, *sorted(self.scopes))
        made: dict[str, Callable[[], Identity | None]] = {
            "nobody": lambda: None,
            "signed": lambda: signed(*who, tenant=self.tenant),
            "everything": lambda: signed(*who, tenant=self.tenant, all_scopes=True),
            "unsigned": lambda: Identity(subject=who[0], scopes=who[1:], all_scopes=True),
            "stranger": lambda: signed(*who, signer=STRANGER, all_scopes=True),
            "changed": lambda: changed(*who),
            "expired": lambda: expired(*who),
        }
        return made[self.kind]()

    def may(self, required: Sequence[str]) -> bool:
        if self.kind == "everything":
            return True
        granted = self.scopes if self.kind == "signed" else frozenset()
        return granted.issuperset(required)


@dataclass(slots=True)
class World:
    """Tools that use one another, and who was served while each ran."""

    plan: Sequence[tuple[Sequence[str], Sequence[int], str, bool]]
    """Of each tool: its scopes, the tools it uses, whom its results are kept for, whether it goes on where one is refused."""
    now: Who | None = None
    ran: list[tuple[int, Who]] = field(default_factory=list)
    toolbox: Any = None

    def tools(self) -> list[Tool]:
        return [self._tool(number) for number in range(len(self.plan))]

    def _tool(self, number: int) -> Tool:
        scopes, inner, audience, goes_on = self.plan[number]

        async def run(request: CalculateRequest) -> CalculateResponse:
            assert self.now is not None
            self.ran.append((number, self.now))
            found = [str(number)]
            for each in inner:
                try:
                    # In tasks of their own as well: what is known of the caller goes with them.
                    used = asyncio.ensure_future(self.use(each, request.expression))
                    found += (await used).split()
                except rpc.Error:
                    if not goes_on:
                        raise
            return CalculateResponse(value=" ".join(found))

        return Tool(
            name=f"tool-{number}",
            description="Says which tools found it.",
            request=CalculateRequest,
            response=CalculateResponse,
            run=run,
            scopes=tuple(scopes),
            effects=not audience,
            keeping=Keeping(ttl=timedelta(minutes=1), audience=audience) if audience else None,  # type: ignore[arg-type]
        )

    async def use(self, number: int, text: str) -> str:
        request = CalculateRequest(expression=text)
        found: CalculateResponse = await self.toolbox.use(
            f"tool-{number}", request, CalculateResponse
        )
        return found.value


whos = st.builds(
    Who,
    kind=st.sampled_from(KINDS),
    subject=st.sampled_from(SUBJECTS),
    tenant=st.sampled_from(("acme", "")),
    scopes=st.frozensets(st.sampled_from(SCOPES)),
)


@st.composite
def plans(draw: Any) -> Any:
    count = draw(st.integers(1, 5))
    some = st.lists(st.sampled_from(SCOPES), max_size=2, unique=True)
    return [
        (
            draw(some),
            draw(st.lists(st.integers(number + 1, count - 1), max_size=2))
            if number + 1 < count
            else [],
            draw(st.sampled_from(("", *AUDIENCES, "everybody", "everybody"))),
            draw(st.booleans()),
        )
        for number in range(count)
    ]


@st.composite
def works(draw: Any) -> Any:
    """What a few callers do, the same tools again and again: what one found is there when the next one comes."""
    callers = st.sampled_from(draw(st.lists(whos, min_size=2, max_size=3)))
    step = st.tuples(callers, st.sampled_from(WAYS), st.integers(0, 4))
    return draw(st.lists(step, min_size=2, max_size=12))


@dataclass(slots=True)
class Tally:
    """That the property was tried at all."""

    ran: int = 0
    refused: int = 0
    kept: int = 0
    withheld: int = 0
    nested: int = 0


class Watched(MemoryShelf):
    """Counts results that are there, and are not for whoever asks."""

    def __init__(self, world: World, tally: Tally) -> None:
        super().__init__()
        self._world = world
        self._tally = tally

    async def get(self, key: str) -> Kept | None:
        found = await super().get(key)
        assert self._world.now is not None
        self._tally.withheld += found is not None and not self._world.now.may(sorted(found.needs))
        return found


async def attempt(world: World, who: Who, way: str, number: int, offers: list[Any]) -> list[str]:
    """Uses a tool in one of the ways there are; the texts that come of it."""
    world.now = who
    text = "1"
    with contextlib.suppress(rpc.Error):
        if way == "use":
            return [await world.use(number, text)]
        arguments = {"expression": text}
        if way == "offer":
            mine = {each.name: each for each in world.toolbox}
            for name in mine:
                assert who.may(world.plan[int(name.removeprefix("tool-"))][0])
            offer = mine.get(f"tool-{number}")
            told = [] if offer is None else [await offer(arguments)]
        elif way == "stolen offer":
            told = [await offers[number](arguments)]
        else:  # a model that tries whatever it ever heard of
            told = [await each(arguments) for each in (*world.toolbox, *offers)]
        return [each.json["value"] for each in told if not each.is_error]
    return []


async def trial(plan: Any, steps: Any, tally: Tally) -> None:
    world = World(plan)
    audit = MemoryAudit()
    shelf = Watched(world, tally)
    async with Toolbox(world.tools(), audit=audit, verifier=VERIFIER, shelf=shelf) as toolbox:
        world.toolbox = toolbox

        async def all_offers() -> list[Any]:
            return toolbox.offered()

        # Those of somebody who may do everything, in the hands of whoever comes.
        offers = await serving(signed("user:root", all_scopes=True), all_offers)
        for who, way, index in steps:
            number = index % len(plan)
            texts = await serving(
                who.identity, lambda who=who, way=way, n=number: attempt(world, who, way, n, offers)
            )
            for found in (int(each) for text in texts for each in text.split()):
                # What a tool found, by itself or for another, kept or not, was for somebody who may use it.
                assert who.may(plan[found][0]), (who, way, found)
            tally.nested += sum(" " in text for text in texts)
    for number, who in world.ran:
        assert who.may(plan[number][0]), (who, number)
    assert all(outcome.code != "RUNNING" for _, outcome in audit.uses)
    # Where a scope is missing, the arguments are not looked at.
    refused = [use for use, _ in audit.uses if use.arguments is None]
    kept = [use for use, outcome in audit.uses if outcome.kept]
    assert len(world.ran) == len(audit.uses) - len(refused) - len(kept)
    tally.ran += len(world.ran)
    tally.kept += len(kept)
    tally.refused += len(refused)


@pytest.mark.timeout(120)
def test_a_tool_never_runs_for_who_may_not_use_it() -> None:
    tally = Tally()
    # A loop of its own: what else runs beside the one of all tests would use `random` while examples are drawn.
    loop = asyncio.new_event_loop()

    @settings(
        max_examples=300,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(plans(), works())
    def many(plan: Any, steps: Any) -> None:
        loop.run_until_complete(asyncio.wait_for(trial(plan, steps, tally), 60))

    with contextlib.closing(loop):
        many()
    assert min(tally.ran, tally.refused, tally.kept, tally.nested) > 100, tally
    assert tally.withheld > 20, tally


async def test_the_property_sees_a_guard_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each guard taken away is found out: the trial is able to fail."""
    from weft.agents.tools.callers import Caller
    from weft.agents.tools.using import Using

    chance = random.Random(7)
    kinds = [
        Who(k, s, "acme", frozenset(c)) for k in KINDS for s in SUBJECTS for c in ("", "a", "ab")
    ]
    plan = [
        ((), [1], "everybody", True),
        (("a",), [2], "tenant", False),
        (("a", "b"), [], "identity", False),
    ]
    steps = [(each, way, n) for each in kinds for way in WAYS for n in range(3)]
    chance.shuffle(steps)
    tally = Tally()
    await trial(plan, steps, tally)
    taken_away: list[tuple[Any, str, Any]] = [
        (Caller, "check", lambda _, tool: None),
        (Using, "needed", lambda _, scopes: None),
    ]
    for owner, name, without in taken_away:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, without)
            with pytest.raises(AssertionError):
                await trial(plan, steps, tally)
