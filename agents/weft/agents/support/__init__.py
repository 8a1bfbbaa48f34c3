"""The fleet `support`: seven agents that answer the customers of a bank.

async with support.fleet(database_url=..., redis_url=..., stub=mesh.stub) as servicers: ...
"""

from weft.agents.support.escalation import EscalationAgent
from weft.agents.support.fleet import database, fleet
from weft.agents.support.mailbox import MailboxAgent
from weft.agents.support.quality import QualityAgent
from weft.agents.support.research import ResearchAgent
from weft.agents.support.solution import SolutionAgent
from weft.agents.support.supervisor import Fleet, SupervisorAgent
from weft.agents.support.triage import TriageAgent

__all__ = [
    "EscalationAgent",
    "Fleet",
    "MailboxAgent",
    "QualityAgent",
    "ResearchAgent",
    "SolutionAgent",
    "SupervisorAgent",
    "TriageAgent",
    "database",
    "fleet",
]
