-- name: tell_operator_acts
-- What no gateway has told of yet; told by whoever asks.
WITH untold AS (
    SELECT id FROM operator_acts WHERE NOT told ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED
)
UPDATE operator_acts
SET told = true
FROM untold
WHERE operator_acts.id = untold.id
RETURNING at, actor, act, object, details::text AS details;
