"""The gateway: turns calls from outside into calls of agents."""
