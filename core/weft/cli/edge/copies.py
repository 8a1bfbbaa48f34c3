"""What an edge shows in the mesh, where its Envoy sees each change of it.

Envoy sees only files that are replaced, and takes them whether or not they belong together. So it is given copies of what
this process has read and found right, however that was written.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weft.mtls import Credentials, Files

log = logging.getLogger("weft.edge")


@contextlib.asynccontextmanager
async def kept(credentials: Credentials | None, folder: Path) -> AsyncIterator[Files | None]:
    """Copies that follow credentials, and are gone afterwards; None: there is no mTLS.

    Args:
        credentials: that somebody keeps up to date.
        folder: where the copies are.

    Raises:
        OSError: the folder cannot be written.
    """
    if credentials is None:
        yield None
        return
    try:
        generation = credentials.generation
        files = await asyncio.to_thread(credentials.copied, folder)
        following = asyncio.create_task(_follow(credentials, folder, generation))
        try:
            yield files
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def _follow(credentials: Credentials, folder: Path, copied: int) -> None:
    from weft.mtls import WATCH

    while True:
        await asyncio.sleep(WATCH.total_seconds())
        now = credentials.generation
        if now == copied:
            continue
        try:
            await asyncio.to_thread(credentials.copied, folder)
        except OSError as failed:  # a full disk, perhaps: again with the next look
            log.warning("a renewed certificate cannot be copied", extra={"cause": str(failed)})
        else:
            copied = now
