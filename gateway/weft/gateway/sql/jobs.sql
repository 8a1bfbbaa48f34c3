-- name: begin_job
-- Stores a job, with a subscriber ($22, NULL: none) of $23 and $24. With a lease ($21, NULL: none) it runs already. No
-- row: its key is taken.
WITH made AS (
    INSERT INTO jobs (id, tenant, subject, kind, context, note, key, agent, method, request, identity, traceparent,
                      conversation, streams, repeatable, resumable, deadline, keep, webhook_url, webhook_secret,
                      state, fence, lease_until, start_time)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, now() + $17::interval, $18, $19, $20,
            CASE WHEN $21::interval IS NULL THEN 'QUEUED' ELSE 'RUNNING' END, ($21::interval IS NOT NULL)::int,
            now() + $21::interval, CASE WHEN $21::interval IS NOT NULL THEN now() END)
    ON CONFLICT (tenant, subject, key) WHERE key IS NOT NULL DO NOTHING
    RETURNING *
), subscribed AS (
    INSERT INTO job_subscribers (job, id, url, settings)
    SELECT made.id, $22::text, $23::text, $24::bytea FROM made WHERE $22::text IS NOT NULL
)
SELECT * FROM made;

-- name: store_ended_job
-- Stores a job whose call was over before anybody knew of the job: it ended ($10) or waits, at $11. It might have taken
-- $13, and is kept for $14. Of its call nobody needs the request again, nor the identity it was made with.
INSERT INTO jobs (id, tenant, subject, kind, context, note, agent, method, traceparent, state, state_time, waits_for,
                  deadline, keep, response, status, repeatable, conversation,
                  request, identity, streams, resumable, start_time, end_time, expire_time, webhook_url, webhook_secret)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12,
        $11::timestamptz + CASE WHEN $10 = 'WAITING' THEN $14::interval ELSE $13::interval END, $14, $15, $16, $17, $18,
        '', '', false, $19, $11, CASE WHEN $10 <> 'WAITING' THEN $11::timestamptz END,
        CASE WHEN $10 <> 'WAITING' THEN $11::timestamptz + $14::interval END, '', '');

-- name: resume_job
-- Goes on with a job ($3) of a caller ($1, $2) that waits, with a new request ($4), note ($5), identity ($6); it may take
-- $7, and runs by a lease of $8. Messages of the run before are forgotten. No row: it does not wait.
WITH resumed AS (
    UPDATE jobs
    SET state = 'RUNNING', fence = fence + 1, lease_until = now() + $8::interval, deadline = now() + $7::interval,
        request = $4, note = $5, identity = $6, status = NULL, waits_for = ''
    WHERE id = $3 AND tenant = $1 AND subject = $2 AND state = 'WAITING'
    RETURNING *
), cleared AS (
    DELETE FROM job_messages USING resumed WHERE job = resumed.id
)
SELECT * FROM resumed;

-- name: find_job_by_key
-- The job of a caller ($1, $2) that was begun with a key.
SELECT * FROM jobs WHERE tenant = $1 AND subject = $2 AND key = $3;

-- name: count_open_jobs
-- How many jobs of a caller have not ended, counted up to $3.
SELECT count(*) FROM (
    SELECT 1 FROM jobs WHERE tenant = $1 AND subject = $2 AND state IN ('QUEUED', 'RUNNING') LIMIT $3
) AS open;

-- name: get_job
-- A job ($3) of a caller ($1, $2).
SELECT * FROM jobs WHERE id = $3 AND tenant = $1 AND subject = $2;

-- name: list_jobs
-- Up to $8 jobs of a caller, the newest first: of a kind ($3), a context ($4), a state ($5), a method ($6), each where it
-- is not empty; older than the number $7.
SELECT * FROM jobs
WHERE tenant = $1 AND subject = $2 AND number < $7
    AND ($3 = '' OR kind = $3) AND ($4 = '' OR context = $4) AND ($5 = '' OR state = $5) AND ($6 = '' OR method = $6)
ORDER BY number DESC
LIMIT $8;

