-- name: create_a2a_task
-- Stores a new task, which the gateway $12 works on for $13 before others doubt it, for $14.
INSERT INTO a2a_tasks (id, tenant, subject, agent, context_id, skill, state, status_time, told, artifacts, history,
                       gateway, lease_until, expire_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, now() + $13::interval, now() + $14::interval);

-- name: create_a2a_tasks
-- Stores new tasks, a column in each array, for the gateway $12; see create_a2a_task.
INSERT INTO a2a_tasks (id, tenant, subject, agent, context_id, skill, state, status_time, told, artifacts, history,
                       gateway, lease_until, expire_time)
SELECT id, tenant, subject, agent, context_id, skill, state, status_time, told, artifacts, history,
       $12, now() + $13::interval, now() + $14::interval
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::timestamptz[],
            $9::bytea[], $10::bytea[], $11::bytea[])
    AS made (id, tenant, subject, agent, context_id, skill, state, status_time, told, artifacts, history);

-- name: save_a2a_task
-- Stores how a task goes that the gateway $2 works on; who waits to be told is told when it has settled ($8). 0: it is
-- not worked on any more.
WITH saved AS (
    UPDATE a2a_tasks
    SET state = $3, status_time = $4, told = $5, artifacts = $6, history = $7, revision = revision + 1,
        expire_time = now() + $9::interval
    WHERE id = $1 AND gateway = $2 AND state = 'TASK_STATE_WORKING'
    RETURNING id
), pushed AS (
    UPDATE a2a_push_configs SET due_time = now(), attempts = 0
    FROM saved WHERE task_id = saved.id AND $8::boolean
)
SELECT count(*) FROM saved;

-- name: find_a2a_task
-- A task of a caller; $4: the agent it was asked of, or '-' for any.
SELECT id, tenant, subject, agent, context_id, skill, state, status_time, told, artifacts, history, revision
FROM a2a_tasks
WHERE id = $1 AND tenant = $2 AND subject = $3 AND $4 IN (agent, '-');

-- name: list_a2a_tasks
-- Tasks of a caller, those that changed last first, after ($8, $9) in that order; filters that are NULL do not count.
SELECT id, tenant, subject, agent, context_id, skill, state, status_time, told, artifacts, history, revision
FROM a2a_tasks
WHERE tenant = $1 AND subject = $2 AND $3 IN (agent, '-')
  AND ($4::text IS NULL OR context_id = $4)
  AND ($5::text IS NULL OR state = $5)
  AND ($6::timestamptz IS NULL OR status_time >= $6)
  AND ($8::timestamptz IS NULL OR (status_time, id) < ($8, $9::uuid))
ORDER BY status_time DESC, id DESC
LIMIT $7;

-- name: count_a2a_tasks
-- How many there are with these filters.
SELECT count(*)
FROM a2a_tasks
WHERE tenant = $1 AND subject = $2 AND $3 IN (agent, '-')
  AND ($4::text IS NULL OR context_id = $4)
  AND ($5::text IS NULL OR state = $5)
  AND ($6::timestamptz IS NULL OR status_time >= $6);

-- name: resume_a2a_task
-- Takes up a task that waits for its caller. No row: it does not.
UPDATE a2a_tasks
SET state = 'TASK_STATE_WORKING', status_time = now(), revision = revision + 1, gateway = $2,
    lease_until = now() + $3::interval
WHERE id = $1 AND state IN ('TASK_STATE_INPUT_REQUIRED', 'TASK_STATE_AUTH_REQUIRED')
RETURNING id;

-- name: cancel_a2a_task
-- Cancels a task that has not ended. No row: it has.
WITH ended AS (
    UPDATE a2a_tasks
    SET state = 'TASK_STATE_CANCELED', status_time = now(), told = '', revision = revision + 1
    WHERE id = $1
      AND state IN ('TASK_STATE_WORKING', 'TASK_STATE_INPUT_REQUIRED', 'TASK_STATE_AUTH_REQUIRED')
    RETURNING id
), pushed AS (
    UPDATE a2a_push_configs SET due_time = now(), attempts = 0
    FROM ended WHERE task_id = ended.id
)
SELECT count(*) FROM ended;

-- name: renew_a2a_leases
-- Says that the gateway $2 still works on tasks; those that it may go on with.
UPDATE a2a_tasks
SET lease_until = now() + $3::interval
WHERE id = ANY($1) AND gateway = $2 AND state = 'TASK_STATE_WORKING'
RETURNING id;

-- name: fail_lost_a2a_tasks
-- Ends tasks whose gateway is gone, with the message $1.
WITH lost AS (
    UPDATE a2a_tasks
    SET state = 'TASK_STATE_FAILED', status_time = now(), told = $1, revision = revision + 1
    WHERE state = 'TASK_STATE_WORKING' AND lease_until < now()
    RETURNING id
), pushed AS (
    UPDATE a2a_push_configs SET due_time = now(), attempts = 0
    FROM lost WHERE task_id = lost.id
)
SELECT count(*) FROM lost;

-- name: forget_a2a_tasks
-- Forgets up to $1 settled tasks whose time is over.
DELETE FROM a2a_tasks
WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM a2a_tasks WHERE expire_time < now() AND state <> 'TASK_STATE_WORKING' LIMIT $1));

-- name: create_a2a_push_config
-- Adds or replaces a config; $7: whether there is something to tell already.
INSERT INTO a2a_push_configs (task_id, id, url, token, scheme, credentials, due_time)
VALUES ($1, $2, $3, $4, $5, $6, CASE WHEN $7::boolean THEN now() END)
ON CONFLICT (task_id, id) DO UPDATE
SET url = excluded.url, token = excluded.token, scheme = excluded.scheme, credentials = excluded.credentials;

-- name: list_a2a_push_configs
-- Configs of a task, in the order of their ids.
SELECT id, url, token, scheme, credentials
FROM a2a_push_configs
WHERE task_id = $1
ORDER BY id;

-- name: delete_a2a_push_config
-- Removes a config.
DELETE FROM a2a_push_configs WHERE task_id = $1 AND id = $2;

-- name: claim_a2a_pushes
-- Takes up to $1 configs with something to tell; they come up again after $2 unless they are told by then.
UPDATE a2a_push_configs
SET due_time = now() + $2::interval, attempts = attempts + 1
FROM (
    SELECT task_id AS due_task, id AS due_id
    FROM a2a_push_configs
    WHERE due_time <= now()
    ORDER BY due_time
    LIMIT $1
    FOR UPDATE SKIP LOCKED
) AS due
WHERE task_id = due_task AND id = due_id
RETURNING task_id, id, url, token, scheme, credentials, due_time, attempts;

-- name: end_a2a_push
-- Says that a config was told what it was claimed for ($3), unless there is news since; to be tried again after $4, NULL:
-- done.
UPDATE a2a_push_configs
SET due_time = now() + $4::interval
WHERE task_id = $1 AND id = $2 AND due_time = $3;

-- name: read_a2a_task
-- A task, whosever it is.
SELECT id, tenant, subject, agent, context_id, skill, state, status_time, told, artifacts, history, revision
FROM a2a_tasks
WHERE id = $1;
