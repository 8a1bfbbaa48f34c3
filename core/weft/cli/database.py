"""The mesh's PostgreSQL as commands reach it: by URL, or the embedded one of a running `weft up`."""

from __future__ import annotations

from weft import embedded
from weft.cli.failures import Failure
from weft.config import Settings


def url(settings: Settings) -> str:
    """Its URL.

    Raises:
        Failure: none is named and none runs.
    """
    if settings.database_url:
        return settings.database_url
    found = embedded.endpoints(settings.data)
    if found is None:
        raise Failure(
            f"No database: nothing runs on {settings.data}. Start `weft up` first, name its folder "
            "with --data or WEFT_DATA, or name a PostgreSQL with --database-url or WEFT_DATABASE_URL."
        )
    return found.database_url
