-- name: begin_run
-- Stores a run with its first event ($15), where its caller has fewer than $20 that have not ended: leased for $21 to
-- whoever stores it, or for others to take (NULL). No row: there are as many, or its id is taken.
WITH open AS (
    SELECT 1 FROM runs WHERE tenant = $1 AND subject = $6 AND end_time IS NULL LIMIT $20
), made AS (
    INSERT INTO runs (tenant, id, workflow, name, version, subject, identity, traceparent, parent, parent_id, parent_step,
                      retry_of, asked, input, deadline, origin, budget, payer, state, fence, due)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $16, $17, $18, $19,
           CASE WHEN $21::interval IS NULL THEN 'QUEUED' ELSE 'RUNNING' END,
           CASE WHEN $21::interval IS NULL THEN 0 ELSE 1 END,
           now() + coalesce($21::interval, '0')
    WHERE (SELECT count(*) FROM open) < $20
    ON CONFLICT DO NOTHING
    RETURNING *
), told AS (
    INSERT INTO run_events (run, number, event) SELECT number, 1, $15 FROM made
)
SELECT *, 1::bigint AS events FROM made;

-- name: begin_retry
-- The same with events ($20, as numbers $21) that it takes over.
WITH made AS (
    INSERT INTO runs (tenant, id, workflow, name, version, subject, identity, traceparent, parent, parent_id, parent_step,
                      retry_of, asked, input, deadline, origin, budget, payer)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $16, $17, $18, $19)
    ON CONFLICT DO NOTHING
    RETURNING *
), told AS (
    INSERT INTO run_events (run, number, event) SELECT number, 1, $15 FROM made
), taken AS (
    INSERT INTO run_events (run, number, event)
    SELECT made.number, one.number, one.event
    FROM made, unnest($20::bytea[], $21::bigint[]) AS one (event, number)
)
SELECT *, 1::bigint AS events FROM made;

-- name: begin_child
-- Stores a run that is a step ($11) of another ($9), which is held by a fence ($20). No row: it is there, or the fence is lost.
WITH held AS (
    SELECT number FROM runs WHERE number = $9 AND fence = $20 AND state = 'RUNNING' FOR SHARE
), made AS (
    INSERT INTO runs (tenant, id, workflow, name, version, subject, identity, traceparent, parent, parent_id, parent_step,
                      retry_of, asked, input, deadline, origin, budget, payer)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, held.number, $10, $11, $12, $13, $14, $16, $17, $18, $19 FROM held
    ON CONFLICT DO NOTHING
    RETURNING number, id
), told AS (
    INSERT INTO run_events (run, number, event) SELECT number, 1, $15 FROM made
)
SELECT id FROM made;

-- name: count_open_runs
-- How many runs of a caller have not ended, counted up to $3.
SELECT count(*) FROM (
    SELECT 1 FROM runs WHERE tenant = $1 AND subject = $2 AND end_time IS NULL LIMIT $3
) AS open;

-- name: get_run
-- A run ($2) of a tenant ($1).
SELECT *, (SELECT max(e.number) FROM run_events e WHERE e.run = runs.number) AS events
FROM runs WHERE tenant = $1 AND id = $2;

-- name: list_runs
-- Up to $5 runs of a tenant ($1), the newest first: in a state ($2), of a workflow ($3), each where it is not empty; older
-- than the number $4.
SELECT *, (SELECT max(e.number) FROM run_events e WHERE e.run = runs.number) AS events
FROM runs
WHERE tenant = $1 AND number < $4 AND ($2 = '' OR state = $2) AND ($3 = '' OR name = $3)
ORDER BY number DESC
LIMIT $5;

-- name: read_events
-- Up to $3 events of a run behind the number $2.
SELECT number, event FROM run_events WHERE run = $1 AND number > $2 ORDER BY number LIMIT $3;

-- name: watch_run
-- Says that a run is watched for the next $2.
UPDATE runs SET watched = now() + $2::interval WHERE number = $1;

-- name: cancel_run
-- Asks for a run to be cancelled. No row: it has ended, or was asked for before.
UPDATE runs
SET cancelling = true, wakes = wakes + 1, due = CASE WHEN state = 'RUNNING' THEN due ELSE now() END
WHERE tenant = $1 AND id = $2 AND end_time IS NULL AND NOT cancelling
RETURNING number;

-- name: forget_runs
-- Deletes up to $1 runs that ended longer than $2 ago, with all that belongs to them. One that is a step of another stays
-- as long as that, and goes first.
WITH old AS (
    SELECT number FROM runs
    WHERE end_time < now() - $2::interval
        AND NOT EXISTS (SELECT 1 FROM runs below WHERE below.parent = runs.number)
        AND (parent IS NULL
             OR EXISTS (SELECT 1 FROM runs above WHERE above.number = runs.parent AND above.end_time < now() - $2::interval))
    ORDER BY end_time LIMIT $1 FOR UPDATE SKIP LOCKED
), events AS (
    DELETE FROM run_events USING old WHERE run_events.run = old.number
)
DELETE FROM runs USING old WHERE runs.number = old.number;

-- name: stored_runs
-- Those that are there of runs ($2) of tenants ($1).
SELECT runs.tenant, runs.id
FROM unnest($1::text[], $2::text[]) AS one (tenant, id) JOIN runs ON runs.tenant = one.tenant AND runs.id = one.id;

-- name: signal_run
-- Stores a message for a run, and wakes it. No row: it has ended, or the key ($5) was used before.
WITH run AS (
    SELECT number FROM runs WHERE tenant = $1 AND id = $2 AND end_time IS NULL FOR NO KEY UPDATE
), sent AS (
    INSERT INTO signals (run, name, key, type, message)
    SELECT number, $3, $4, $5, $6 FROM run
    ON CONFLICT (run, name, key) WHERE key <> '' DO NOTHING
    RETURNING run
)
UPDATE runs
SET wakes = wakes + 1, due = CASE WHEN state = 'RUNNING' THEN due ELSE now() END
FROM sent
WHERE runs.number = sent.run
RETURNING runs.number;
