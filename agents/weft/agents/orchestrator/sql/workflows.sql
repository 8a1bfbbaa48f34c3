-- name: newest_workflow
-- The newest version of a workflow ($2) of a tenant ($1).
SELECT * FROM workflows WHERE tenant = $1 AND name = $2 AND version > 0 ORDER BY version DESC LIMIT 1;

-- name: find_workflow
-- A version ($3) of a workflow ($2) of a tenant ($1).
SELECT * FROM workflows WHERE tenant = $1 AND name = $2 AND version = $3 AND version > 0;

-- name: get_workflow
-- A workflow by its number.
SELECT * FROM workflows WHERE number = $1;

-- name: add_workflow
-- Stores the next version of a workflow. AlreadyExists: another one was stored meanwhile.
INSERT INTO workflows (tenant, name, version, digest, spec, world, output_type, subject)
SELECT $1, $2, coalesce(max(version), 0) + 1, $3, $4, $5, $6, $7
FROM workflows WHERE tenant = $1 AND name = $2 AND version > 0
RETURNING *;

-- name: keep_workflow
-- Stores a workflow that is run without a name of its own. No row: it is stored.
INSERT INTO workflows (tenant, name, version, digest, spec, world, output_type, subject)
VALUES ($1, $2, 0, $3, $4, $5, $6, $7)
ON CONFLICT (tenant, digest) WHERE version = 0 DO NOTHING
RETURNING *;

-- name: find_unnamed_workflow
-- A workflow without a name of its own, by its digest.
SELECT * FROM workflows WHERE tenant = $1 AND digest = $2 AND version = 0;

-- name: list_workflows
-- Up to $3 workflows of a tenant behind a name ($2), each in its newest version.
SELECT DISTINCT ON (name) name, version, output_type, create_time, subject FROM workflows
WHERE tenant = $1 AND name > $2 AND version > 0
ORDER BY name, version DESC
LIMIT $3;

-- name: newest_workflow_number
-- The number of the newest version of a workflow ($2) of a tenant ($1).
SELECT number FROM workflows WHERE tenant = $1 AND name = $2 AND version > 0 ORDER BY version DESC LIMIT 1;

-- name: workflow_number
-- The number of a version ($3) of a workflow ($2) of a tenant ($1).
SELECT number FROM workflows WHERE tenant = $1 AND name = $2 AND version = $3 AND version > 0;

-- name: keep_descriptor_sets
-- Keeps descriptor sets ($2) by their digests ($1).
INSERT INTO descriptor_sets (digest, content) SELECT * FROM unnest($1::text[], $2::bytea[]) ON CONFLICT DO NOTHING;

-- name: descriptor_sets
-- Descriptor sets by their digests.
SELECT digest, content FROM descriptor_sets WHERE digest = ANY($1::text[]);
