-- Mails from customers and to them. answer: weft.support.v1.Answer.
CREATE TABLE mails (
  mail_id uuid PRIMARY KEY,
  address text NOT NULL,
  conversation_id text NOT NULL,
  outgoing boolean NOT NULL,
  subject text NOT NULL,
  text text NOT NULL,
  answer bytea NOT NULL,
  ticket_id text NOT NULL,
  mail_time timestamptz NOT NULL
);
-- ListMails goes by time.
CREATE INDEX mails_address ON mails (address, mail_time, mail_id);
CREATE INDEX mails_conversation ON mails (conversation_id, mail_time);
