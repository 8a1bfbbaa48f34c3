-- Messages that are too large for Redis. Compressing them again would cost more than it saves.
CREATE TABLE payloads (
  payload_id uuid PRIMARY KEY,
  message bytea NOT NULL,
  create_time timestamptz NOT NULL
);
ALTER TABLE payloads ALTER COLUMN message SET STORAGE EXTERNAL;
CREATE INDEX payloads_create_time ON payloads (create_time);
