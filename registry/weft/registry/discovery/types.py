"""Where in a message another type of message stands."""

from __future__ import annotations

from collections import deque

from weft.registry.catalog import Messages


def place_of(wanted: str, message: str, messages: Messages) -> str | None:
    """The shortest way from a message to a field of the type `wanted`, such as "tickets.author".

    "" when the message itself is of the type; None when no field is, at any depth.
    """
    if message == wanted:
        return ""
    seen = {message}
    ways = deque([(message, "")])
    while ways:
        name, way = ways.popleft()
        for field, found in messages.get(name, ()):
            further = f"{way}.{field}" if way else field
            if found == wanted:
                return further
            if found not in seen:
                seen.add(found)
                ways.append((found, further))
    return None
