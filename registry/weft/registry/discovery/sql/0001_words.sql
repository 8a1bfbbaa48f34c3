-- What agents and their skills say of themselves, to be looked for. method: gRPC path of the skill; '' is the agent
-- with all its skills. digest: of what the row was made from, so that equal words are not written again.
CREATE TABLE words (
  agent text NOT NULL,
  method text NOT NULL,
  digest text NOT NULL,
  vector tsvector NOT NULL,
  PRIMARY KEY (agent, method)
);

CREATE INDEX words_vector ON words USING gin (vector);
