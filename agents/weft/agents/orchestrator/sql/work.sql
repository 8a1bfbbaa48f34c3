-- name: claim_runs
-- Leases up to $1 runs that are due for $2, but for those ($3) that who asks still has in hand: where a lease ran out since
-- the database was away, and nobody else took the run, it is renewed and nothing is lost.
WITH picked AS (
    SELECT number, state FROM runs WHERE due <= now() AND number <> ALL ($3::bigint[])
    ORDER BY due LIMIT $1 FOR UPDATE SKIP LOCKED
)
UPDATE runs
SET state = 'RUNNING', fence = fence + 1, due = now() + $2::interval,
    losses = losses + (picked.state = 'RUNNING')::integer
FROM picked
WHERE runs.number = picked.number
RETURNING runs.*;

-- name: next_run_due
-- In how many seconds a run is due. NULL: none is.
SELECT extract(epoch FROM min(due) - now())::float8 FROM runs WHERE due IS NOT NULL;

-- name: read_logs
-- The events of runs, each in order.
SELECT run, event FROM run_events WHERE run = ANY($1::bigint[]) ORDER BY run, number;

-- name: renew_runs
-- Renews the leases of runs ($1) that are held by their fences ($2) for $3; returns those that still are. A row that
-- is being written now is left for the next time: nobody waits for another here.
WITH given AS (
    SELECT * FROM unnest($1::bigint[], $2::bigint[]) AS one (number, fence)
), free AS (
    SELECT runs.number FROM runs JOIN given ON runs.number = given.number AND runs.fence = given.fence
    WHERE runs.state = 'RUNNING'
    FOR NO KEY UPDATE OF runs SKIP LOCKED
), renewed AS (
    UPDATE runs SET due = now() + $3::interval FROM free WHERE runs.number = free.number
)
SELECT runs.number, runs.wakes FROM runs JOIN given ON runs.number = given.number AND runs.fence = given.fence
WHERE runs.state = 'RUNNING';

-- name: append_events
-- Adds events ($3, as numbers $4, of the places $5 in $1) to runs ($1) that are held by their fences ($2); returns the
-- places of those that are. It is told to those who watch from elsewhere. Twice does no harm.
WITH held AS MATERIALIZED (
    SELECT given.place, runs.number, runs.watched > now() AS watched
    FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY AS given (number, fence, place)
    JOIN runs ON runs.number = given.number AND runs.fence = given.fence
    WHERE runs.state = 'RUNNING'
    FOR SHARE OF runs
), added AS (
    INSERT INTO run_events (run, number, event)
    SELECT held.number, one.number, one.event
    FROM unnest($3::bytea[], $4::bigint[], $5::bigint[]) AS one (event, number, place)
    JOIN held ON held.place = one.place
    ON CONFLICT DO NOTHING
)
SELECT place, CASE WHEN watched THEN pg_notify(current_schema() || '_runs', 'events:' || number) IS NULL END FROM held;

-- name: suspend_run
-- Lets go of a run until $5, or at once where something happened that was not seen ($6); its last events are $3 and $4.
-- No row: the fence is lost.
WITH held AS (
    UPDATE runs
    SET state = 'WAITING', due = CASE WHEN wakes = $6 THEN $5 ELSE now() END, losses = 0
    WHERE number = $1 AND fence = $2 AND state = 'RUNNING'
    RETURNING number, watched > now() AS watched
), added AS (
    INSERT INTO run_events (run, number, event)
    SELECT held.number, one.number, one.event FROM held, unnest($3::bigint[], $4::bytea[]) AS one (number, event)
    ON CONFLICT DO NOTHING
)
SELECT number, CASE WHEN watched THEN pg_notify(current_schema() || '_runs', 'events:' || number) IS NULL END FROM held;

-- name: release_run
-- Gives a run back as it is, to be taken at once.
UPDATE runs SET state = 'QUEUED', due = now() WHERE number = $1 AND fence = $2 AND state = 'RUNNING';

-- name: end_run
-- Ends a run; see the function.
SELECT 1 WHERE end_run($1, $2, $3, $4, $5, $6, $7, $8);

-- name: run_facts
-- What happened to a run from outside: how often, and whether it is to be cancelled.
SELECT wakes, cancelling FROM runs WHERE number = $1;

-- name: ended_children
-- How runs ended that are steps ($2) of a run.
SELECT id, parent_step, state, output_type, output, failure FROM runs
WHERE parent = $1 AND parent_step = ANY($2::text[]) AND end_time IS NOT NULL;

-- name: find_child
-- The run that is a step of another.
SELECT id FROM runs WHERE parent = $1 AND parent_step = $2;

-- name: take_signal
-- The message that a step ($3) takes of those of a name ($2): the one that it took before, or the first that none took. A
-- lost fence ($4) takes none.
UPDATE signals
SET step = $3
FROM (
    SELECT one.number FROM signals one JOIN runs ON runs.number = one.run
    WHERE one.run = $1 AND one.name = $2 AND one.step IN ('', $3) AND runs.fence = $4 AND runs.state = 'RUNNING'
    ORDER BY one.step DESC, one.number
    LIMIT 1
) AS first
WHERE signals.number = first.number
RETURNING signals.type, signals.message;

-- name: count_runs
-- What has not ended: runs by state, for how many seconds the oldest of them is due that nobody takes, decisions asked for.
SELECT count(*) FILTER (WHERE state = 'QUEUED') AS queued,
    count(*) FILTER (WHERE state = 'RUNNING') AS running,
    count(*) FILTER (WHERE state = 'WAITING') AS waiting,
    extract(epoch FROM now() - min(due) FILTER (WHERE due <= now()))::float8 AS overdue,
    (SELECT count(*) FROM approvals WHERE verdict IS NULL) AS approvals
FROM runs
WHERE due IS NOT NULL;
