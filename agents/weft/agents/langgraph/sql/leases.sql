-- name: take_lease
-- Leases thread $1 for $2; nothing comes back while somebody else has it.
INSERT INTO leases (thread, fence, until) VALUES ($1, nextval('fences'), clock_timestamp() + $2)
ON CONFLICT (thread) DO UPDATE SET fence = excluded.fence, until = excluded.until
WHERE leases.until < clock_timestamp()
RETURNING fence;

-- name: renew_lease
-- Renews the lease of thread $1 with fence $2 for $3, even after its time, if nobody took it.
UPDATE leases SET until = clock_timestamp() + $3 WHERE thread = $1 AND fence = $2;

-- name: end_lease
-- Gives thread $1 back.
DELETE FROM leases WHERE thread = $1 AND fence = $2;