-- name: cancel_job
-- Asks for a job to be cancelled; one that nobody runs has ended with that ($4: its status). No row: it had ended.
UPDATE jobs
SET cancelling = true,
    state = CASE WHEN state = 'RUNNING' THEN state ELSE 'CANCELLED' END,
    status = CASE WHEN state = 'RUNNING' THEN status ELSE $4 END,
    update_time = now()
WHERE id = $3 AND tenant = $1 AND subject = $2 AND state IN ('QUEUED', 'RUNNING', 'WAITING')
RETURNING *;

-- name: delete_job
-- Removes a job that has ended.
DELETE FROM jobs
WHERE id = $3 AND tenant = $1 AND subject = $2 AND state IN ('SUCCEEDED', 'FAILED', 'CANCELLED');

-- name: note_job
-- Changes what the door that made a job keeps beside it.
UPDATE jobs SET note = $4, update_time = now() WHERE id = $3 AND tenant = $1 AND subject = $2;

-- name: list_job_messages
-- Up to $3 messages of a job behind the number $2.
SELECT number, content FROM job_messages WHERE job = $1 AND number > $2 ORDER BY number LIMIT $3;

-- name: claim_jobs
-- Leases up to $1 jobs for $2: those that are due, and those whose runner was lost fewer than $3 times where a second
-- call does no harm. Messages of a run before are forgotten.
WITH picked AS (
    SELECT id, state = 'RUNNING' AS lost FROM jobs
    WHERE NOT cancelling AND deadline > now()
        AND (state = 'QUEUED' AND due <= now()
             OR state = 'RUNNING' AND lease_until < now() AND repeatable AND losses < $3)
    ORDER BY due, number
    LIMIT $1
    FOR UPDATE SKIP LOCKED
), cleared AS (
    DELETE FROM job_messages USING picked WHERE job = picked.id
)
UPDATE jobs
SET state = 'RUNNING', fence = fence + 1, losses = losses + picked.lost::integer, lease_until = now() + $2::interval,
    start_time = coalesce(start_time, now()), update_time = now()
FROM picked
WHERE jobs.id = picked.id
RETURNING jobs.*;

-- name: end_lost_jobs
-- Ends up to $1 jobs that nobody will run any more: too late ($2), or begun with an unknown outcome ($3); those that were
-- being cancelled are ($4). Lost $5 times is too often.
UPDATE jobs
SET state = CASE WHEN cancelling THEN 'CANCELLED' ELSE 'FAILED' END,
    status = CASE WHEN cancelling THEN $4::bytea WHEN state = 'RUNNING' AND NOT repeatable THEN $3::bytea
                  WHEN deadline <= now() THEN $2::bytea ELSE $3::bytea END
WHERE id IN (
    SELECT id FROM jobs
    WHERE state = 'QUEUED' AND (deadline <= now() OR cancelling)
        OR state = 'WAITING' AND deadline <= now()
        OR state = 'RUNNING' AND lease_until < now()
           AND (cancelling OR NOT repeatable OR deadline <= now() OR losses >= $5)
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)
RETURNING state;

-- name: next_job_due
-- In how many seconds something is to be done: a job is due, a lease runs out. NULL: nothing is.
SELECT extract(epoch FROM least(
    (SELECT min(due) FROM jobs WHERE state = 'QUEUED'),
    (SELECT min(lease_until) FROM jobs WHERE state = 'RUNNING')
) - now())::float8;

-- name: renew_job_leases
-- Renews the leases of jobs ($1) that are held by their fences ($2) for $3; returns those that still are.
UPDATE jobs
SET lease_until = now() + $3::interval
FROM unnest($1::text[], $2::bigint[]) AS held (id, fence)
WHERE jobs.id = held.id AND jobs.fence = held.fence AND jobs.state = 'RUNNING'
RETURNING jobs.id, jobs.cancelling;

-- name: requeue_job
-- Gives a job back that was not begun, to be run after $3.
UPDATE jobs
SET state = 'QUEUED', due = now() + $3::interval, lease_until = NULL, update_time = now()
WHERE id = $1 AND fence = $2 AND state = 'RUNNING';

-- name: end_job
-- Ends a job: its state, response, status.
UPDATE jobs
SET state = $3, response = $4, status = $5
WHERE id = $1 AND fence = $2 AND state = 'RUNNING';

