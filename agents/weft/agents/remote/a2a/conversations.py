"""What callers were at with a remote agent: a call of the same conversation goes on where the last one ended."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from weft import rpc

_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where a conversation is. `task_id`: of a task that waits for the caller; empty: none does."""

    context_id: str = ""
    task_id: str = ""


class Conversations:
    """Places, by caller, skill and conversation of the mesh. Kept in memory: the oldest go first."""

    def __init__(self) -> None:
        self._places: OrderedDict[tuple[str, str, str, str], Place] = OrderedDict()

    def find(self, skill: str) -> Place:
        """Where the conversation of the current call is."""
        key = _key(skill)
        return self._places.get(key, Place()) if key else Place()

    def note(self, skill: str, place: Place) -> None:
        """The conversation of the current call is there now."""
        key = _key(skill)
        if key is None or not place.context_id:
            return
        self._places[key] = place
        self._places.move_to_end(key)
        while len(self._places) > _MOST:
            self._places.popitem(last=False)


def _key(skill: str) -> tuple[str, str, str, str] | None:
    call = rpc.current_call()
    if call is None or not call.conversation:
        return None
    identity = call.identity
    who = (identity.tenant, identity.subject) if identity else ("", "")
    return (*who, skill, call.conversation)
