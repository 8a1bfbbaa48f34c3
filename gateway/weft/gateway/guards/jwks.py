"""The public keys of an identity provider (JWKS, RFC 7517): fetched when needed, kept, and never asked for twice at once.

What a caller can make this gateway do to the provider is bounded: one fetch at a time, and after each a cool-down in
which tokens with unknown key ids are refused with no further one. Keys that were read once go on working while the
provider cannot be reached, for up to a day: a provider that is down must not lock everybody out.
"""

from __future__ import annotations

import asyncio
import contextvars
import ipaddress
import logging
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from weft import rpc

log = logging.getLogger("weft.gateway")

ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA"})
# What of a JWK makes the key; the private parts of one that was published by mistake are not even read.
_FORMS: Mapping[tuple[str, str | None], tuple[str, tuple[str, ...]]] = {
    ("RSA", None): ("RS256", ("kty", "n", "e")),
    ("EC", "P-256"): ("ES256", ("kty", "crv", "x", "y")),
    ("OKP", "Ed25519"): ("EdDSA", ("kty", "crv", "x")),
}
_RSA_BITS = range(2048, 8193)  # less is weak, more takes its time
_FIRST_PAUSE = 1.0  # seconds after a fetch that failed; doubled by each further one


class TokenInvalid(rpc.Unauthenticated):
    """This is not a token that this gateway accepts."""

    reason = "TOKEN_INVALID"


class TokenKeyUnknown(TokenInvalid):
    """The token is signed with a key that its issuer does not publish."""

    reason = "TOKEN_KEY_UNKNOWN"


class KeysUnavailable(rpc.Unavailable):
    """Tokens cannot be verified at the moment; try again."""

    reason = "TOKEN_KEYS_UNAVAILABLE"


