"""Tokens of an identity provider (JWT, RFC 7519, in the way of RFC 8725): RS256, ES256 and EdDSA, nothing else.

The key decides which algorithm is right, never the token; `none` and HMAC are not known here at all. What is wrong
with a token's claims is told only where its signature is right.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import jwt

from weft import rpc
from weft.gateway.guards.claims import ClaimMissing, ClaimRules
from weft.gateway.guards.jwks import ALGORITHMS, KeySet, TokenInvalid
from weft.v1.identity_pb2 import Identity

MOST_BYTES = 8 * 1024
_KEY_ID = 256  # characters
_NOW = time.time
_END_OF_TIME = 1 << 53  # an integer of JSON may be larger than any float


class TokenMissing(rpc.Unauthenticated):
    """Give a token: `Authorization: Bearer <JWT>`."""

    reason = "TOKEN_MISSING"


class TokenExpired(TokenInvalid):
    """The token has expired; ask its issuer for another."""

    reason = "TOKEN_EXPIRED"


class TokenNotYetValid(TokenInvalid):
    """The token is not valid yet."""

    reason = "TOKEN_NOT_YET_VALID"


class WrongIssuer(TokenInvalid):
    """The token is of another issuer than this gateway trusts."""

    reason = "TOKEN_ISSUER_WRONG"


class WrongAudience(TokenInvalid):
    """The token was made for somebody else than this gateway."""

    reason = "TOKEN_AUDIENCE_WRONG"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSettings:
    """Which tokens are accepted.

    Raises:
        ValueError: a value is missing.
    """

    issuer: str
    """`iss`, exactly."""
    audience: tuple[str, ...]
    """`aud`: one of these."""
    keys_url: str
    """Where the issuer publishes its keys; see `KeySet`."""
    leeway: timedelta = timedelta(seconds=30)
    """By how much clocks may differ."""
    required: tuple[str, ...] = ()
    """Claims a token must have beside iss, aud and exp, and those that make its identity."""
    claims: ClaimRules = field(default_factory=ClaimRules)
    """How claims become an identity."""

    def __post_init__(self) -> None:
        if not self.issuer or not self.audience or not self.keys_url:
            raise ValueError("tokens need an issuer, an audience and the URL of the issuer's keys")


class TokenCheck:
    """Turns tokens into identities. Remembers nothing: `Admission` does.

    Args:
        settings: which are accepted.
        keys: of their issuer.
        now: seconds since 1970, by which the time left is told.
    """

    def __init__(
        self, settings: TokenSettings, keys: KeySet, *, now: Callable[[], float] = _NOW
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._now = now
        self._require = ["exp", "iss", "aud", *settings.required]

    async def verify(self, token: str) -> tuple[Identity, float]:
        """The bearer of a token, and seconds until it expires.

        Raises:
            TokenInvalid, TokenExpired, TokenNotYetValid, WrongIssuer, WrongAudience, ClaimMissing: it is refused.
            KeysUnavailable: it cannot be verified now.
        """
        key_id, algorithm = _head(token)
        key = await self._keys.find(key_id, algorithm)
        claims = self._decoded(token, key, algorithm)
        expires = claims["exp"]
        if not isinstance(expires, int | float):  # "1795252569" passes PyJWT, and is no NumericDate
            raise TokenInvalid
        return self._settings.claims.identity(claims), min(expires, _END_OF_TIME) - self._now()

    def _decoded(self, token: str, key: Any, algorithm: str) -> dict[str, Any]:
        settings = self._settings
        try:
            return jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=settings.audience,
                issuer=settings.issuer,
                leeway=settings.leeway,
                options={"require": self._require},
            )
        except jwt.ExpiredSignatureError:
            raise TokenExpired from None
        except jwt.ImmatureSignatureError:
            raise TokenNotYetValid from None
        except jwt.InvalidIssuerError:
            raise WrongIssuer from None
        except jwt.InvalidAudienceError:
            raise WrongAudience from None
        except jwt.MissingRequiredClaimError as failed:
            raise ClaimMissing(
                f"The token has no claim {failed.claim}.", metadata={"claim": failed.claim}
            ) from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError):
            raise TokenInvalid from None


def is_like_token(text: str) -> bool:
    """Whether a credential has the form of a JWT: three parts, the first of them JSON in base64."""
    return text.startswith("ey") and text.count(".") == 2  # noqa: PLR2004 header, claims, signature


def _head(token: str) -> tuple[str | None, str]:
    """Key id and algorithm that a token names."""
    if len(token) > MOST_BYTES:
        raise TokenInvalid(f"The token has more than {MOST_BYTES} bytes.")
    try:
        head = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError):
        raise TokenInvalid from None
    algorithm, key_id = head.get("alg"), head.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise TokenInvalid(f"Tokens are signed with {', '.join(sorted(ALGORITHMS))}.")
    if key_id is not None and (not isinstance(key_id, str) or len(key_id) > _KEY_ID):
        raise TokenInvalid
    return key_id, algorithm
