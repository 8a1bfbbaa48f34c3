"""Who a caller is by its certificate, where a server asks for one (mTLS), and which agents it may be."""

from __future__ import annotations

import logging
from typing import Any

import grpc

from weft.mtls import Credentials, Roles, SpiffeId
from weft.rpc.errors import PermissionDenied

log = logging.getLogger("weft.rpc")

Context = grpc.aio.ServicerContext[Any, Any]


class NotOfTheMesh(PermissionDenied):
    """The certificate of this connection has no SPIFFE id of this mesh's trust domain; connect with another."""

    reason = "NOT_OF_THE_MESH"


class NotThisAgent(PermissionDenied):
    """The certificate of this connection is of somebody else than the agent it speaks for."""

    reason = "NOT_THIS_AGENT"


class NotAnOperator(PermissionDenied):
    """Operators do this, such as people at a terminal: by a certificate of a client, and not of an agent or a part."""

    reason = "NOT_AN_OPERATOR"


class Membership:
    """Tells members of a mesh apart.

    Args:
        credentials: of this server.
        roles: which agents ids may be that do not name them.
    """

    def __init__(self, credentials: Credentials, roles: Roles | None = None) -> None:
        self._trust_domain = credentials.trust_domain
        self._prefix = f"spiffe://{credentials.trust_domain}/".encode()
        self._roles = roles or Roles()

    def admit(self, context: Context) -> None:
        """Sees that a caller is of this trust domain.

        Raises:
            NotOfTheMesh: it is not.
        """
        found = tuple(context.auth_context().get("peer_spiffe_id", ()))
        if len(found) != 1 or not found[0].startswith(self._prefix):
            if context.peer().startswith("unix:"):
                return  # by the server's own door
            log.warning("a call from outside of the trust domain", extra={"peer": context.peer()})
            raise NotOfTheMesh

    def who(self, context: Context) -> SpiffeId:
        """The caller.

        Raises:
            NotOfTheMesh: its certificate is not of this trust domain.
        """
        self.admit(context)
        found = context.auth_context().get("peer_spiffe_id", ())
        try:
            return SpiffeId.parse(b"".join(found).decode())
        except ValueError:
            raise NotOfTheMesh from None

    def check_operator(self, context: Context) -> None:
        """Sees that a caller is neither an agent nor a part.

        Raises:
            NotOfTheMesh: it is of another trust domain.
            NotAnOperator: it is no client.
        """
        who = self.who(context)
        if not who.client:
            raise NotAnOperator(
                f"{who} is no operator. Do it with a certificate of "
                f"spiffe://{self._trust_domain}/client/NAME.",
                metadata={"id": str(who)},
            )

    def check_agent(self, who: SpiffeId, agent: str) -> None:
        """Sees that a caller may be an agent.

        Raises:
            NotThisAgent: it may not; says what to do.
        """
        if not self._roles.may_be(who, agent):
            raise NotThisAgent(
                f"{who} is not {agent}. Give it a certificate of "
                f"spiffe://{self._trust_domain}/agent/{agent}, or let it be {agent} by WEFT_MTLS_AGENTS.",
                metadata={"agent": agent, "id": str(who)},
            )