class KeySet:
    """The keys at a URL.

    Args:
        url: https, or http on the loopback interface.
        fresh: how long keys are used with no further look.
        stale: how long they are used while newer ones cannot be had. Past `fresh` a look is taken, which no caller
            waits for.
        cooldown: least time between fetches for key ids that are not known.
        patience: how long a fetch may take.
        max_keys: most keys in a set; one with more is refused.
        max_bytes: largest set.
        clock: seconds, monotonic.

    Raises:
        ValueError: the URL is neither.
    """

    def __init__(
        self,
        url: str,
        *,
        fresh: timedelta = timedelta(minutes=5),
        stale: timedelta = timedelta(hours=24),
        cooldown: timedelta = timedelta(seconds=30),
        patience: timedelta = timedelta(seconds=5),
        max_keys: int = 100,
        max_bytes: int = 512 * 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._local = _checked(url)
        self._url = url
        self._fresh = fresh.total_seconds()
        self._stale = stale.total_seconds()
        self._cooldown = cooldown.total_seconds()
        self._patience = patience.total_seconds()
        self._max_keys = max_keys
        self._max_bytes = max_bytes
        self._clock = clock
        self._keys: Mapping[tuple[str, str], Any] = {}
        self._read_at = float("-inf")
        self._not_before = float("-inf")
        self._failures = 0
        self._fetching: asyncio.Task[None] | None = None
        self._client: httpx.AsyncClient | None = None

    async def find(self, key_id: str | None, algorithm: str) -> Any:
        """The key of this id; without one, the only key of the algorithm.

        Raises:
            TokenKeyUnknown: there is none.
            TokenInvalid: there is one, for another algorithm.
            KeysUnavailable: the keys cannot be read now.
        """
        age = self._clock() - self._read_at
        if age >= self._stale:
            await self._refresh()
        elif age >= self._fresh:
            self._begin()
        found = self._pick(key_id, algorithm)
        if found is None:
            await self._refresh()
            found = self._pick(key_id, algorithm)
        if found is None:
            if self._failures:  # the provider may have published it meanwhile
                raise self._unavailable()
            raise TokenKeyUnknown
        return found

    async def close(self) -> None:
        """Ends what is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)
            self._fetching = None
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _pick(self, key_id: str | None, algorithm: str) -> Any:
        if key_id is None:
            fit = [key for (_, made_for), key in self._keys.items() if made_for == algorithm]
            return fit[0] if len(fit) == 1 else None
        found = self._keys.get((key_id, algorithm))
        if found is None and any(key_id == known for known, _ in self._keys):
            raise TokenInvalid("The token names another algorithm than its key is for.")
        return found

    async def _refresh(self) -> None:
        """Waits for a fetch, where one is due or under way."""
        fetching = self._begin()
        if fetching is not None:
            await asyncio.shield(fetching)  # others wait for it too
        if self._clock() - self._read_at >= self._stale:
            raise self._unavailable()

    def _begin(self) -> asyncio.Task[None] | None:
        """The fetch under way; begins one unless the last was too recent."""
        if self._fetching is None and self._clock() >= self._not_before:
            # It serves many callers: the deadline and trace of whoever began it must not follow it about.
            self._fetching = asyncio.get_running_loop().create_task(
                self._fetch(), name="JWKS", context=contextvars.Context()
            )
        return self._fetching

    async def _fetch(self) -> None:
        try:
            if self._client is None:  # before the time runs: it loads certificates
                # A proxy of the environment is for the outside; redirects could lead to the inside.
                self._client = httpx.AsyncClient(trust_env=not self._local, follow_redirects=False)
            async with asyncio.timeout(self._patience):
                self._keys = _parsed(await self._read(self._client), self._max_keys)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError) as failed:
            pause = min(self._cooldown, _FIRST_PAUSE * 2**self._failures)
            self._failures = min(self._failures + 1, 16)
            log.warning("JWKS cannot be read", extra={"url": self._url, "cause": repr(failed)})
        else:
            pause = self._cooldown
            self._failures = 0
            self._read_at = self._clock()
        finally:
            self._fetching = None
        self._not_before = self._clock() + pause

    async def _read(self, client: httpx.AsyncClient) -> bytes:
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        async with client.stream("GET", self._url, headers=headers) as answer:
            if answer.status_code != httpx.codes.OK:
                raise ValueError(f"HTTP status {answer.status_code}")
            body = bytearray()
            async for part in answer.aiter_raw():  # as it came: nothing is unpacked
                body += part
                if len(body) > self._max_bytes:
                    raise ValueError(f"more than {self._max_bytes} bytes")
        return bytes(body)

    def _unavailable(self) -> KeysUnavailable:
        wait = max(1.0, self._not_before - self._clock())
        return KeysUnavailable(retry_after=timedelta(seconds=wait))


def _checked(url: str) -> bool:
    """Whether the URL is on this machine; raises ValueError where it may not be used."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not host or parts.scheme not in {"https", "http"} or (parts.scheme == "http" and not local):
        raise ValueError(f"{url!r}: keys are read by https, or by http from this machine only")
    return local


def _parsed(body: bytes, most: int) -> Mapping[tuple[str, str], Any]:
    """Keys by id and algorithm; those of no use here are left out."""
    document = orjson.loads(body)
    given = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(given, list):
        raise ValueError("not a JWK set")  # noqa: TRY004 what came is wrong, not its caller
    if len(given) > most:
        raise ValueError(f"more than {most} keys")
    found: dict[tuple[str, str], Any] = {}
    for jwk in given:
        made = _key(jwk) if isinstance(jwk, dict) else None
        if made is not None:
            key_id, algorithm, key = made
            found.setdefault((key_id, algorithm), key)
    return found


def _key(jwk: Mapping[str, Any]) -> tuple[str, str, Any] | None:
    kind, curve, key_id = jwk.get("kty"), jwk.get("crv"), jwk.get("kid", "")
    if not isinstance(kind, str) or not isinstance(key_id, str):
        return None
    form = _FORMS.get((kind, curve if isinstance(curve, str) else None))
    if form is None or not _is_for_signatures(jwk):
        return None
    algorithm, members = form
    # RFC 9864 writes EdDSA over this curve as "Ed25519".
    if jwk.get("alg", algorithm) not in (algorithm, curve):
        return None
    try:
        key = jwt.PyJWK({name: jwk[name] for name in members}, algorithm).key
    except (jwt.PyJWTError, KeyError, TypeError, ValueError):
        return None
    if isinstance(key, RSAPublicKey) and key.key_size not in _RSA_BITS:
        return None
    return key_id, algorithm, key


def _is_for_signatures(jwk: Mapping[str, Any]) -> bool:
    operations = jwk.get("key_ops", ["verify"])
    return (
        jwk.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations
    )
