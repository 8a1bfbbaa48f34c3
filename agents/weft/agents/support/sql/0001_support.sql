-- One sequence numbers every change of a triage model, so that a model deleted and taught again never looks unchanged.
CREATE SEQUENCE triage_revisions;

-- Models that were taught.
CREATE TABLE triage_models (
  model text PRIMARY KEY,
  revision bigint NOT NULL,
  update_time timestamptz NOT NULL
);

-- What they were taught. digest: SHA-256 of the text, for a text can be longer than an index entry.
CREATE TABLE triage_examples (
  model text NOT NULL REFERENCES triage_models ON DELETE CASCADE,
  digest bytea NOT NULL,
  text text NOT NULL,
  intent text NOT NULL,
  PRIMARY KEY (model, digest)
);

-- Articles of the knowledge base. digest: SHA-256 of the Markdown. anchors, section_digests: of the passages it was cut into, in
-- order; the passages are documents of weft.agents.memory, in this schema.
CREATE TABLE articles (
  article_id text PRIMARY KEY,
  title text NOT NULL,
  markdown text NOT NULL,
  intents text[] NOT NULL,
  anchors text[] NOT NULL,
  section_digests bytea[] NOT NULL,
  digest bytea NOT NULL,
  update_time timestamptz NOT NULL
);
-- ListArticles goes by title.
CREATE INDEX articles_title ON articles (title, article_id);

-- Digests of the shipped articles as they were last imported, so that an upgrade replaces an article
-- that changed in the shipment and nothing else, not even what people imported over it.
CREATE TABLE shipped_articles (
  article_id text PRIMARY KEY,
  digest bytea NOT NULL
);

CREATE SEQUENCE ticket_numbers START 1001;

-- Tickets for people. priority: weft.support.v1.Urgency. state: weft.support.v1.TicketState.
CREATE TABLE tickets (
  ticket_id text PRIMARY KEY,
  request_id uuid NOT NULL UNIQUE,
  conversation_id text NOT NULL,
  question text NOT NULL,
  reason text NOT NULL,
  priority int NOT NULL,
  state int NOT NULL,
  create_time timestamptz NOT NULL,
  due_time timestamptz NOT NULL,
  assignee text NOT NULL DEFAULT '',
  answer text NOT NULL DEFAULT '',
  answer_time timestamptz
);
-- ListTickets, the most pressing first.
CREATE INDEX tickets_pressing ON tickets (state, (-priority), due_time, ticket_id);
CREATE INDEX tickets_conversation ON tickets (conversation_id);
