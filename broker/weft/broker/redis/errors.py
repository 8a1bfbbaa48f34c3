"""What goes wrong between a broker and Redis.

rpc.Unavailable
└── StoreUnavailable
    ├── ConnectionLost   the command was not sent, or nobody knows what became of it
    ├── StoreRefuses     Redis answered that it takes no such command now (`refusal`)
    └── NotSafe          done, but not known to be as safe as asked
rpc.FailedPrecondition
└── StoreUnfit           a server that cannot do what is asked of it: its version, its settings, our password
ReplyError               any other error reply (`code`): a bug, or an answer the caller expects (NOGROUP)
└── Redirected           a cluster's "not here"; never leaves this package
"""

from __future__ import annotations

from datetime import timedelta

from weft import rpc
from weft.broker.errors import StoreUnavailable

__all__ = [
    "ConnectionLost",
    "NotSafe",
    "Redirected",
    "ReplyError",
    "StoreRefuses",
    "StoreUnavailable",
    "StoreUnfit",
    "is_other_server",
    "of_reply",
]

# Replies that say more of the state of the server than of the command.
_REFUSALS = frozenset(
    {
        *("OOM", "MISCONF", "READONLY", "NOREPLICAS", "LOADING", "CLUSTERDOWN", "MASTERDOWN"),
        *("TRYAGAIN", "BUSY", "UNBLOCKED"),
    }
)
_UNFIT = frozenset({"NOAUTH", "WRONGPASS", "NOPERM"})
_DAMAGED = "ERR Protocol error"
_NO_FUNCTION = "ERR Function not found"
_SOON = timedelta(milliseconds=500)


class ConnectionLost(StoreUnavailable):
    """The connection to Redis broke; nothing is known of the message, publish it again with the same id."""


class StoreRefuses(StoreUnavailable):
    """Redis takes no such command now. `refusal` is the first word of its reply, such as OOM."""

    def __init__(self, reply: str) -> None:
        super().__init__(f"Redis refuses: {reply}", retry_after=_SOON)
        self.refusal = reply.partition(" ")[0]


class NotSafe(StoreUnavailable):
    """It is not known to be as safe as asked; publish it again with the same id."""


class StoreUnfit(rpc.FailedPrecondition):
    """This Redis cannot be used in this way."""

    reason = "STORE_UNFIT"


class ReplyError(Exception):
    """An error reply. `code` is its first word."""

    def __init__(self, reply: str) -> None:
        super().__init__(reply)
        self.code = reply.partition(" ")[0]


class Redirected(ReplyError):
    """A cluster says that the slot is at, or on its way to, another node.

    https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#redirection-and-resharding

    Attributes:
        slot: of the key; -1 for TRYAGAIN.
        address: "host:port"; without a host it is the one that answered. Empty for TRYAGAIN.
    """

    def __init__(self, reply: str) -> None:
        super().__init__(reply)
        words = reply.split(" ")
        elsewhere = self.code != "TRYAGAIN"
        self.slot = int(words[1]) if elsewhere else -1
        self.address = words[2] if elsewhere else ""


def of_reply(reply: str) -> Exception:
    """The exception that an error reply stands for."""
    code = reply.partition(" ")[0]
    if reply.startswith(_DAMAGED):
        return ConnectionLost("Redis did not understand what arrived; the connection ends.")
    if code in {"MOVED", "ASK", "TRYAGAIN"}:
        return Redirected(reply)
    if code in _REFUSALS or reply.startswith(_NO_FUNCTION):
        return StoreRefuses(reply)
    if code in _UNFIT:
        return StoreUnfit(f"Redis refuses this account: {reply}")
    return ReplyError(reply)


def is_other_server(error: Exception) -> bool:
    """Whether an error says that this server is no longer the one we set up: look for the primary again."""
    if not isinstance(error, StoreRefuses):
        return False
    return error.refusal in {"READONLY", "MASTERDOWN", "UNBLOCKED"} or _NO_FUNCTION in error.message
