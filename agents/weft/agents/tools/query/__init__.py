"""Asks a PostgreSQL database: one SELECT, of tables that are allowed, that changes nothing."""

from weft.agents.tools.query.asking import QueryFailed
from weft.agents.tools.query.guard import QueryRefused, RoleRefused
from weft.agents.tools.query.settings import QuerySettings
from weft.agents.tools.query.tool import Query

__all__ = ["Query", "QueryFailed", "QueryRefused", "QuerySettings", "RoleRefused"]
