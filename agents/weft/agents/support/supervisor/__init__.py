"""Supervisor: answers a customer's question by leading the other agents of the fleet."""

from weft.agents.support.supervisor.leading import Fleet
from weft.agents.support.supervisor.service import SupervisorAgent

__all__ = ["Fleet", "SupervisorAgent"]
