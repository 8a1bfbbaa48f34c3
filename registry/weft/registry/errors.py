"""Errors that several services of the registry raise."""

from __future__ import annotations

from weft import rpc


class NeverRegistered(rpc.NotFound):
    """Nothing of this name was ever registered, which is not the same as nobody being there now.

    Args:
        kind: of name: agent, service, capability, message_type.
        name: that nobody knows.
    """

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(
            f"No {kind.replace('_', ' ')} {name!r} was ever registered. `weft agents` lists what there is.",
            reason=f"{kind.upper()}_UNKNOWN",
            metadata={kind: name},
        )


class InstanceTaken(rpc.AlreadyExists):
    """An instance of this id is another agent's; register under another id."""

    reason = "INSTANCE_TAKEN"
