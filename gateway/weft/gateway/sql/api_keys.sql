-- name: create_api_key
-- Stores a new key.
INSERT INTO api_keys (id, name, secret_hash, scopes, expires_at, tenant)
VALUES ($1, $2, $3, $4, $5, $6)
RETURNING id, name, scopes, created_at, expires_at, revoked_at, tenant;

-- name: list_api_keys
-- Every key without its hash, the newest first.
SELECT id, name, scopes, created_at, expires_at, revoked_at, tenant
FROM api_keys
ORDER BY created_at DESC, id;

-- name: revoke_api_key
-- Revokes a key; one that is revoked already keeps its date. No row: there is no such key.
UPDATE api_keys
SET revoked_at = coalesce(revoked_at, now())
WHERE id = $1
RETURNING id, name, scopes, created_at, expires_at, revoked_at, tenant;

-- name: find_api_key
-- One key with its hash, to verify what a caller presented.
SELECT id, name, scopes, created_at, expires_at, revoked_at, tenant, secret_hash
FROM api_keys
WHERE id = $1;
