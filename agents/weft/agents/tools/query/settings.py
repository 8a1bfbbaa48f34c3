"""What may be asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

_TABLE = re.compile(r"[a-z_][a-z0-9_]*\.([a-z_][a-z0-9_]*|\*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuerySettings:
    """What may be asked, and how much.

    Raises:
        ValueError: a table is not "schema.table" or "schema.*".
    """

    tables: Sequence[str]
    """Tables and views that may be read: "shop.orders", or "reports.*" for all of a schema."""
    functions: Sequence[str] = ()
    """Functions that may be called besides those of PostgreSQL that only calculate: "shop.price_of"."""
    rows: int = 200
    """Of one answer."""
    most_bytes: int = 100_000
    """Of all rows as JSON."""
    time: timedelta = timedelta(seconds=10)
    """For one question."""
    connections: int = 4
    """To the database at a time."""

    def __post_init__(self) -> None:
        wrong = [each for each in self.tables if not _TABLE.fullmatch(each)]
        if wrong or not self.tables:
            raise ValueError(f"tables are named as in shop.orders or reports.*, not {wrong}")

    @property
    def schemas(self) -> list[str]:
        """Where names without a schema are looked for, in order."""
        return list(dict.fromkeys(each.partition(".")[0] for each in self.tables))

    def may_read(self, schema: str, table: str) -> bool:
        """Whether a table may be read."""
        return f"{schema}.{table}" in self.tables or f"{schema}.*" in self.tables

    def may_call(self, schema: str, function: str) -> bool:
        """Whether a function is one of those that are named."""
        return f"{schema}.{function}" in self.functions
