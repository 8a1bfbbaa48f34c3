-- name: put_payload
-- Stores a message.
INSERT INTO payloads (payload_id, identity, message, kept, create_time) VALUES ($1, $2, $3, $4, $5);

-- name: keep_payloads
-- Marks a message as acknowledged, under whichever of its publishes it is in its queue.
UPDATE payloads SET kept = true WHERE identity = $1 AND NOT kept;

-- name: get_payload
-- A message.
SELECT message FROM payloads WHERE payload_id = $1;

-- name: drop_payloads
-- Forgets messages.
DELETE FROM payloads WHERE payload_id = ANY($1::uuid[]);

-- name: drop_abandoned
-- Forgets messages that were never acknowledged and are older than a time.
DELETE FROM payloads WHERE NOT kept AND create_time < $1;
