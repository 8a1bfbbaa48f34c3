"""An agent, and a mesh that knows it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.gateway.dataplane.agents import Agent, agent_at, mesh_of

from weft.gateway.dataplane import Mesh


@pytest.fixture
async def agent() -> AsyncIterator[Agent]:
    async with agent_at() as agent:
        yield agent


@pytest.fixture
async def mesh(agent: Agent) -> AsyncIterator[Mesh]:
    async with mesh_of(agent.address) as mesh:
        yield mesh
