"""Collaborations of agents as data: graphs, debates, panels, approvals, durable on PostgreSQL."""
