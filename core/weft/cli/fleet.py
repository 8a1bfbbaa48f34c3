"""The fleet that ships with Weft."""

AGENTS = (
    "support-supervisor",
    "support-triage",
    "support-research",
    "support-solution",
    "support-quality",
    "support-escalation",
    "support-mailbox",
)
