"""The server by itself, until it is interrupted."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from pathlib import Path

from weft.testing.messages_server import MessagesServer, scenarios
from weft.testing.messages_server.messages import FLAVOURS


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m weft.testing.messages_server",
        description="A server that speaks the Messages API and does not think: it says back what it is asked, "
        "fills the least value into a schema, or gives the answers of a file. A model of one of these names "
        f"fails as it says: {', '.join(scenarios.BY_MODEL)}.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=11435, help="0: any (default: %(default)s)")
    parser.add_argument("--flavour", choices=FLAVOURS, default="claude")
    parser.add_argument(
        "--answers",
        type=Path,
        help='JSON file with what models always say: {"MODEL": {"text": "..."} or {"json": {...}}}',
    )
    given = parser.parse_args()
    try:
        server = MessagesServer(given.host, given.port, flavour=given.flavour)
        if given.answers:
            for model, answer in json.loads(given.answers.read_text(encoding="utf-8")).items():
                server.always(model, scenarios.read(answer))
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_run(server))
    except (OSError, ValueError, TypeError) as failed:
        sys.exit(f"Error: {failed}")


async def _run(server: MessagesServer) -> None:
    async with server:
        print(f"serving the Messages API at {server.url}", file=sys.stderr, flush=True)  # noqa: T201 the process entry
        await asyncio.Event().wait()


if __name__ == "__main__":
    main()
