"""Who uses a tool: the signed identity of the call being served, and nobody else's word for it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weft import rpc
from weft.agents.tools.tool import Audience, Tool
from weft.rpc import scopes
from weft.rpc.subjects import subject_of
from weft.v1.identity_pb2 import Identity

if TYPE_CHECKING:
    from weft.rpc.signing import Verifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who uses a tool, and what it may do.

    Attributes:
        identity: as the call brought it; None: nobody said, or nobody believes it.
        scopes: granted.
        everything: whether every scope counts as granted.
    """

    identity: Identity | None = None
    scopes: frozenset[str] = frozenset()
    everything: bool = False

    @property
    def subject(self) -> str:
        """Stable id; empty: nobody."""
        return "" if self.identity is None else self.identity.subject

    @property
    def tenant(self) -> str:
        """Organisation; empty: none."""
        return "" if self.identity is None else self.identity.tenant

    @property
    def key(self) -> str:
        """Names the caller among all tenants."""
        return subject_of(self.identity)

    def may(self, required: tuple[str, ...] | frozenset[str]) -> bool:
        """Whether it has all of these scopes."""
        return self.everything or self.scopes.issuperset(required)

    def check(self, tool: Tool) -> None:
        """Lets the caller use a tool.

        Raises:
            weft.rpc.scopes.ScopeMissing: it may not.
        """
        scopes.check(tool.name, tool.required, self.scopes, everything=self.everything)

    def share(self, audience: Audience) -> str:
        """Names those who get the results that this caller gets."""
        if audience == "everybody":
            return ""
        if audience == "tenant":
            return f"tenant {self.tenant}"
        # The same subject with other scopes may be told other things.
        parts = [self.key, sorted(self.scopes), self.everything]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


NOBODY = Caller()


def caller_of(
    call: rpc.Call | None, verifier: Verifier | None = None, otherwise: Identity | None = None
) -> Caller:
    """Who makes a call.

    Args:
        call: being served; None: none is.
        verifier: believes identities; None: the server of the call did that.
        otherwise: who acts while no call is being served; it needs no signature.
    """
    if call is None:
        return NOBODY if otherwise is None else _with(otherwise)
    identity = call.identity_to_pass_on  # an identity that has expired may do nothing new
    if identity is None or (verifier is not None and not verifier.believes(identity)):
        return NOBODY
    return _with(identity)


def _with(identity: Identity) -> Caller:
    return Caller(
        identity=identity, scopes=frozenset(identity.scopes), everything=identity.all_scopes
    )
