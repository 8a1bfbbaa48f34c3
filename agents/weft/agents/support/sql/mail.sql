-- name: put_mail
-- Keeps a mail, once.
INSERT INTO mails
  (mail_id, address, conversation_id, outgoing, subject, text, answer, ticket_id, mail_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (mail_id) DO NOTHING;

-- name: first_mail
-- The mail that began a conversation.
SELECT * FROM mails WHERE conversation_id = $1 AND NOT outgoing ORDER BY mail_time LIMIT 1;

-- name: list_mails
-- Mails of an address ($1) and conversation ($2, empty: any), oldest first, behind the mail at ($3, $4).
SELECT * FROM mails
WHERE address = $1 AND ($2::text = '' OR conversation_id = $2)
  AND (mail_time, mail_id) > ($3::timestamptz, $4::uuid)
ORDER BY mail_time, mail_id LIMIT $5;
