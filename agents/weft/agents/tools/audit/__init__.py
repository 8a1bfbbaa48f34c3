"""Who used which tool, for what, and what came of it: a record for each use, also of those that were refused."""

from weft.agents.tools.audit.database import SCHEMA, SQL, DatabaseAudit, database
from weft.agents.tools.audit.record import Audit, Outcome, Use
from weft.agents.tools.audit.testing import MemoryAudit

__all__ = [
    "SCHEMA",
    "SQL",
    "Audit",
    "DatabaseAudit",
    "MemoryAudit",
    "Outcome",
    "Use",
    "database",
]
