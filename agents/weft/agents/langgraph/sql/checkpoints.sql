-- name: put_checkpoint
-- Stores a checkpoint and its new values; false where $2, the fence or null, does not allow it. The row of the lease is
-- locked, so whoever takes it over comes before this statement or after it.
WITH held AS (
  SELECT FROM leases WHERE thread = $1 AND fence = $2 FOR SHARE
), may AS (
  SELECT CASE WHEN $2::bigint IS NULL
    THEN NOT EXISTS (SELECT FROM leases WHERE thread = $1 AND until > clock_timestamp())
    ELSE EXISTS (SELECT FROM held) END AS ok
), stored AS (
  INSERT INTO blobs (thread, ns, channel, version, type, blob)
  SELECT $1, $3, value.channel, value.version, value.type, value.blob
  FROM may, unnest($11::text[], $12::text[], $13::text[], $14::bytea[])
    AS value (channel, version, type, blob)
  WHERE may.ok
  ON CONFLICT DO NOTHING
), put AS (
  INSERT INTO checkpoints (thread, ns, id, parent, type, body, metadata, channels, versions)
  SELECT $1, $3, $4, $5, $6, $7, $8::text::jsonb, $9, $10 FROM may WHERE ok
  ON CONFLICT (thread, ns, id) DO UPDATE SET type = excluded.type, body = excluded.body,
    metadata = excluded.metadata, channels = excluded.channels, versions = excluded.versions
)
SELECT ok FROM may;

-- name: put_writes
-- Stores what a task wrote; false where $2, the fence or null, does not allow it. What is numbered from 0 stays as it was
-- first written; errors, interrupts and what they were resumed with are replaced.
WITH held AS (
  SELECT FROM leases WHERE thread = $1 AND fence = $2 FOR SHARE
), may AS (
  SELECT CASE WHEN $2::bigint IS NULL
    THEN NOT EXISTS (SELECT FROM leases WHERE thread = $1 AND until > clock_timestamp())
    ELSE EXISTS (SELECT FROM held) END AS ok
), put AS (
  INSERT INTO writes (thread, ns, id, task, path, number, channel, type, blob)
  SELECT $1, $3, $4, $5, $6, written.number, written.channel, written.type, written.blob
  FROM may, unnest($7::integer[], $8::text[], $9::text[], $10::bytea[])
    AS written (number, channel, type, blob)
  WHERE may.ok
  ON CONFLICT (thread, ns, id, task, number) DO UPDATE SET path = excluded.path,
    channel = excluded.channel, type = excluded.type, blob = excluded.blob
  WHERE writes.number < 0
)
SELECT ok FROM may;

-- name: get_checkpoint
-- Checkpoint $3 of a namespace of a thread, null for the newest, with its values and what was written after it.
SELECT c.*, v.*, w.* FROM (
  SELECT * FROM checkpoints WHERE thread = $1 AND ns = $2 AND ($3::text IS NULL OR id = $3)
  ORDER BY id DESC LIMIT 1
) c
CROSS JOIN LATERAL (
  SELECT array_agg(b.channel) AS value_channels, array_agg(b.type) AS value_types,
    array_agg(b.blob) AS value_blobs
  FROM unnest(c.channels, c.versions) AS named (channel, version)
  JOIN blobs b ON b.thread = c.thread AND b.ns = c.ns
    AND b.channel = named.channel AND b.version = named.version
) v
CROSS JOIN LATERAL (
  SELECT array_agg(task ORDER BY path, task, number) AS write_tasks,
    array_agg(channel ORDER BY path, task, number) AS write_channels,
    array_agg(type ORDER BY path, task, number) AS write_types,
    array_agg(blob ORDER BY path, task, number) AS write_blobs
  FROM writes WHERE writes.thread = c.thread AND writes.ns = c.ns AND writes.id = c.id
) w;

