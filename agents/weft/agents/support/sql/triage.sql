-- name: put_model
-- Makes a model or numbers a change of it, and locks it until the transaction ends.
INSERT INTO triage_models (model, revision, update_time)
VALUES ($1, nextval('triage_revisions'), now())
ON CONFLICT (model) DO UPDATE SET revision = excluded.revision, update_time = excluded.update_time
RETURNING revision;

-- name: put_examples
-- Teaches a model texts with their digests and intents; a text taught before gets the new intent.
INSERT INTO triage_examples (model, digest, text, intent)
SELECT $1, * FROM unnest($2::bytea[], $3::text[], $4::text[])
ON CONFLICT (model, digest) DO UPDATE SET intent = excluded.intent;

-- name: model_examples
-- Everything a model was taught, in an order that does not depend on when.
SELECT text, intent FROM triage_examples WHERE model = $1 ORDER BY digest;

-- name: model_intents
-- Intents a model was taught.
SELECT DISTINCT intent FROM triage_examples WHERE model = $1;

-- name: model_revision
-- Number of the latest change of a model; nothing: it was never taught.
SELECT revision FROM triage_models WHERE model = $1;

-- name: taught_models
-- All models that were taught, by name.
SELECT m.model, m.update_time, count(e.digest) AS examples, count(DISTINCT e.intent) AS intents
FROM triage_models m LEFT JOIN triage_examples e USING (model)
GROUP BY m.model ORDER BY m.model;

-- name: delete_model
-- Deletes a model and what it was taught.
DELETE FROM triage_models WHERE model = $1 RETURNING model;
