-- Messages that are too large for Redis. Compressing them again would cost more than it saves.
CREATE TABLE payloads (
  payload_id uuid PRIMARY KEY,
  identity bytea NOT NULL,
  message bytea NOT NULL,
  kept boolean NOT NULL,
  create_time timestamptz NOT NULL
);
ALTER TABLE payloads ALTER COLUMN message SET STORAGE EXTERNAL;
-- Those that are not acknowledged yet; a handful.
CREATE INDEX payloads_tentative ON payloads (identity) WHERE NOT kept;
