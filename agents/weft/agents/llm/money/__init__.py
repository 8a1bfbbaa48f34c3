"""What models cost: meters, budgets, and the ledger that holds over processes."""

from weft.agents.llm.money.books import Books, Limit
from weft.agents.llm.money.ledger import Account, Entry, Ledger, MemoryLedger, Spent
from weft.agents.llm.money.meter import Meter, metered

__all__ = [
    "Account",
    "Books",
    "Entry",
    "Ledger",
    "Limit",
    "MemoryLedger",
    "Meter",
    "Spent",
    "metered",
]
