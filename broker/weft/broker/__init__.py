"""Durable messages between agents."""
