"""Named queries and migrations of the ledger of models."""
