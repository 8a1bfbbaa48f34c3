"""The schema of the orchestrator and its queries by name."""
