"""A receiver of webhooks as a process: verifies, writes down, and fails now and then: `PORT FILE SEED`."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from weft.gateway.http import HttpServer, HttpSettings

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
_REFUSED, _SILENT = 0.15, 0.05  # shares of deliveries
_SILENCE = 5.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One that was made. `taken`: it was answered 204."""

    id: str
    job: str
    state: str
    verified: bool
    taken: bool


class Receiver:
    """An ASGI application."""

    def __init__(self, file: Path, seed: int) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._chance = random.Random(seed)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            part = await receive()
            body, more = body + part.get("body", b""), part.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        chance = self._chance.random()
        taken = chance >= _REFUSED + _SILENT
        data = json.loads(body)["data"]
        noted = {
            "id": headers["webhook-id"],
            "job": data["job"],
            "state": data["state"],
            "verified": verifies(headers, body),
            "taken": taken,
        }
        os.write(self._file, json.dumps(noted).encode() + b"\n")
        if chance < _SILENT:
            await asyncio.sleep(_SILENCE)
        status = 204 if taken else 500
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def verifies(headers: dict[str, str], body: bytes) -> bool:
    """Whether a delivery is signed as Standard Webhooks say."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return hmac.compare_digest(headers["webhook-signature"], f"v1,{digest}")


def deliveries(file: Path) -> Sequence[Delivery]:
    """All that were made."""
    lines = file.read_text().splitlines() if file.exists() else []
    return [Delivery(**json.loads(line)) for line in lines]


async def _serve(port: int, file: Path, seed: int) -> None:
    server = HttpServer(Receiver(file, seed), HttpSettings(port=port))
    await server.start()
    print("ready", flush=True)  # noqa: T201 for whoever started it
    try:
        await asyncio.Event().wait()
    finally:
        await server.stop(timedelta(0))


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
