"""Triage: says what a customer's request is about, and learns it from labelled texts while it runs."""

from weft.agents.support.triage.service import TriageAgent

__all__ = ["TriageAgent"]
