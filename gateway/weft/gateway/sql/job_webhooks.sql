-- name: claim_webhooks
-- Takes up to $1 deliveries that are due; whoever takes one has $2 for its attempt.
UPDATE job_webhooks
SET attempts = attempts + 1, due = now() + $2::interval
WHERE id IN (
    SELECT id FROM job_webhooks WHERE state = 'PENDING' AND due <= now() ORDER BY due LIMIT $1 FOR UPDATE SKIP LOCKED
)
RETURNING *;

-- name: end_webhook
-- Keeps what came of the attempt number $2: the new state, in how long it is due again, and what was wrong.
UPDATE job_webhooks
SET state = $3, due = now() + $4::interval, problem = $5, update_time = now()
WHERE id = $1 AND attempts = $2 AND state = 'PENDING';

-- name: next_webhook_due
-- In how many seconds a delivery is due. NULL: none is.
SELECT extract(epoch FROM min(due) - now())::float8 FROM job_webhooks WHERE state = 'PENDING';

-- name: list_webhooks
-- Up to $5 deliveries of a caller ($1, $2), the newest first: in a state ($3, empty: any), older than the number $4.
SELECT * FROM job_webhooks
WHERE tenant = $1 AND subject = $2 AND ($3 = '' OR state = $3) AND number < $4
ORDER BY number DESC
LIMIT $5;

-- name: retry_webhook
-- Makes a delivery ($3) that was given up due again, as a first attempt.
UPDATE job_webhooks
SET state = 'PENDING', attempts = 0, due = now(), update_time = now()
WHERE tenant = $1 AND subject = $2 AND id = $3 AND state = 'DEAD'
RETURNING *;

-- name: forget_webhooks
-- Forgets up to $1 deliveries that ended more than $2 ago.
DELETE FROM job_webhooks WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM job_webhooks WHERE state <> 'PENDING' AND update_time < now() - $2::interval LIMIT $1
));
