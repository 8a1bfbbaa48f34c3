"""Statements of the audit."""
