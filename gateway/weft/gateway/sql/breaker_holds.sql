-- name: list_breaker_holds
-- Every circuit that is held.
SELECT agent, method, state, held_by, held_at
FROM breaker_holds
ORDER BY agent, method;

-- name: hold_breaker
-- Holds the circuit of a method ($2) of an agent ($1) in a state ($3), in the name of $4.
INSERT INTO breaker_holds (agent, method, state, held_by)
VALUES ($1, $2, $3, $4)
ON CONFLICT (agent, method) DO UPDATE
SET state = excluded.state, held_by = excluded.held_by, held_at = now();

-- name: release_breaker
-- Lets go of a circuit.
DELETE FROM breaker_holds
WHERE agent = $1 AND method = $2;
