"""SPIFFE ids: who a process of the mesh is (SPIFFE-ID, 2). A certificate has exactly one (X.509-SVID, 2).

    spiffe://weft.local/agent/support-triage              an agent
    spiffe://weft.local/agent/support-quality/support-triage    a process that is several
    spiffe://weft.local/part/registry                     registry, broker, gateway or edge
    spiffe://weft.local/client/ann                        whoever calls, and is no agent

Other forms, such as spiffe://example.org/ns/shop/sa/triage, are as good; `Roles` says which agents they may be.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

_LONGEST = 2_048  # bytes
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")
_AGENT, _PART, _CLIENT = "agent", "part", "client"


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """An id.

    Attributes:
        trust_domain: whose word it is, such as "weft.local".
        segments: of its path.
    """

    trust_domain: str
    segments: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """The id that a text is.

        Raises:
            ValueError: it is none.
        """
        scheme, _, rest = text.partition("://")
        trust_domain, *segments = rest.split("/")
        if scheme != "spiffe" or not segments or len(text.encode()) > _LONGEST:
            raise ValueError(
                f"{text[:200]!r} is no SPIFFE id, such as spiffe://weft.local/agent/greeter"
            )
        check_trust_domain(trust_domain)
        for segment in segments:
            if not _SEGMENT.fullmatch(segment) or segment in {".", ".."}:
                raise ValueError(f"{text[:200]!r} has a part that a SPIFFE id may not have")
        return cls(trust_domain, tuple(segments))

    @property
    def agents(self) -> tuple[str, ...]:
        """The agents it is by its name alone."""
        return self.segments[1:] if self.segments[0] == _AGENT else ()

    @property
    def part(self) -> str:
        """The part it is, such as "registry"; empty: none."""
        return self._only(_PART)

    @property
    def client(self) -> str:
        """The client it is; empty: none."""
        return self._only(_CLIENT)

    def _only(self, kind: str) -> str:
        first, *rest = self.segments
        return rest[0] if first == kind and len(rest) == 1 else ""

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/{'/'.join(self.segments)}"


def agents_id(trust_domain: str, agents: Iterable[str]) -> SpiffeId:
    """The id of a process that is these agents.

    Raises:
        ValueError: there are none, or so many that an id cannot name them.
    """
    return SpiffeId.parse(f"spiffe://{trust_domain}/{_AGENT}/{'/'.join(sorted(set(agents)))}")


def part_id(trust_domain: str, part: str) -> SpiffeId:
    """The id of registry, broker, gateway or edge."""
    return SpiffeId.parse(f"spiffe://{trust_domain}/{_PART}/{part}")


def client_id(trust_domain: str, name: str) -> SpiffeId:
    """The id of whoever calls. What an id may not have is replaced by hyphens."""
    return SpiffeId.parse(
        f"spiffe://{trust_domain}/{_CLIENT}/{re.sub(r'[^A-Za-z0-9_-]', '-', name)}"
    )


def part_name(trust_domain: str, part: str) -> str:
    """The DNS name in the certificate of a part that is dialled by its IP address, such as "registry.weft.local"."""
    return f"{part}.{trust_domain}"


def part_at(host: str, trust_domain: str, part: str) -> str:
    """The DNS name that the certificate of a part must have: by a host name, that name; by an IP address, which many share, its own."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host
    return part_name(trust_domain, part)


def check_trust_domain(text: str) -> None:
    """Raises ValueError where a text is no trust domain."""
    if not _TRUST_DOMAIN.fullmatch(text):
        raise ValueError(
            f"{text[:200]!r} is no trust domain: a-z, 0-9, dot, hyphen and underscore, such as example.org"
        )
