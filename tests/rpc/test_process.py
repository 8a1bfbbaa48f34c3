"""What a part with thousands of callers does to the process it runs in."""

from __future__ import annotations

import gc
import resource
import weakref
from typing import Any

import pytest

from weft.rpc import process
from weft.rpc.testing import wait_until


class Knot:
    """Holds itself: only the collector ends it."""

    def __init__(self) -> None:
        self.self = self


async def test_full_collections_are_its_own_and_end_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "_LEAST", 0.05)
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    async with process.collecting():
        full = gc.get_stats()[2]["collections"]
        kept: list[Any] = [Knot() for _ in range(30_000)]  # Python itself would look at all by now
        assert gc.get_stats()[2]["collections"] == full
        gone = weakref.ref(kept.pop())
        await wait_until(lambda: gone() is None)
        assert gc.get_freeze_count() > frozen
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_it_may_open_as_many_files_as_it_is_allowed() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1_024, hard))
    try:
        process.raise_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
