-- name: set_aside
-- Sets aside what a request may cost.
SELECT granted, account, token_limit, cost_limit FROM set_aside_for_model(
  $1, $2, $3, $4, $5::text[], $6::text[], $7::text[], $8::bigint[], $9::bigint[], $10, $11, $12, $13, $14, $15
);

-- name: settle
-- Says what a request did cost.
SELECT settle_model_request($1, $2, $3, $4, $5, $6);

-- name: account_sum
-- What was spent of an account.
SELECT tokens, cost FROM model_accounts WHERE scope = $1 AND name = $2 AND period = $3;

-- name: account_parts
-- The same by agent and model.
SELECT q.agent, q.model, sum(q.tokens)::bigint AS tokens, sum(q.cost)::bigint AS cost, count(*) AS requests,
  count(*) FILTER (WHERE NOT q.priced) AS unpriced
FROM model_request_accounts r JOIN model_requests q ON q.id = r.request
WHERE r.scope = $1 AND r.name = $2 AND r.period = $3
GROUP BY q.agent, q.model ORDER BY 3 DESC, 1, 2;

-- name: limit_account
-- Holds an account to limits.
INSERT INTO model_accounts (scope, name, period, token_limit, cost_limit) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (scope, name, period)
DO UPDATE SET token_limit = excluded.token_limit, cost_limit = excluded.cost_limit, update_time = now();

-- name: idle_runs
-- Up to $3 runs behind a name ($2) that have spent nothing since a time.
SELECT name FROM model_accounts WHERE scope = 'run' AND update_time < $1 AND name > $2 ORDER BY name LIMIT $3;

-- name: forget_runs
-- Forgets those of some runs that have spent nothing since a time.
DELETE FROM model_accounts WHERE scope = 'run' AND update_time < $1 AND name = ANY($2::text[]);

-- name: forget_periods
-- Forgets days that are before a day, and months that are before its month.
DELETE FROM model_accounts WHERE period <> '' AND period < left($1, length(period));

-- name: forget_requests
-- Forgets up to $2 requests that began before a time, but for those of runs that are there; sums stay.
DELETE FROM model_requests WHERE id = ANY(ARRAY(
  SELECT q.id FROM model_requests q
  WHERE q.begin_time < $1 AND NOT EXISTS (
    SELECT 1 FROM model_request_accounts r JOIN model_accounts a USING (scope, name, period)
    WHERE r.request = q.id AND r.scope = 'run')
  ORDER BY q.begin_time LIMIT $2
));
