"""Callers of every kind, and work that is done for them as a server does it: in a task of its own."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from weft import rpc
from weft.rpc.call import IDENTITY_KEY, Call, Metadata, serve_as
from weft.rpc.signing import Signer, Verifier
from weft.v1.identity_pb2 import Identity

ResultT = TypeVar("ResultT")

GATEWAY = Signer(Ed25519PrivateKey.generate())
STRANGER = Signer(Ed25519PrivateKey.generate())
VERIFIER = Verifier(GATEWAY.public)


def signed(
    subject: str = "user:ann", *scopes: str, signer: Signer = GATEWAY, **further: Any
) -> Identity:
    return signer.sign(Identity(subject=subject, scopes=scopes, **further))


def expired(subject: str, *scopes: str) -> Identity:
    then = Signer(GATEWAY._sign.__wrapped__.__self__, now=lambda: time.time() - 100_000)  # type: ignore[attr-defined]
    return then.sign(Identity(subject=subject, scopes=scopes))


def changed(subject: str, *scopes: str) -> Identity:
    """Signed, and then given more."""
    identity = GATEWAY.sign(Identity(subject=subject))
    identity.scopes.extend(scopes)
    return identity


async def serving(
    identity: Identity | None,
    work: Callable[[], Awaitable[ResultT]],
    *,
    seconds: float = math.inf,
    conversation: str = "",
    metadata: Metadata = (),
) -> ResultT:
    """Does work while a call of this identity is being served."""

    async def served() -> ResultT:
        entry = None if identity is None else (IDENTITY_KEY, identity.SerializeToString())
        deadline = rpc.Deadline.after_seconds(seconds)
        call = Call.at_door("/test.v1.TestService/Test", metadata, deadline, entry)
        if conversation:
            call.conversation = conversation
        serve_as(call)
        return await work()

    return await asyncio.create_task(served())
