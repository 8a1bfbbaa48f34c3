"""Who takes part in a debate: the debaters that are in service, or the agents that are named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc

from weft.cli import connect, failures
from weft.v1 import debater_pb2

if TYPE_CHECKING:
    from weft.cli.catalog import Skill

FEWEST: Final = 2
_MOST: Final = 20  # as weft.v1.Debate says
_SERVICE: Final = debater_pb2.DESCRIPTOR.services_by_name["DebaterService"]
_PATH: Final = f"/{_SERVICE.full_name}/{_SERVICE.methods[0].name}"
_HOW: Final = 'docs/patterns.md, "A debater of your own"'


@dataclass(frozen=True, slots=True)
class Debater:
    """Who takes part: an agent, and the skill by which it answers; None: that of debaters."""

    agent: str
    skill: Skill | None = None


async def named(registry: str, target: str) -> Debater:
    """The debater that AGENT names, or the agent and skill that AGENT.METHOD names.

    Raises:
        Failure: there is no such thing, or the agent is no debater.
    """
    from weft.cli.payloads import Skills

    agent, _, method = target.partition(".")
    if method:
        skill = await Skills(registry).find(agent, method)
        return Debater(agent, None if skill.path == _PATH else skill)
    async with connect.registry(registry) as known:
        instances = await known.agent(agent)
    if any(each.name == _SERVICE.full_name for one in instances for each in one.services):
        return Debater(agent)
    raise failures.Failure(
        f"{agent} is no debater: it does not serve {_SERVICE.full_name} ({_HOW}). "
        f"Name the skill by which it answers: {agent}.METHOD."
    )


async def in_service(registry: str, *, but: Debater | None) -> list[Debater]:
    """All debaters that are in service, by name.

    Args:
        registry: its address.
        but: who does not take part, since it judges.

    Raises:
        Failure: they are too few for a debate, or too many.
    """
    async with connect.registry(registry) as known:
        try:
            instances = await known.resolve(service=_SERVICE.full_name)
        except grpc.aio.AioRpcError as failed:
            if failed.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            instances = []  # nobody ever was one
    agents = sorted({each.agent for each in instances} - {but.agent if but else ""})
    if len(agents) < FEWEST:
        have = f"{agents[0]} alone" if agents else "none"
        raise failures.Failure(
            f"A debate takes two debaters or more; in service is {have}.\n"
            f"  A debater is an agent that serves {_SERVICE.full_name} under a name of its own. It takes a few "
            f"lines: {_HOW}.\n"
            "  Other agents take part when they are named: --with AGENT.METHOD --with AGENT.METHOD"
        )
    if len(agents) > _MOST:
        raise failures.Failure(
            f"{len(agents)} debaters are in service, and a debate takes {_MOST} at most: choose by --with AGENT."
        )
    return [Debater(agent) for agent in agents]
