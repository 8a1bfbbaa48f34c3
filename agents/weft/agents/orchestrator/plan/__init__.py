"""Workflows as runs follow them: compiled from what was submitted, and checked."""
