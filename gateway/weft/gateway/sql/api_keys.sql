-- name: create_api_key
-- Stores a new key, made by $7.
WITH made AS (
    INSERT INTO api_keys (id, name, secret_hash, scopes, expires_at, tenant)
    VALUES ($1, $2, $3, $4, $5, $6)
    RETURNING id, name, scopes, created_at, expires_at, revoked_at, tenant
), noted AS (
    INSERT INTO operator_acts (actor, act, object, details)
    SELECT $7, 'key created', id,
        jsonb_build_object('name', name, 'scopes', scopes, 'tenant', tenant, 'expires_at', expires_at)
    FROM made
)
SELECT id, name, scopes, created_at, expires_at, revoked_at, tenant FROM made;

-- name: list_api_keys
-- Every key without its hash, the newest first.
SELECT id, name, scopes, created_at, expires_at, revoked_at, tenant
FROM api_keys
ORDER BY created_at DESC, id;

-- name: revoke_api_key
-- Revokes a key in the name of $2; one that is revoked already keeps its date. No row: there is no such key.
WITH before AS (
    SELECT id, name, tenant, revoked_at FROM api_keys WHERE id = $1 FOR UPDATE
), noted AS (
    INSERT INTO operator_acts (actor, act, object, details)
    SELECT $2, 'key revoked', id, jsonb_build_object('name', name, 'tenant', tenant)
    FROM before
    WHERE revoked_at IS NULL
)
UPDATE api_keys
SET revoked_at = coalesce(api_keys.revoked_at, now())
FROM before
WHERE api_keys.id = before.id
RETURNING api_keys.id, api_keys.name, scopes, created_at, expires_at, api_keys.revoked_at, api_keys.tenant;

-- name: find_api_key
-- One key with its hash, to verify what a caller presented.
SELECT id, name, scopes, created_at, expires_at, revoked_at, tenant, secret_hash
FROM api_keys
WHERE id = $1;
