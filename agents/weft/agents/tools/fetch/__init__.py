"""Reads pages of the public web, and nothing else."""

from weft.agents.tools.fetch.reader import FetchRefused, FetchSettings
from weft.agents.tools.fetch.tool import fetch

__all__ = ["FetchRefused", "FetchSettings", "fetch"]
