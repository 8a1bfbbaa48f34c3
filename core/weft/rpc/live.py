"""What operators set of an agent while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from weft.rpc.errors import Unavailable
from weft.rpc.utilization import Utilization


class AgentPaused(Unavailable):
    """An operator has paused the agent; its messages wait. `weft agents resume` lets it go on."""

    reason = "AGENT_PAUSED"


@dataclass(slots=True, kw_only=True)
class LiveSettings:
    """Of one agent in this process, read with every call it serves.

    Attributes:
        paused: why it takes no calls, for people; None: it takes them.
        timeouts: most seconds a call may take, whatever its caller grants, by path "/package.Service/Method".
        model: name of the model its questions go to; empty: the one that it asks for.
        prompts: version of each prompt, by its name; those left out are chosen by their weights.
        utilization: told to callers beside each answer; None: it is not told.
    """

    paused: str | None = None
    timeouts: Mapping[str, float] = field(default_factory=dict)
    model: str = ""
    prompts: Mapping[str, str] = field(default_factory=dict)
    utilization: Utilization | None = None
