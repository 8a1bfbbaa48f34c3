"""Calls of idempotent skills, tried again as AIP-194 allows: on UNAVAILABLE only, with jitter, within their time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

import grpc

from weft import rpc

_ATTEMPTS = 3
_FIRST_PAUSE = timedelta(milliseconds=50)
_USUAL = timedelta(seconds=5)

Response = TypeVar("Response")


async def attempt(
    skill: Callable[..., Awaitable[Response]], request: object, *, within: timedelta | None = None
) -> Response:
    """Calls an idempotent skill.

    Args:
        skill: the method of a stub.
        request: what it is given.
        within: what time it has; None: what is left of the call that is being served, 5 seconds where that has no end.

    Raises:
        rpc.Error: as the last attempt ended.
    """
    if within is None:
        deadline = rpc.Deadline.current() or rpc.Deadline.after(_USUAL)
    else:
        deadline = rpc.Deadline.after(within)
    pause = _FIRST_PAUSE.total_seconds()
    for left in reversed(range(_ATTEMPTS)):
        deadline.check()
        try:
            return await skill(request, timeout=deadline.seconds())
        except grpc.aio.AioRpcError as failed:
            if failed.code() is not grpc.StatusCode.UNAVAILABLE or not left:
                raise rpc.error_from_call(failed) from failed
        await asyncio.sleep(min(random.uniform(0.5, 1.0) * pause, deadline.seconds()))  # noqa: S311 jitter
        pause *= 2
    raise AssertionError("the last attempt returns or raises")
