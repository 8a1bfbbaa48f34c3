"""Who may come in, and where to: the caller behind a request by API key, token or certificate, and the scopes of what it calls.

Every door asks here before a call goes to an agent. A credential that was verified is remembered by its hash for as
long as its kind allows: an API key for a second, a token for a minute or until it expires. So the usual request costs
one hash and one look into a dict; the identity that goes on to agents is signed once, with what is remembered.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from weft import rpc
from weft.gateway.guards import keys
from weft.gateway.guards.certificates import CertificateRules
from weft.gateway.guards.jwks import TokenInvalid
from weft.gateway.guards.key_check import KeyCheck
from weft.gateway.guards.tokens import TokenCheck, TokenMissing, is_like_token
from weft.rpc import scopes
from weft.rpc.call import IDENTITY_KEY
from weft.rpc.signing import Signer
from weft.v1.identity_pb2 import Identity

_CREDENTIALS = (b"x-api-key", b"authorization")
_REMEMBERED = 8192
_LONGEST = 60.0  # seconds

ANONYMOUS = "anonymous"


class CredentialMissing(rpc.Unauthenticated):
    """Give an API key or a token: `Authorization: Bearer weft_...` or `Authorization: Bearer <JWT>`."""

    reason = "CREDENTIAL_MISSING"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls, as far as a door needs to know. Do not change it: it is shared by all requests of the caller."""

    identity: Identity
    entry: tuple[str, bytes] = field(repr=False)
    """Metadata that names the caller to agents."""
    scopes: frozenset[str]
    everything: bool
    """Whether it counts as having all scopes: where nobody is asked for any."""
    until: float
    """When it must be verified again, in seconds of the monotonic clock."""

    def check(self, method: str, required: Sequence[str]) -> None:
        """Lets the caller call a method ("/package.Service/Method") with these required scopes.

        Raises:
            ScopeMissing: it lacks one.
        """
        scopes.check(method, required, self.scopes, everything=self.everything)

    def may_call(self, required: Sequence[str]) -> bool:
        """Whether it has all of these scopes, for doors that show what there is to call."""
        return self.everything or self.scopes.issuperset(required)


