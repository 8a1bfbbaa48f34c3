"""Who may come in: the identity behind a request, by its API key."""

from __future__ import annotations

from collections.abc import Iterable

from weft.gateway.guards.key_check import KeyCheck
from weft.gateway.guards.keys import KeyMissing
from weft.rpc.call import IDENTITY_KEY
from weft.v1.identity_pb2 import Identity

_CREDENTIALS = (b"x-api-key", b"authorization")

ANONYMOUS = Identity(subject="anonymous")
_ANONYMOUS = (IDENTITY_KEY, ANONYMOUS.SerializeToString())


class Admission:
    """Finds out who calls. A key that is given is always verified, required or not.

    Args:
        check: verifies keys.
        required: whether a caller with no key is refused.
    """

    def __init__(self, check: KeyCheck, *, required: bool) -> None:
        self._check = check
        self.required = required

    async def admit(self, headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, bytes]:
        """The metadata entry that names a caller; ANONYMOUS where no key is given and none is required.

        Raises:
            KeyMissing, KeyMalformed, KeyUnknown, KeyRevoked, KeyExpired: see `keys`.
            rpc.Unavailable: keys cannot be verified now.
        """
        given = [header for header in headers if header[0] in _CREDENTIALS]
        if given:
            identity = await self._check.identify(given)
            return IDENTITY_KEY, identity.SerializeToString()
        if self.required:
            raise KeyMissing
        return _ANONYMOUS
