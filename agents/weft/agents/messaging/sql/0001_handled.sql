-- Messages whose effects are in this schema, with what was answered. identity: "sender/id".
CREATE TABLE handled_messages (
  identity text PRIMARY KEY,
  result bytea NOT NULL,
  handle_time timestamptz NOT NULL
);
CREATE INDEX handled_messages_time ON handled_messages (handle_time);
