"""Carries runs out: a log, leases, and workers that share them. docs/workflows.md says what is promised."""
