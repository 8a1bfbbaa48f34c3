"""Runs, without clock or network: what a log means, and what is next."""
