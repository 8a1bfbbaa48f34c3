"""API keys in PostgreSQL: the one place that reads and writes the table `api_keys`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import asyncpg

from weft import rpc
from weft.gateway.guards import keys
from weft.gateway.guards.keys import ApiKey, NewKey
from weft.postgres import Database

_NAME_LENGTH = 200
_SCOPE = re.compile(r"[a-z0-9][a-z0-9._:-]{0,99}")


class NoSuchKey(rpc.NotFound):
    """There is no API key of this id."""

    reason = "KEY_NOT_FOUND"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """A key with the hash of its secret."""

    key: ApiKey
    secret_hash: bytes = field(repr=False)


class KeyStore:
    """Creates, lists and revokes keys in the schema that `database` is connected to."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        name: str,
        *,
        scopes: Sequence[str] = (),
        expires_at: datetime | None = None,
        tenant: str = "",
        by: str = "",
    ) -> NewKey:
        """Makes a key; its text is in the answer and nowhere else.

        Args:
            name: for people, 1 to 200 characters; need not be unique.
            scopes: what the key may do, such as "support.write".
            expires_at: with a time zone; None: never.
            tenant: organisation it belongs to, at most 200 characters; empty: none.
            by: who makes it, for the audit log.

        Raises:
            rpc.InvalidArgument: a value is out of its range.
        """
        violations = [*_check(name, scopes, expires_at, tenant)]
        if violations:
            raise rpc.InvalidArgument(violations=violations)
        key_id, text = keys.generate()
        row = await self._database.fetchrow(
            "create_api_key",
            key_id,
            name.strip(),
            keys.parse(text).secret_hash,
            sorted(set(scopes)),
            expires_at,
            tenant,
            by,
        )
        assert row is not None
        return NewKey(key=_key(row), text=text)

    async def list_keys(self) -> list[ApiKey]:
        """Every key, revoked and expired ones too, the newest first."""
        return [_key(row) for row in await self._database.fetch("list_api_keys")]

    async def revoke(self, key_id: str, *, by: str = "") -> ApiKey:
        """Revokes a key for good; every gateway refuses it within a second. Again is no error.

        Args:
            key_id: of the key.
            by: who revokes it, for the audit log.

        Raises:
            NoSuchKey: there is none of this id.
        """
        row = await self._database.fetchrow("revoke_api_key", key_id, by)
        if row is None:
            raise NoSuchKey
        return _key(row)

    async def find(self, key_id: str) -> StoredKey | None:
        """The key of this id with its hash; None: there is none."""
        row = await self._database.fetchrow("find_api_key", key_id)
        return None if row is None else StoredKey(key=_key(row), secret_hash=row["secret_hash"])


def _key(row: asyncpg.Record) -> ApiKey:
    return ApiKey(
        id=row["id"],
        name=row["name"],
        scopes=tuple(row["scopes"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        tenant=row["tenant"],
    )


def _check(
    name: str, scopes: Sequence[str], expires_at: datetime | None, tenant: str
) -> list[tuple[str, str]]:
    wrong = []
    if not 0 < len(name.strip()) <= _NAME_LENGTH or not name.isprintable():
        wrong.append(("name", f"must have 1 to {_NAME_LENGTH} printable characters"))
    if len(tenant) > _NAME_LENGTH or not tenant.isprintable() or tenant != tenant.strip():
        wrong.append(("tenant", f"must have at most {_NAME_LENGTH} printable characters"))
    for index, scope in enumerate(scopes):
        if _SCOPE.fullmatch(scope) is None:
            wrong.append((f"scopes[{index}]", "must be like support.write, at most 100 characters"))
    if expires_at is not None:
        if expires_at.tzinfo is None:
            wrong.append(("expires_at", "needs a time zone"))
        elif expires_at <= datetime.now(UTC):
            wrong.append(("expires_at", "must be in the future"))
    return wrong
