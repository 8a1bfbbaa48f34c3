"""Ports for servers that are killed and started again at the same place."""

from __future__ import annotations

import random
import socket

# Below what systems hand out by themselves (32768 and more on Linux, 49152 elsewhere): while a server is down, nobody
# who asks for any free port gets its.
_PORTS = range(20_000, 32_000)
_CHANCE = random.SystemRandom()  # tests seed the common one alike in every process
_TAKEN: set[int] = set()


def free_port() -> int:
    """A port of the loopback that is free, and was not given before in this process."""
    while True:
        port = _CHANCE.choice(_PORTS)
        if port in _TAKEN:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _TAKEN.add(port)
        return port
