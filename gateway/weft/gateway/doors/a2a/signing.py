"""Signed cards (specification, 8.4): a JWS over the canonical JSON of a card, with the key that signs identities."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import orjson

from weft.gateway.doors.a2a.jcs import canonical
from weft.gateway.doors.a2a.protocol import Json
from weft.rpc.signing import Signer


class CardSigner:
    """Signs cards by EdDSA (RFC 8037).

    Args:
        signer: has the key.
    """

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        public = _base64(base64.b64decode(signer.public))
        key = {"crv": "Ed25519", "kty": "OKP", "x": public}
        # RFC 7638: the thumbprint of a key is its name.
        self.kid = _base64(hashlib.sha256(canonical(key).encode()).digest())
        self.keys = orjson.dumps({"keys": [{**key, "kid": self.kid, "alg": "EdDSA", "use": "sig"}]})
        """The public key as a JSON Web Key Set."""

    def sign(self, card: Json, keys_url: str) -> Json:
        """A card with its signatures, made anew.

        There are two where the card has empty members: verifiers differ on whether those are part of what was signed.
        """
        named = {"alg": "EdDSA", "typ": "JOSE", "kid": self.kid, "jku": keys_url}
        protected = _base64(orjson.dumps(named))
        forms = dict.fromkeys((canonical(card), canonical(_without_empty(card))))
        signatures = []
        for form in forms:
            signed = f"{protected}.{_base64(form.encode())}".encode()
            signature = _base64(self._signer.sign_statement(signed))
            signatures.append({"protected": protected, "signature": signature})
        return {**card, "signatures": signatures}


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        members = ((name, _without_empty(each)) for name, each in value.items())
        return {name: each for name, each in members if each not in ("", [], {}, None)}
    if isinstance(value, list):
        members_of = (_without_empty(each) for each in value)
        return [each for each in members_of if each not in ("", [], {}, None)]
    return value


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
