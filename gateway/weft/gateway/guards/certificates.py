"""Callers that show a certificate (mTLS): who they are, and what they may do.

The TLS handshake has proved that the certificate is theirs and of an authority that the operator named. Here it becomes an
identity: by its SPIFFE id (X.509-SVID, 2: exactly one URI among its names), or by its common name where that is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Self

from cryptography import x509
from cryptography.x509.oid import NameOID

from weft import rpc
from weft.v1.identity_pb2 import Identity

_LONGEST = 512  # characters of a subject
_SPIFFE = re.compile(r"spiffe://[a-z0-9._-]{1,255}(?:/[A-Za-z0-9._-]+)+")
_DOTS = re.compile(r"/\.{1,2}(?:/|$)")

Rule = tuple[re.Pattern[str], str]


class CertificateUnfit(rpc.Unauthenticated):
    """The certificate names nobody that this gateway knows."""

    reason = "CERTIFICATE_UNFIT"


class CertificateExpired(rpc.Unauthenticated):
    """The certificate has expired; connect with another one."""

    reason = "CERTIFICATE_EXPIRED"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRules:
    """How a certificate becomes an identity.

    Patterns are subjects with `*` for any characters: "spiffe://example.org/shop/*", "cert:billing".
    """

    subject: Literal["spiffe", "cn"] = "spiffe"
    """What names the caller: its SPIFFE id and nothing else, or its common name where it has no SPIFFE id."""
    scopes: tuple[Rule, ...] = ()
    """Scopes of whom a pattern fits, joined by blanks. All that fit count."""
    tenants: tuple[Rule, ...] = ()
    """Tenant of whom a pattern fits; the first counts, and one must where there are any. Empty: there are no tenants."""
    edges: tuple[re.Pattern[str], ...] = ()
    """Who carries calls of others, and makes none: who calls by them is said by a key or a token alone."""

    @classmethod
    def read(
        cls, *, subject: Literal["spiffe", "cn"], scopes: str, tenants: str, edges: str = ""
    ) -> Self:
        """The same from settings: "PATTERN=SCOPE SCOPE, PATTERN=SCOPE", "PATTERN=TENANT, PATTERN=TENANT" and "PATTERN, PATTERN".

        Raises:
            ValueError: they are not of this form.
        """
        return cls(
            subject=subject,
            scopes=tuple(_rules(scopes)),
            tenants=tuple(_rules(tenants)),
            edges=tuple(map(_pattern, filter(None, map(str.strip, edges.split(","))))),
        )

    def identity(self, der: bytes) -> tuple[Identity | None, float]:
        """The bearer of a certificate, None where it is an edge, and seconds until it expires.

        Raises:
            CertificateUnfit: it names nobody, or nobody known.
            CertificateExpired: its time is over.
        """
        try:
            certificate = x509.load_der_x509_certificate(der)
            name = self._subject(certificate)
            ends = certificate.not_valid_after_utc
        except ValueError:
            raise CertificateUnfit from None
        left = (ends - datetime.now(UTC)).total_seconds()
        if left <= 0:
            raise CertificateExpired
        if any(edge.fullmatch(name) for edge in self.edges):
            return None, left
        found = {scope for _, brought in _fitting(self.scopes, name) for scope in brought.split()}
        return Identity(
            subject=name, scopes=sorted(found), tenant=self._tenant(name), issuer="mtls"
        ), left

    def _subject(self, certificate: x509.Certificate) -> str:
        try:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
        except x509.ExtensionNotFound:
            uris = []
        if any(uri.lower().startswith("spiffe:") for uri in uris):
            if len(uris) > 1:
                raise CertificateUnfit("A certificate with a SPIFFE id has no other URI.")
            if len(uris[0]) > _LONGEST or not _SPIFFE.fullmatch(uris[0]) or _DOTS.search(uris[0]):
                raise CertificateUnfit("The SPIFFE id of the certificate is none of a workload.")
            return uris[0]
        if self.subject == "spiffe":
            raise CertificateUnfit("The certificate has no SPIFFE id.")
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        value = common[0].value if len(common) == 1 else ""
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            raise CertificateUnfit("The certificate has neither a SPIFFE id nor a common name.")
        return f"cert:{value}"

    def _tenant(self, name: str) -> str:
        if not self.tenants:
            return ""
        found = next(_fitting(self.tenants, name), None)
        if found is None:
            raise CertificateUnfit("The certificate belongs to no tenant.")
        return found[1]


def _rules(text: str) -> Iterator[Rule]:
    for item in filter(None, (item.strip() for item in text.split(","))):
        pattern, equals, brought = item.partition("=")
        pattern, brought = pattern.strip(), brought.strip()
        if not equals or not brought:
            raise ValueError(f"{item!r} is not like spiffe://example.org/shop/*=WORDS")
        yield _pattern(pattern), brought


def _pattern(text: str) -> re.Pattern[str]:
    if not text.startswith(("spiffe://", "cert:")):
        raise ValueError(f"{text!r} is not like spiffe://example.org/shop/* or cert:NAME")
    return re.compile(".*".join(map(re.escape, text.split("*"))))


def _fitting(rules: Iterable[Rule], name: str) -> Iterator[Rule]:
    return (rule for rule in rules if rule[0].fullmatch(name))
