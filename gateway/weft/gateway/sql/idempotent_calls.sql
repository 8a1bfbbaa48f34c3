-- name: begin_idempotent_call
-- Takes a key ($2) of a caller ($1) for a call of a digest ($3): for $4 it is being made, for $5 it is remembered. No row:
-- the key is taken.
INSERT INTO idempotent_calls (caller, key, digest, lock_until, expire_time)
VALUES ($1, $2, $3, now() + $4::interval, now() + $5::interval)
ON CONFLICT (caller, key) DO UPDATE
SET digest = excluded.digest, lock_until = excluded.lock_until, expire_time = excluded.expire_time,
    response = NULL, status = NULL
WHERE idempotent_calls.expire_time < now()
RETURNING key;

-- name: find_idempotent_call
-- What is known of a call; over: whoever made it did not come to its end.
SELECT digest, response, status, lock_until < now() AS over
FROM idempotent_calls
WHERE caller = $1 AND key = $2;

-- name: end_idempotent_call
-- Keeps how a call ended, unless that is known.
UPDATE idempotent_calls
SET response = $3, status = $4
WHERE caller = $1 AND key = $2 AND response IS NULL AND status IS NULL;

-- name: release_idempotent_call
-- Gives a key back whose call was never made.
DELETE FROM idempotent_calls
WHERE caller = $1 AND key = $2 AND response IS NULL AND status IS NULL;

-- name: forget_idempotent_calls
-- Forgets up to $1 calls whose time is over.
DELETE FROM idempotent_calls
WHERE ctid = ANY(ARRAY(SELECT ctid FROM idempotent_calls WHERE expire_time < now() LIMIT $1));
