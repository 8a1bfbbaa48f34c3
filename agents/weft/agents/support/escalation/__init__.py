"""Escalation: hands a request to a person and brings the answer back."""

from weft.agents.support.escalation.service import EscalationAgent

__all__ = ["EscalationAgent"]
