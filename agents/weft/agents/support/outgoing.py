"""The seam to durable messages: agents of the fleet send skills, whoever runs them gives the means."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Protocol

from google.protobuf.message import Message


class Sends(Protocol):
    """`weft.agents.Mesh.send`: returns when the message cannot be lost any more."""

    async def __call__(
        self,
        method: Callable[..., Any],
        request: Message,
        *,
        id: str = "",  # noqa: A002 the CloudEvents name
        key: str = "",
        delay: timedelta | None = None,
    ) -> object:
        """Sends a request to the skill that `method` of a generated Servicer names."""