class Admission:
    """Finds out who calls. A credential that is given is always verified, required or not.

    Args:
        key_check: verifies API keys; None: they are not accepted.
        tokens: verifies tokens; None: they are not accepted.
        certificates: knows the bearers of client certificates; None: they are nobody.
        required: whether a caller with no credential is refused, and scopes are asked for.
        signer: signs identities for agents; None: they are not signed.
        on_refused: told of each refusal, of whom, where that is known, and of the id of the API key that was given.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        key_check: KeyCheck | None,
        *,
        required: bool,
        tokens: TokenCheck | None = None,
        certificates: CertificateRules | None = None,
        signer: Signer | None = None,
        on_refused: Callable[[rpc.Error, Identity | None, str], None] = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_refused = on_refused
        self._key_check = key_check
        self._tokens = tokens
        self._certificates = certificates
        self.required = required
        self._signer = signer
        self._clock = clock
        self._known: dict[bytes, Caller] = {}
        self._anonymous = self._caller(Identity(subject=ANONYMOUS), 0.0)

    async def admit(
        self,
        headers: Iterable[tuple[bytes, bytes]],
        method: str,
        required: Sequence[str],
        certificate: bytes | None = None,
    ) -> Caller:
        """Lets a request in, and says who calls.

        Args:
            headers: of the request, with lower-case names.
            method: what it calls, "/package.Service/Method".
            required: scopes that it needs.
            certificate: that the connection brought, verified, as DER.

        Raises:
            ScopeMissing: the caller lacks a scope.
            rpc.Unauthenticated, rpc.Unavailable: see `caller`.
        """
        caller = await self.caller(headers, certificate)
        if required:
            self.check(caller, method, required)
        return caller

    def check(self, caller: Caller, method: str, required: Sequence[str]) -> None:
        """Lets a caller call a method with these required scopes.

        Raises:
            ScopeMissing: it lacks one.
        """
        try:
            caller.check(method, required)
        except scopes.ScopeMissing as refused:
            self._on_refused(refused, caller.identity, "")
            raise

    async def caller(
        self, headers: Iterable[tuple[bytes, bytes]], certificate: bytes | None = None
    ) -> Caller:
        """The caller behind a request; "anonymous" where no credential is given and none is required.

        A key or token says more of who asks than the connection that it came by: it goes before the certificate.

        Raises:
            CredentialMissing, KeyMissing, TokenMissing: none is given.
            KeyMalformed, KeyUnknown, KeyRevoked, KeyExpired: see `keys`.
            TokenInvalid or one of its kinds: see `tokens`.
            CertificateUnfit, CertificateExpired: see `certificates`.
            rpc.Unavailable: it cannot be verified now.
        """
        given = [header for header in headers if header[0] in _CREDENTIALS]
        try:
            if certificate is not None and not given and self._certificates is not None:
                return self._bearer(certificate, self._certificates)
            return await self._found(given)
        except rpc.Unauthenticated as refused:
            self._on_refused(refused, None, keys.named_in(given))
            raise

    async def _found(self, given: list[tuple[bytes, bytes]]) -> Caller:
        now = self._clock()
        if not given:
            return self._nobody(now)
        # Credentials are remembered by their hash, so that memory holds none.
        digest = hashlib.sha256(
            b"\0".join(given[0]) if len(given) == 1 else b"\0".join(b"\0".join(h) for h in given)
        ).digest()
        caller = self._known.get(digest)
        if caller is not None and now < caller.until:
            return caller
        return await self._verified(given, digest)

    def _nobody(self, now: float) -> Caller:
        if self.required:
            if self._tokens is None:
                raise keys.KeyMissing
            raise CredentialMissing if self._key_check is not None else TokenMissing
        if now >= self._anonymous.until:
            self._anonymous = self._caller(Identity(subject=ANONYMOUS), now + _LONGEST)
        return self._anonymous

    async def _verified(self, given: list[tuple[bytes, bytes]], digest: bytes) -> Caller:
        credential = self._credential(given)
        # What is found out is good from the moment it was asked for.
        if self._tokens is not None and (self._key_check is None or is_like_token(credential)):
            identity, left = await self._tokens.verify(credential)
            until = self._clock() + min(left, _LONGEST)
        else:
            assert self._key_check is not None
            identity, until = await self._key_check.verify(keys.parse(credential))
        return self._remember(digest, self._caller(identity, until))

    def _bearer(self, certificate: bytes, rules: CertificateRules) -> Caller:
        digest = hashlib.sha256(certificate).digest()
        caller = self._known.get(digest)
        now = self._clock()
        if caller is not None and now < caller.until:
            return caller
        identity, left = rules.identity(certificate)
        if identity is None:
            return self._remember(digest, self._nobody(now))
        return self._remember(digest, self._caller(identity, now + min(left, _LONGEST)))

    def _remember(self, digest: bytes, caller: Caller) -> Caller:
        if caller.until > self._clock():
            self._known.pop(digest, None)
            if len(self._known) >= _REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[digest] = caller
        return caller

    def _credential(self, given: list[tuple[bytes, bytes]]) -> str:
        try:
            return keys.credential(given)
        except keys.KeyMalformed:
            if self._key_check is None:
                raise TokenInvalid from None
            raise

    def _caller(self, identity: Identity, until: float) -> Caller:
        told = Identity()
        told.CopyFrom(identity)
        told.all_scopes = not self.required
        if self._signer is not None:
            told = self._signer.sign(told)
        return Caller(
            identity=told,
            entry=(IDENTITY_KEY, told.SerializeToString()),
            scopes=frozenset(told.scopes),
            everything=told.all_scopes,
            until=until,
        )
