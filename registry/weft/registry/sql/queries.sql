-- name: begin_epoch
-- Makes everything so far history that cannot be resumed: no registry was there to see whether it is all, or the
-- database is an older one. $1: least revision it begins with.
UPDATE revision
SET last = greatest(last + 1, $1::bigint, (extract(epoch FROM now()) * 1000)::bigint),
    floor = greatest(last + 1, $1::bigint, (extract(epoch FROM now()) * 1000)::bigint);

-- name: changes
-- Everything that changed after a revision, in one snapshot; first the state of the whole. kind: its order of use.
SELECT 0 AS kind, '' AS name, horizon AS number, last AS revision, floor AS registered,
  NULL::bytea AS document, NULL AS lease_id, NULL AS replica, NULL AS fault
FROM revision
UNION ALL
SELECT 1, digest, 0, revision, 0, content, NULL, NULL, NULL FROM descriptors WHERE revision > $1
UNION ALL
SELECT CASE kind WHEN 'service' THEN 2 ELSE 3 END, name, 0, revision, 0, NULL, NULL, NULL, NULL
FROM names WHERE revision > $1
UNION ALL
SELECT 4, name, 0, revision, 0, document, NULL, NULL, NULL FROM agents WHERE revision > $1
UNION ALL
SELECT 5, instance_id, 0, revision, 0, NULL, NULL, NULL, NULL FROM departures WHERE revision > $1
UNION ALL
SELECT 6, instance_id, 0, revision, registered, document, lease_id, replica, fault FROM instances WHERE revision > $1
UNION ALL
SELECT 7, agent, 0, revision, 0, document, NULL, NULL, NULL FROM controls WHERE revision > $1
ORDER BY 1, 4, 2;

-- name: take_revision
-- Numbers this transaction, and holds up all others that change something until it ends.
SELECT take_revision($1);

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
-- Registers instances under leases of a replica, away from any lease that had them. moved: the address is another one.
-- What is of another agent stays as it is, except for what may be taken over: those of "ID AGENT", or all (null).
INSERT INTO instances AS old (instance_id, agent, lease_id, replica, document, registered)
SELECT instance_id, agent, lease_id, $1::text, document, take_revision()
FROM unnest($2::text[], $3::text[], $4::text[], $5::bytea[]) AS given (instance_id, agent, lease_id, document)
ON CONFLICT (instance_id) DO UPDATE
SET agent = excluded.agent, lease_id = excluded.lease_id, replica = excluded.replica,
  document = excluded.document, update_time = now(),
  registered = CASE WHEN old.document = excluded.document THEN old.registered ELSE excluded.registered END,
  fault = CASE WHEN old.instance_id = ANY ($6::text[]) THEN '' ELSE old.fault END
WHERE old.agent = excluded.agent OR $7::text[] IS NULL OR old.instance_id || ' ' || old.agent = ANY ($7);

-- name: refused
-- Which of these leases did not get an instance that they registered.
SELECT DISTINCT given.lease_id
FROM unnest($1::text[], $2::text[]) AS given (instance_id, lease_id) JOIN instances AS old USING (instance_id)
WHERE old.lease_id <> given.lease_id;

-- name: update_instances
-- Stores a new state of instances that are still of these leases.
UPDATE instances AS old
SET document = given.document, update_time = now()
FROM unnest($2::text[], $3::text[], $4::bytea[]) AS given (instance_id, lease_id, document)
WHERE old.instance_id = given.instance_id AND old.lease_id = given.lease_id AND old.replica = $1::text
  AND old.document <> given.document;

-- name: update_faults
-- Stores what probes say of instances that this replica still holds.
UPDATE instances AS old
SET fault = given.fault, update_time = now()
FROM unnest($2::text[], $3::text[]) AS given (instance_id, fault)
WHERE old.instance_id = given.instance_id AND old.replica = $1::text AND old.fault <> given.fault;

-- name: delete_instances
-- Forgets instances that are still of these leases.
DELETE FROM instances AS old
USING unnest($2::text[], $3::text[]) AS given (instance_id, lease_id)
WHERE old.instance_id = given.instance_id AND old.lease_id = given.lease_id AND old.replica = $1::text;

-- name: forget_departures
-- Forgets departures that every replica has heard of, and says in `revision` up to where.
WITH gone AS (
  DELETE FROM departures WHERE depart_time < now() - $1::interval RETURNING revision
)
UPDATE revision SET horizon = greatest(horizon, (SELECT max(revision) FROM gone))
WHERE EXISTS (SELECT FROM gone);

-- name: beat
-- Says that a replica lives. new: it was not there, or not any more.
INSERT INTO replicas AS old (replica, address, start_time, warm_time, position, leases)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (replica) DO UPDATE
SET address = excluded.address, beat_time = now(), warm_time = excluded.warm_time,
  position = excluded.position, leases = excluded.leases
RETURNING (xmax = 0) AS new;

-- name: all_replicas
-- Every replica. silence: since its last beat.
SELECT replica, address, start_time, warm_time, position, leases, now() - beat_time AS silence
FROM replicas ORDER BY start_time, replica;

-- name: drop_replica
-- Strikes out a replica that has been silent for so long.
DELETE FROM replicas WHERE replica = $1 AND beat_time <= now() - $2::interval;

-- name: drop_former
-- Strikes out whoever served at an address before: two cannot listen there.
DELETE FROM replicas WHERE address = $2 AND replica <> $1;

-- name: orphans
-- How many instances are held by no replica there is. Those of an earlier version are, once it is gone.
SELECT count(*) FROM instances AS i
WHERE NOT EXISTS (SELECT FROM replicas AS r WHERE r.replica = i.replica)
  AND (i.replica IS NOT NULL OR NOT EXISTS (
    SELECT FROM pg_stat_activity WHERE application_name = 'weft-registry' AND datname = current_database()
  ));

-- name: adopt
-- Takes over all of them.
UPDATE instances AS i SET replica = $1::text, update_time = now()
WHERE NOT EXISTS (SELECT FROM replicas AS r WHERE r.replica = i.replica)
  AND (i.replica IS NOT NULL OR NOT EXISTS (
    SELECT FROM pg_stat_activity WHERE application_name = 'weft-registry' AND datname = current_database()
  ));

-- name: put_loads
-- Says what the instances of a replica report, in place of what it said before.
INSERT INTO loads AS old (replica, number, document) VALUES ($1, 1, $2)
ON CONFLICT (replica) DO UPDATE SET number = old.number + 1, document = excluded.document;

-- name: other_loads
-- What the instances of other replicas report. known: which of it was read before, as "REPLICA NUMBER".
SELECT replica, number, document FROM loads
WHERE replica <> $1 AND replica || ' ' || number <> ALL ($2::text[]);

-- name: drop_loads
-- Forgets what replicas said that are gone.
DELETE FROM loads WHERE NOT EXISTS (SELECT FROM replicas AS r WHERE r.replica = loads.replica);

-- name: get_control
-- What is in force for an agent.
SELECT document FROM controls WHERE agent = $1;

-- name: put_control
-- Puts it in force.
INSERT INTO controls (agent, document) VALUES ($1, $2)
ON CONFLICT (agent) DO UPDATE SET document = excluded.document, update_time = now();

-- name: put_control_event
-- Records what an operator did.
INSERT INTO control_events (agent, document) VALUES ($1, $2);

-- name: control_events
-- What operators did to an agent, or to all (''), before an event; the latest first.
SELECT event, document FROM control_events
WHERE ($1 = '' OR agent = $1) AND event < $2
ORDER BY event DESC LIMIT $3;
