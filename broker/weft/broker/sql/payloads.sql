-- name: put_payload
-- Keeps a message.
INSERT INTO payloads (payload_id, message, create_time) VALUES ($1, $2, $3);

-- name: get_payload
-- A message.
SELECT message FROM payloads WHERE payload_id = $1;

-- name: drop_payloads
-- Forgets messages.
DELETE FROM payloads WHERE payload_id = ANY($1::uuid[]);

-- name: drop_old_payloads
-- Forgets messages that were kept before a time.
DELETE FROM payloads WHERE create_time < $1;
