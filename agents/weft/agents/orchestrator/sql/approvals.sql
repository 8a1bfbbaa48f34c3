-- name: ask_approval
-- Stores an approval for a run ($3) that is held by a fence ($18). No row: it is there, or the fence is lost.
INSERT INTO approvals (id, tenant, run, run_id, workflow, step, title, shown_type, shown, digest, scope, own, beginner,
                       quorum, editable, expire_time, until, webhook_url)
SELECT $1, $2, runs.number, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, least($16, runs.deadline), $17
FROM runs WHERE runs.number = $3 AND runs.fence = $18 AND runs.state = 'RUNNING'
FOR SHARE
ON CONFLICT (run, step) DO NOTHING
RETURNING *;

-- name: approvals_of_steps
-- The approvals that steps ($2) of a run wait for.
SELECT * FROM approvals WHERE run = $1 AND step = ANY($2::text[]);

-- name: expire_approvals
-- Ends approvals of steps ($2) of a run that nobody decided in time.
UPDATE approvals SET verdict = 'EXPIRED', decide_time = now()
WHERE run = $1 AND step = ANY($2::text[]) AND verdict IS NULL AND expire_time <= now();

-- name: decide_approval
-- Decides an approval ($2) of a tenant, by a subject ($3, identity $4): the verdict $5 on what has the digest $6, with a
-- comment; $8 and $9 (digest): what is approved instead. The run goes on in the same statement. No row: it was decided or
-- has expired, is of something else, or this subject has approved it.
WITH decided AS (
    UPDATE approvals
    SET shown = coalesce($8::bytea, shown), digest = coalesce($9::text, digest), edited = edited OR $8::bytea IS NOT NULL,
        approvers = CASE WHEN $5 = 'REJECTED' THEN approvers WHEN $8::bytea IS NULL THEN approvers || $3::text
                         ELSE ARRAY[$3::text] END,
        identities = CASE WHEN $5 = 'REJECTED' THEN identities WHEN $8::bytea IS NULL THEN identities || $4::bytea
                          ELSE ARRAY[$4::bytea] END,
        verdict = CASE WHEN $5 = 'REJECTED' THEN $5
                       WHEN CASE WHEN $8::bytea IS NULL THEN cardinality(approvers) + 1 ELSE 1 END >= quorum THEN $5 END,
        subject = $3, comment = $7,
        decide_time = now()
    WHERE tenant = $1 AND id = $2 AND verdict IS NULL AND digest = $6 AND until > now()
        AND ($5 = 'REJECTED' OR $8::bytea IS NOT NULL OR NOT $3 = ANY(approvers))
    RETURNING *
), woken AS (
    UPDATE runs
    SET wakes = wakes + 1, due = CASE WHEN state = 'RUNNING' THEN due ELSE now() END
    FROM decided
    WHERE runs.number = decided.run AND decided.verdict IS NOT NULL AND runs.end_time IS NULL
)
SELECT * FROM decided;

-- name: get_approval
-- An approval of a tenant.
SELECT * FROM approvals WHERE tenant = $1 AND id = $2;

-- name: list_approvals
-- Up to $10 approvals of a tenant ($1), those first that have to be decided first: open ($2) or ended ($3) ones; of a run
-- ($4, empty: any); $5: those only that a subject ($6) with scopes ($7, NULL: all) may decide; behind a time ($8) and number ($9).
SELECT * FROM approvals
WHERE tenant = $1
    AND CASE WHEN verdict IS NULL THEN $2::boolean ELSE $3::boolean END
    AND ($4::text = '' OR run_id = $4)
    AND (NOT $5::boolean
         OR (own OR beginner <> $6::text) AND (scope = '' OR $7::text[] IS NULL OR scope = ANY($7::text[]))
            AND NOT $6::text = ANY(approvers))
    AND (until, number) > ($8::timestamptz, $9::bigint)
ORDER BY until, number
LIMIT $10;

-- name: add_webhook
-- Stores something to be told. Twice does no harm.
INSERT INTO webhooks (id, tenant, url, body) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING;

-- name: make_webhook_secret
-- Keeps a secret for a tenant that has none.
INSERT INTO webhook_secrets (tenant, secret) VALUES ($1, $2) ON CONFLICT DO NOTHING;

-- name: webhook_secret
-- What webhooks of a tenant are signed with.
SELECT secret FROM webhook_secrets WHERE tenant = $1;

-- name: claim_webhooks
-- Takes up to $1 deliveries that are due; whoever takes one has $2 for its attempt.
UPDATE webhooks
SET attempts = attempts + 1, due = now() + $2::interval
WHERE id IN (
    SELECT id FROM webhooks WHERE state = 'PENDING' AND due <= now() ORDER BY due LIMIT $1 FOR UPDATE SKIP LOCKED
)
RETURNING *;

-- name: end_webhook
-- Keeps what came of the attempt number $2: the new state, in how long it is due again, and what was wrong.
UPDATE webhooks
SET state = $3, due = now() + $4::interval, problem = $5, update_time = now()
WHERE id = $1 AND attempts = $2 AND state = 'PENDING';

-- name: next_webhook_due
-- In how many seconds a delivery is due. NULL: none is.
SELECT extract(epoch FROM min(due) - now())::float8 FROM webhooks WHERE state = 'PENDING';

-- name: forget_webhooks
-- Forgets up to $1 deliveries that ended more than $2 ago.
DELETE FROM webhooks WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM webhooks WHERE state <> 'PENDING' AND update_time < now() - $2::interval LIMIT $1
));