-- name: wait_job
-- Lets a job wait for its caller: its status, and the reason in it. One that is being cancelled has ended with that ($5).
UPDATE jobs
SET state = CASE WHEN cancelling THEN 'CANCELLED' ELSE 'WAITING' END, waits_for = $4,
    status = CASE WHEN cancelling THEN $5 ELSE $3::bytea END
WHERE id = $1 AND fence = $2 AND state = 'RUNNING';

-- name: add_job_messages
-- Adds messages ($3) to a job that has had $5, behind $6 that are not kept, and forgets those up to the number $4. No row:
-- the lease is lost, or it was done before.
WITH held AS (
    UPDATE jobs SET messages = $5::bigint + $6::bigint + cardinality($3::bytea[]), update_time = now()
    WHERE id = $1 AND fence = $2 AND state = 'RUNNING' AND messages = $5::bigint
    RETURNING id
), added AS (
    INSERT INTO job_messages (job, number, content)
    SELECT held.id, $5::bigint + $6::bigint + one.position, one.content
    FROM held, unnest($3::bytea[]) WITH ORDINALITY AS one (content, position)
), forgotten AS (
    DELETE FROM job_messages USING held WHERE job = held.id AND number <= $4
)
SELECT 1 FROM held;

-- name: count_job_messages
-- How many messages a job has had that is held by a fence.
SELECT messages FROM jobs WHERE id = $1 AND fence = $2 AND state = 'RUNNING';

-- name: count_jobs
-- What has not ended: jobs that wait, for how many seconds the oldest of them, jobs that run, webhooks.
SELECT count(*) FILTER (WHERE state = 'QUEUED') AS queued,
    count(*) FILTER (WHERE state = 'RUNNING') AS running,
    extract(epoch FROM now() - min(create_time) FILTER (WHERE state = 'QUEUED'))::float8 AS oldest,
    (SELECT count(*) FROM job_webhooks WHERE state = 'PENDING') AS webhooks
FROM jobs
WHERE state IN ('QUEUED', 'RUNNING');

-- name: forget_jobs
-- Forgets up to $1 jobs whose time is over.
DELETE FROM jobs WHERE ctid = ANY(ARRAY(SELECT ctid FROM jobs WHERE expire_time < now() LIMIT $1));

-- name: add_job_subscriber
-- Adds or replaces a subscriber ($4, $5, $6) of a job ($3) of a caller; of one that has ended or waits it is told at once.
-- No row: there is no such job.
WITH asked AS (
    SELECT * FROM jobs WHERE id = $3 AND tenant = $1 AND subject = $2 FOR SHARE
), added AS (
    INSERT INTO job_subscribers (job, id, url, settings)
    SELECT asked.id, $4, $5, $6 FROM asked
    ON CONFLICT (job, id) DO UPDATE SET url = excluded.url, settings = excluded.settings
)
SELECT state FROM asked;

-- name: tell_job_subscriber
-- Tells a subscriber ($2) of a job how it stands.
SELECT tell_subscribers(jobs, $2) FROM jobs WHERE id = $1 AND state NOT IN ('QUEUED', 'RUNNING') FOR SHARE;

-- name: list_job_subscribers
-- Subscribers of a job ($3) of a caller ($1, $2).
SELECT each.id, each.url, each.settings
FROM job_subscribers AS each JOIN jobs ON jobs.id = each.job
WHERE jobs.id = $3 AND jobs.tenant = $1 AND jobs.subject = $2
ORDER BY each.id;

-- name: delete_job_subscriber
-- Removes a subscriber ($4) of a job, and what is still to be told to it.
WITH gone AS (
    DELETE FROM job_subscribers USING jobs
    WHERE job = $3 AND job_subscribers.id = $4 AND jobs.id = $3 AND jobs.tenant = $1 AND jobs.subject = $2
    RETURNING job, job_subscribers.id
)
DELETE FROM job_webhooks USING gone
WHERE job_webhooks.job = gone.job AND subscriber = gone.id AND secret = '' AND state = 'PENDING';

-- name: read_job_told
-- A job and what a subscriber of it ($2) is told with, whosever it is. No row: one of them is gone.
SELECT jobs.*, job_subscribers.settings
FROM jobs JOIN job_subscribers ON job = jobs.id
WHERE jobs.id = $1 AND job_subscribers.id = $2;
