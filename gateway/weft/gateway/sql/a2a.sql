-- name: list_a2a_jobs
-- Up to $7 tasks of a caller ($1, $2), those whose state changed last first, behind ($8, $9) in that order: of an agent
-- ($3), a context ($4), a state ($5), each where it is not empty; of states since $6.
SELECT * FROM jobs
WHERE tenant = $1 AND subject = $2 AND kind = 'a2a'
    AND ($3 = '' OR agent = $3) AND ($4 = '' OR context = $4) AND ($5 = '' OR a2a_state(jobs) = $5)
    AND ($6::timestamptz IS NULL OR state_time >= $6)
    AND ($8::timestamptz IS NULL OR (state_time, number) < ($8, $9::bigint))
ORDER BY state_time DESC, number DESC
LIMIT $7;

-- name: count_a2a_jobs
-- How many tasks there are; see list_a2a_jobs.
SELECT count(*) FROM jobs
WHERE tenant = $1 AND subject = $2 AND kind = 'a2a'
    AND ($3 = '' OR agent = $3) AND ($4 = '' OR context = $4) AND ($5 = '' OR a2a_state(jobs) = $5)
    AND ($6::timestamptz IS NULL OR state_time >= $6);
