-- name: list_breaker_holds
-- Every circuit that is held.
SELECT agent, method, state, held_by, held_at
FROM breaker_holds
ORDER BY agent, method;

-- name: hold_breaker
-- Holds the circuit of a method ($2) of an agent ($1) in a state ($3), in the name of $4.
WITH noted AS (
    INSERT INTO operator_acts (actor, act, object, details)
    VALUES ($4, 'breaker held', $1 || ' ' || $2, jsonb_build_object('state', $3::text))
)
INSERT INTO breaker_holds (agent, method, state, held_by)
VALUES ($1, $2, $3, $4)
ON CONFLICT (agent, method) DO UPDATE
SET state = excluded.state, held_by = excluded.held_by, held_at = now();

-- name: release_breaker
-- Lets go of a circuit, in the name of $3.
WITH gone AS (
    DELETE FROM breaker_holds
    WHERE agent = $1 AND method = $2
    RETURNING state
)
INSERT INTO operator_acts (actor, act, object, details)
SELECT $3, 'breaker let go', $1 || ' ' || $2, jsonb_build_object('state', state)
FROM gone;
