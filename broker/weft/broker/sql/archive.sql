-- name: archive_messages
-- Keeps messages, each once.
INSERT INTO messages
  (queue, entry_id, message_id, sender, msg_key, topic, method, correlation_id, conversation,
   publish_time, finish_time, outcome, attempts, consumer, message)
SELECT * FROM unnest(
  $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
  $10::timestamptz[], $11::timestamptz[], $12::smallint[], $13::int[], $14::text[], $15::bytea[]
)
ON CONFLICT DO NOTHING;

-- name: newest_messages
-- Messages of a queue ($1) before a time and entry ($2, $3), newest first; empty conditions hold for all.
SELECT * FROM messages
WHERE queue = $1 AND (publish_time, entry_id) < ($2::timestamptz, $3::text)
  AND ($4::timestamptz IS NULL OR publish_time >= $4) AND ($5::timestamptz IS NULL OR publish_time < $5)
  AND ($6::text = '' OR message_id = $6) AND ($7::text = '' OR msg_key = $7) AND ($8::text = '' OR sender = $8)
  AND ($9::text = '' OR method = $9) AND ($10::text = '' OR topic = $10)
  AND ($11::text = '' OR correlation_id = $11) AND ($12::text = '' OR conversation = $12)
  AND ($13::int = 0 OR outcome = $13)
ORDER BY publish_time DESC, entry_id DESC LIMIT $14;

-- name: oldest_messages
-- The same behind a time and entry, oldest first.
SELECT * FROM messages
WHERE queue = $1 AND (publish_time, entry_id) > ($2::timestamptz, $3::text)
  AND ($4::timestamptz IS NULL OR publish_time >= $4) AND ($5::timestamptz IS NULL OR publish_time < $5)
  AND ($6::text = '' OR message_id = $6) AND ($7::text = '' OR msg_key = $7) AND ($8::text = '' OR sender = $8)
  AND ($9::text = '' OR method = $9) AND ($10::text = '' OR topic = $10)
  AND ($11::text = '' OR correlation_id = $11) AND ($12::text = '' OR conversation = $12)
  AND ($13::int = 0 OR outcome = $13)
ORDER BY publish_time, entry_id LIMIT $14;

-- name: has_messages
-- Whether a queue has anything in the archive.
SELECT EXISTS (SELECT FROM messages WHERE queue = $1);

-- name: archived_queues
-- Queues that have something in the archive: a step in the index for each, where DISTINCT reads all rows
-- (wiki.postgresql.org/wiki/Loose_indexscan).
WITH RECURSIVE found AS (
  (SELECT queue FROM messages ORDER BY queue LIMIT 1)
  UNION ALL
  SELECT (SELECT queue FROM messages WHERE queue > found.queue ORDER BY queue LIMIT 1) FROM found WHERE queue IS NOT NULL
)
SELECT queue FROM found WHERE queue IS NOT NULL;

-- name: drop_messages
-- Forgets up to $3 messages of a queue that were finished before a time; then they were accepted before it too, which the
-- index knows.
DELETE FROM messages WHERE ctid = ANY(ARRAY(
  SELECT ctid FROM messages WHERE queue = $1 AND publish_time < $2 AND finish_time < $2 LIMIT $3
));

-- name: load_marks
-- All marks.
SELECT queue, published FROM marks;

-- name: save_marks
-- Moves marks.
INSERT INTO marks (queue, published, save_time)
SELECT queue, published, now() FROM unnest($1::text[], $2::bigint[]) AS given (queue, published)
ON CONFLICT (queue) DO UPDATE SET published = excluded.published, save_time = excluded.save_time;

-- name: drop_mark
-- Forgets the mark of a queue that is gone.
DELETE FROM marks WHERE queue = $1;
