-- name: begin_run
-- Numbers a start of the registry.
INSERT INTO runs DEFAULT VALUES RETURNING run;

-- name: all_agents
-- Every agent ever registered.
SELECT document FROM agents ORDER BY name;

-- name: all_instances
-- Every instance that held a lease when the last run ended.
SELECT lease_id, document FROM instances ORDER BY instance_id;

-- name: all_descriptors
-- Every descriptor set.
SELECT digest, content FROM descriptors ORDER BY digest;

-- name: all_names
-- Every service and capability ever registered.
SELECT kind, name FROM names ORDER BY kind, name;

-- name: put_descriptors
-- Adds descriptor sets that are not there yet.
INSERT INTO descriptors (digest, content)
SELECT * FROM unnest($1::text[], $2::bytea[])
ON CONFLICT (digest) DO NOTHING;

-- name: put_agents
-- Adds agents or renews their contracts.
INSERT INTO agents AS old (name, document)
SELECT * FROM unnest($1::text[], $2::bytea[])
ON CONFLICT (name) DO UPDATE SET document = excluded.document, update_time = now()
WHERE old.document <> excluded.document;

-- name: put_names
-- Remembers services and capabilities.
INSERT INTO names (kind, name)
SELECT * FROM unnest($1::text[], $2::text[])
ON CONFLICT DO NOTHING;

-- name: put_instances
-- Registers instances under a lease, away from any lease that had them.
INSERT INTO instances (instance_id, agent, lease_id, document)
SELECT instance_id, agent, $1::text, document
FROM unnest($2::text[], $3::text[], $4::bytea[]) AS given (instance_id, agent, document)
ON CONFLICT (instance_id) DO UPDATE
SET agent = excluded.agent, lease_id = excluded.lease_id, document = excluded.document, update_time = now();

-- name: update_instances
-- Stores a new state of instances that are still of this lease.
UPDATE instances AS old
SET document = given.document, update_time = now()
FROM unnest($2::text[], $3::bytea[]) AS given (instance_id, document)
WHERE old.instance_id = given.instance_id AND old.lease_id = $1::text;

-- name: delete_instances
-- Forgets instances that are still of this lease.
DELETE FROM instances WHERE lease_id = $1::text AND instance_id = ANY ($2::text[]);
