-- name: begin_handling
-- Takes a message for this transaction; nothing comes back when it was handled before. Waits for another one that handles it.
INSERT INTO handled_messages (identity, result, handle_time) VALUES ($1, '', now())
ON CONFLICT DO NOTHING RETURNING identity;

-- name: end_handling
-- Keeps what was answered.
UPDATE handled_messages SET result = $2 WHERE identity = $1;

-- name: handled_result
-- What was answered.
SELECT result FROM handled_messages WHERE identity = $1;

-- name: forget_handled
-- Forgets messages that were handled before a time.
DELETE FROM handled_messages WHERE handle_time < $1;
