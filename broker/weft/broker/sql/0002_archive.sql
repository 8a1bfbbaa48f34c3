-- Messages that are finished. entry_id: of their last attempt, unique in the queue. outcome: weft.v1.Outcome. History and
-- Replay go by time, and so does the key; in the order of bytes, as the broker sorts what it adds from Redis.
CREATE TABLE messages (
  queue text COLLATE "C" NOT NULL,
  entry_id text COLLATE "C" NOT NULL,
  message_id text COLLATE "C" NOT NULL,
  sender text NOT NULL,
  msg_key text COLLATE "C" NOT NULL,
  topic text NOT NULL,
  method text NOT NULL,
  correlation_id text NOT NULL,
  conversation text NOT NULL,
  publish_time timestamptz NOT NULL,
  finish_time timestamptz NOT NULL,
  outcome smallint NOT NULL,
  attempts int NOT NULL,
  consumer text NOT NULL,
  message bytea NOT NULL,
  PRIMARY KEY (queue, publish_time, entry_id)
);
CREATE INDEX messages_id ON messages (queue, message_id);
CREATE INDEX messages_key ON messages (queue, msg_key, publish_time) WHERE msg_key <> '';

-- How many messages each queue had accepted when it was last looked at: Redis never knows of fewer.
CREATE TABLE marks (
  queue text PRIMARY KEY,
  published bigint NOT NULL,
  save_time timestamptz NOT NULL
);
