"""A mesh with the agent vault, whose skills need scopes, and a gateway that asks for them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from types import ModuleType
from typing import Any

import grpc
import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from weft import rpc
from weft.agents import Host
from weft.broker import Broker
from weft.gateway import Gateway
from weft.gateway.guards.key_store import KeyStore
from weft.postgres import Database
from weft.registry import Registry
from weft.rpc.signing import Signer
from weft.rpc.testing import wait_until
from weft.v1.identity_pb2 import Identity

SERVICE = "test.vault.v1.VaultService"
NEEDS = {
    "Look": set(),
    "Read": {"vault.read"},
    "Write": {"vault.read", "vault.write"},
    "Watch": {"vault.watch"},
    "Pour": {"vault.write"},
    "Talk": {"vault.watch"},
}
SCOPES = ("vault.read", "vault.write", "vault.watch")
STREAMS = {"Watch": (False, True), "Pour": (True, False), "Talk": (True, True)}


def vault_agent(vault, calls: Counter[str]) -> Any:
    messages, services = vault

    class Vault(services.VaultServiceServicer):
        """Counts what reaches it."""

        def _said(self, method):
            calls[method] += 1
            identity = rpc.current_call().identity or Identity(subject="nobody")
            return messages.LookResponse(caller=identity.subject, tenant=identity.tenant)

        async def Look(self, request, context):
            return self._said("Look")

        async def Read(self, request, context):
            return self._said("Read")

        async def Write(self, request, context):
            return self._said("Write")

        async def Watch(self, request, context):
            yield self._said("Watch")

        async def Pour(self, request_iterator, context):
            return self._said("Pour")

        async def Talk(self, request_iterator, context):
            yield self._said("Talk")

    return Vault()


@dataclass(kw_only=True)
class House:
    gateway: Gateway
    host: Host
    http: httpx.AsyncClient
    grpc: grpc.aio.Channel
    store: KeyStore
    messages: ModuleType
    broker: str
    trusted: Signer
    calls: Counter[str] = field(default_factory=Counter)


@contextlib.asynccontextmanager
async def house(database_url, redis_url, vault, issuer, **further: Any) -> AsyncIterator[House]:
    signer = Signer(Ed25519PrivateKey.generate())
    calls: Counter[str] = Counter()
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        broker = await enter(
            Broker(redis_url=redis_url, address="127.0.0.1:0", beat=timedelta(milliseconds=50))
        )
        registry = await enter(
            Registry(database_url=database_url, address="127.0.0.1:0", cold_start=timedelta(0))
        )
        host = await enter(
            Host(
                registry=registry.address,
                brokers=broker.address,
                identity_trust=signer.public if further.pop("agents_check", True) else "",
            )
        )
        host.add(vault_agent(vault, calls))
        if events := further.pop("events", None):
            host.on("vault.>", events)
        await host.start()
        given = {"auth": "on", "tokens": issuer.rules(), "signer": signer, **further}
        gateway = await enter(
            Gateway(
                registry=registry.address, database_url=database_url, listen="127.0.0.1:0",
                grpc_listen="127.0.0.1:0", **given,
            )
        )  # fmt: skip
        http = await enter(httpx.AsyncClient(base_url=gateway.url, timeout=20))
        channel = await enter(grpc.aio.insecure_channel(gateway.grpc_address))
        database = await enter(await Database.connect(database_url, schema="gateway"))
        database.load("weft.gateway.sql")
        made = House(
            gateway=gateway, host=host, http=http, grpc=channel, store=KeyStore(database),
            messages=vault[0], broker=broker.address, trusted=signer, calls=calls,
        )  # fmt: skip
        good = {"authorization": f"Bearer {issuer.token()}"}

        async def served() -> bool:
            return (await http.post("/v1/vault:look", json={}, headers=good)).status_code in {
                200,
                500,
            }

        await wait_until(served)
        calls.clear()
        yield made
