"""Doors of the gateway: each turns one protocol into calls of agents."""
