"""What it costs to know who calls: microseconds of CPU a request at the gateway, and a call at an agent.

python benchmarks/admission.py [--json] [--rounds 15]
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import jwt
import measure
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from weft.gateway.guards import keys
from weft.gateway.guards.admission import Admission
from weft.gateway.guards.jwks import KeySet
from weft.gateway.guards.key_check import KeyCheck
from weft.gateway.guards.key_store import StoredKey
from weft.gateway.guards.tokens import TokenCheck, TokenSettings
from weft.rpc.call import Call
from weft.rpc.deadline import Deadline
from weft.rpc.signing import Signer, Verifier
from weft.v1.identity_pb2 import Identity

_ID, _KEY = keys.generate()
_SCOPES = ("a.read", "b.write")
_BESIDE = [
    *((b"host", b"x"), (b"user-agent", b"curl"), (b"accept", b"*/*")),
    (b"content-type", b"application/json"),
]
_KNOWN, _FIRST = 3_000, 100  # times a round


class _Store:
    async def find(self, key_id: str) -> StoredKey | None:
        """The one key there is."""
        key = keys.ApiKey(
            id=key_id, name="x", scopes=_SCOPES, created_at=datetime.now(UTC), expires_at=None,
            revoked_at=None,
        )  # fmt: skip
        return StoredKey(key=key, secret_hash=keys.parse(_KEY).secret_hash)


class _OneKey(KeySet):
    def __init__(self, key: Any) -> None:
        super().__init__("https://idp.example/keys")
        self._only = key

    async def find(self, key_id: str | None, algorithm: str) -> Any:
        """The one key there is."""
        del key_id, algorithm
        return self._only


async def least(work: Callable[[], Awaitable[object]], times: int, rounds: int) -> float:
    """Microseconds of the fastest round."""
    best = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(times):
            await work()
        best = min(best, (time.process_time() - began) / times)
    return round(best * 1e6, 2)


def token(key: Any, algorithm: str) -> str:
    """A token of a usual size."""
    claims = {
        "iss": "https://idp.example",
        "aud": "weft",
        "sub": "ann",
        "scope": " ".join(_SCOPES),
        "iat": int(time.time()),
        "exp": int(time.time()) + 3600,
        "email": "ann@example.com",
    }
    return jwt.encode(claims, key, algorithm, headers={"kid": "k"})


async def run(rounds: int) -> dict[str, float]:
    """All figures."""
    signer = Signer(ed25519.Ed25519PrivateKey.generate())
    headers = [*_BESIDE, (b"authorization", f"Bearer {_KEY}".encode())]
    admission = Admission(KeyCheck(_Store()), required=True, signer=signer)
    found = {
        "key_known": await least(lambda: admission.admit(headers, "/x/y", ()), _KNOWN, rounds),
        "key_known_with_scope": await least(
            lambda: admission.admit(headers, "/x/y", _SCOPES), _KNOWN, rounds
        ),
    }
    everybody = Admission(KeyCheck(_Store()), required=False, signer=signer)
    found["anonymous"] = await least(lambda: everybody.admit(_BESIDE, "/x/y", ()), _KNOWN, rounds)
    private: dict[str, Any] = {
        "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }
    rules = TokenSettings(issuer="https://idp.example", audience=("weft",), keys_url="u")
    for algorithm, key in private.items():
        check = TokenCheck(rules, _OneKey(key.public_key()))
        text = token(key, algorithm)
        by_token = Admission(None, tokens=check, required=True, signer=signer)
        sent = [*_BESIDE, (b"authorization", f"Bearer {text}".encode())]
        # Run at once: loops must not share what changes.
        known = await least(lambda a=by_token, h=sent: a.admit(h, "/x/y", ()), _KNOWN, rounds)  # type: ignore[misc]
        first = await least(lambda c=check, t=text: c.verify(t), _FIRST, rounds)  # type: ignore[misc]
        found |= {f"token_{algorithm}_known": known, f"token_{algorithm}_first": first}
    caller = await admission.caller(headers)
    verifier = Verifier(signer.public)

    async def agent(verified_by: Verifier) -> None:
        call = Call.at_door("/x/y", (), Deadline.after_seconds(1), caller.entry)
        verified_by.admit(call)

    async def bare() -> None:
        Call.at_door("/x/y", (), Deadline.after_seconds(1), caller.entry)

    with_call = await least(lambda: agent(verifier), _KNOWN, rounds)
    found["agent_known"] = round(with_call - await least(bare, _KNOWN, rounds), 2)
    found["agent_first"] = await least(lambda: agent(Verifier(signer.public)), _FIRST, rounds)

    numbers = itertools.count()

    async def signs() -> None:
        signer.sign(Identity(subject=f"user:{next(numbers)}", scopes=_SCOPES))

    found["sign"] = await least(signs, _FIRST, rounds)
    return found


def main() -> None:
    """The command."""
    options = measure.arguments(__doc__, rounds=15).parse_args()
    found = asyncio.run(run(options.rounds))
    figures = {f"{name}_us": round(each, 2) for name, each in found.items()}
    measure.report({}, figures, as_json=options.json)


if __name__ == "__main__":
    main()
