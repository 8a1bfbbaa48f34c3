"""What the claims of a verified token make of its bearer: subject, scopes, tenant."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from weft.gateway.guards.jwks import TokenInvalid
from weft.v1.identity_pb2 import Identity

_TEXT = 200  # characters of a subject, a name, a tenant
_SCOPES = 200
_SCOPE = 100  # characters
# Subjects of others: a token must not be able to name one of them.
_TAKEN = ("key:", "agent:", "person:", "spiffe:", "cert:")

Claims = Mapping[str, Any]


class ClaimMissing(TokenInvalid):
    """The token lacks a claim that this gateway needs."""

    reason = "TOKEN_CLAIM_MISSING"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRules:
    """How claims become an identity. A claim within others is named with dots, as realm_access.roles.

    Raises:
        ValueError: a rule is no rule.
    """

    subject: str = "user:{sub}"
    """Claims in braces; what is before the first of them ends with a colon and tells these subjects from others."""
    scopes: tuple[str, ...] = ("scope", "scp")
    """Claims that hold scopes: a list, or a text with blanks between."""
    roles: str = ""
    """Claim that holds roles, of the same form; empty: none."""
    scopes_of_roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Scopes that a role brings. A role that is not named brings none."""
    tenant: str = ""
    """Claim that holds the tenant, which every token must have then; empty: there are no tenants."""

    def __post_init__(self) -> None:
        parts = [*_parts(self.subject)]
        prefix, first = parts[0] if parts else ("", "")
        if not first or not prefix.endswith(":") or prefix.startswith(_TAKEN):
            raise ValueError(
                f"subject {self.subject!r}: must be like user:{{sub}}, and begin with none of {', '.join(_TAKEN)}"
            )

    @classmethod
    def read(
        cls, *, subject: str, scopes: str, roles: str, scopes_of_roles: str, tenant: str
    ) -> Self:
        """The same from settings: names joined by commas; roles as "admin=a.read a.write, guest=a.read".

        Raises:
            ValueError: they are not of this form.
        """
        mapped = {}
        for item in filter(None, (item.strip() for item in scopes_of_roles.split(","))):
            role, equals, brought = item.partition("=")
            if not equals or not role.strip():
                raise ValueError(f"{item!r} is not ROLE=SCOPE SCOPE")
            mapped[role.strip()] = tuple(brought.split())
        return cls(
            subject=subject,
            scopes=tuple(name.strip() for name in scopes.split(",") if name.strip()),
            roles=roles,
            scopes_of_roles=mapped,
            tenant=tenant,
        )

    def identity(self, claims: Claims) -> Identity:
        """The bearer of a token with these claims.

        Raises:
            ClaimMissing: the subject or the tenant needs a claim that is not there, or is no short text.
        """
        subject = "".join(
            literal + (_text(claims, name) if name else "")
            for literal, name in _parts(self.subject)
        )
        if len(subject) > _TEXT:
            raise TokenInvalid("The token's subject is too long.")
        name = claims.get("name")
        return Identity(
            subject=subject,
            display_name=name if isinstance(name, str) and _is_short(name) else "",
            scopes=self._scopes(claims),
            tenant=_text(claims, self.tenant) if self.tenant else "",
            issuer=str(claims.get("iss", "")),
        )

    def _scopes(self, claims: Claims) -> Sequence[str]:
        found = {scope for claim in self.scopes for scope in _words(_at(claims, claim))}
        if self.roles:
            for role in _words(_at(claims, self.roles)):
                found.update(self.scopes_of_roles.get(role, ()))
        if len(found) > _SCOPES:
            raise TokenInvalid(f"The token has more than {_SCOPES} scopes.")
        return sorted(scope for scope in found if len(scope) <= _SCOPE)


def _parts(template: str) -> Iterator[tuple[str, str]]:
    for literal, name, form, conversion in string.Formatter().parse(template):
        if form or conversion or name == "":
            raise ValueError(f"subject {template!r}: braces hold the name of a claim")
        yield literal, name or ""


def _at(claims: Claims, name: str) -> Any:
    if name in claims:  # names such as https://example.com/tenant have dots of their own
        return claims[name]
    found: Any = claims
    for step in name.split("."):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found


def _text(claims: Claims, name: str) -> str:
    found = _at(claims, name)
    if not isinstance(found, str) or not found or not _is_short(found):
        raise ClaimMissing(
            f"The token has no claim {name} that is a short text.", metadata={"claim": name}
        )
    return found


def _is_short(text: str) -> bool:
    return len(text) <= _TEXT and text.isprintable()


def _words(found: Any) -> Iterator[str]:
    """The words of a text, or the texts of a list; a list's may hold no blank, or they could not be told apart."""
    if isinstance(found, str):
        yield from found.split()
    elif isinstance(found, list):
        yield from (one for one in found if isinstance(one, str) and one and not _has_blank(one))


def _has_blank(text: str) -> bool:
    return any(character.isspace() for character in text)
