"""PostgreSQL for the rooms: a pool, ordered migrations, SQL called by its name, errors of one tree.

Each room has a schema of its own and a package of `.sql` files: `NNNN_*.sql` are migrations, all
others hold queries, each under a line `-- name: NAME` and a comment that says what it is for.
"""

from weft.postgres._database import Database
from weft.postgres._errors import DRIVER_ERRORS, REFUSES
from weft.postgres._listener import Listener
from weft.postgres._migrations import MigrationChanged, MigrationFailed, SchemaBehind
from weft.postgres._queries import Queries, UnknownQuery, migrations
from weft.postgres._transaction import Transaction

__all__ = [
    "DRIVER_ERRORS",
    "REFUSES",
    "Database",
    "Listener",
    "MigrationChanged",
    "MigrationFailed",
    "Queries",
    "SchemaBehind",
    "Transaction",
    "UnknownQuery",
    "migrations",
]