-- name: list_checkpoints
-- Checkpoints from the newest on, $6 of them: of thread $1, namespace $2, id $3, before id $4, with metadata $5, each where it is
-- not null; after the place ($7, $8, $9) of a page before.
SELECT c.*, v.*, w.* FROM (
  SELECT * FROM checkpoints
  WHERE ($1::text IS NULL OR thread = $1) AND ($2::text IS NULL OR ns = $2)
    AND ($3::text IS NULL OR id = $3) AND ($4::text IS NULL OR id < $4)
    AND ($5::text IS NULL OR metadata @> $5::text::jsonb)
    AND ($7::text IS NULL OR (id, thread, ns) < ($7, $8, $9))
  ORDER BY id DESC, thread DESC, ns DESC LIMIT $6
) c
CROSS JOIN LATERAL (
  SELECT array_agg(b.channel) AS value_channels, array_agg(b.type) AS value_types,
    array_agg(b.blob) AS value_blobs
  FROM unnest(c.channels, c.versions) AS named (channel, version)
  JOIN blobs b ON b.thread = c.thread AND b.ns = c.ns
    AND b.channel = named.channel AND b.version = named.version
) v
CROSS JOIN LATERAL (
  SELECT array_agg(task ORDER BY path, task, number) AS write_tasks,
    array_agg(channel ORDER BY path, task, number) AS write_channels,
    array_agg(type ORDER BY path, task, number) AS write_types,
    array_agg(blob ORDER BY path, task, number) AS write_blobs
  FROM writes WHERE writes.thread = c.thread AND writes.ns = c.ns AND writes.id = c.id
) w
ORDER BY c.id DESC, c.thread DESC, c.ns DESC;

-- name: has_checkpoint
-- Whether a checkpoint is stored.
SELECT EXISTS (SELECT FROM checkpoints WHERE thread = $1 AND ns = $2 AND id = $3);

-- name: delete_thread
-- Deletes a thread; false where somebody has leased it.
WITH may AS (
  SELECT NOT EXISTS (SELECT FROM leases WHERE thread = $1 AND until > clock_timestamp()) AS ok
), gone_checkpoints AS (
  DELETE FROM checkpoints USING may WHERE ok AND thread = $1
), gone_blobs AS (
  DELETE FROM blobs USING may WHERE ok AND thread = $1
), gone_writes AS (
  DELETE FROM writes USING may WHERE ok AND thread = $1
)
SELECT ok FROM may;

-- name: delete_runs
-- Deletes the checkpoints of runs, and what was written after them; returns where they were.
WITH gone AS (
  DELETE FROM checkpoints WHERE metadata ? 'run_id' AND metadata ->> 'run_id' = ANY ($1::text[])
  RETURNING thread, ns, id
), gone_writes AS (
  DELETE FROM writes USING gone
  WHERE writes.thread = gone.thread AND writes.ns = gone.ns AND writes.id = gone.id
)
SELECT DISTINCT thread, ns FROM gone;

-- name: delete_older
-- Deletes the checkpoints of a namespace of a thread that are older than $3, but for those in $4.
WITH gone AS (
  DELETE FROM checkpoints WHERE thread = $1 AND ns = $2 AND id < $3 AND id <> ALL ($4::text[])
  RETURNING id
)
DELETE FROM writes USING gone WHERE thread = $1 AND ns = $2 AND writes.id = gone.id;

-- name: delete_unused_blobs
-- Deletes the values of a namespace of a thread that no checkpoint has any more.
DELETE FROM blobs WHERE thread = $1 AND ns = $2 AND (channel, version) NOT IN (
  SELECT named.channel, named.version
  FROM checkpoints c CROSS JOIN LATERAL unnest(c.channels, c.versions) AS named (channel, version)
  WHERE c.thread = $1 AND c.ns = $2
);

-- name: heads
-- The newest checkpoint of each namespace of a thread.
SELECT DISTINCT ON (ns) ns, id, metadata -> 'counters_since_delta_snapshot' AS counters
FROM checkpoints WHERE thread = $1 ORDER BY ns, id DESC;

-- name: copy_thread
-- Copies thread $1 to thread $2; false where somebody has leased the latter.
WITH may AS (
  SELECT NOT EXISTS (SELECT FROM leases WHERE thread = $2 AND until > clock_timestamp()) AS ok
), put_blobs AS (
  INSERT INTO blobs (thread, ns, channel, version, type, blob)
  SELECT $2, ns, channel, version, type, blob FROM blobs, may WHERE ok AND thread = $1
  ON CONFLICT DO NOTHING
), put_writes AS (
  INSERT INTO writes (thread, ns, id, task, number, path, channel, type, blob)
  SELECT $2, ns, id, task, number, path, channel, type, blob FROM writes, may
  WHERE ok AND thread = $1
  ON CONFLICT DO NOTHING
), put_checkpoints AS (
  INSERT INTO checkpoints (thread, ns, id, parent, type, body, metadata, channels, versions)
  SELECT $2, ns, id, parent, type, body, metadata, channels, versions FROM checkpoints, may
  WHERE ok AND thread = $1
  ON CONFLICT DO NOTHING
)
SELECT ok FROM may;
