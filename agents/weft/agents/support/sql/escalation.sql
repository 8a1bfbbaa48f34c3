-- name: open_ticket
-- Opens a ticket; nothing comes back when one was opened with the same request id.
INSERT INTO tickets
  (ticket_id, request_id, conversation_id, question, reason, priority, state, create_time, due_time)
VALUES ('T-' || nextval('ticket_numbers'), $1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (request_id) DO NOTHING
RETURNING *;

-- name: ticket_of_request
-- The ticket that was opened with a request id.
SELECT * FROM tickets WHERE request_id = $1;

-- name: get_ticket
-- A ticket.
SELECT * FROM tickets WHERE ticket_id = $1;

-- name: lock_ticket
-- A ticket, held until the transaction ends.
SELECT * FROM tickets WHERE ticket_id = $1 FOR UPDATE;

-- name: claim_ticket
-- Gives a ticket to a person.
UPDATE tickets SET state = $2, assignee = $3 WHERE ticket_id = $1 RETURNING *;

-- name: answer_ticket
-- Answers a ticket.
UPDATE tickets SET state = $2, assignee = $3, answer = $4, answer_time = now() WHERE ticket_id = $1 RETURNING *;

-- name: raise_ticket
-- Gives a ticket another priority and due time.
UPDATE tickets SET priority = $2, due_time = $3 WHERE ticket_id = $1 RETURNING *;

-- name: list_tickets
-- Tickets of a state ($1, 0: any) and conversation ($2, empty: any), the most pressing first, from the first page.
SELECT * FROM tickets
WHERE ($1::int = 0 OR state = $1) AND ($2::text = '' OR conversation_id = $2)
ORDER BY state, -priority, due_time, ticket_id LIMIT $3;

-- name: list_tickets_behind
-- The same, behind the ticket at ($4, $5, $6, $7).
SELECT * FROM tickets
WHERE ($1::int = 0 OR state = $1) AND ($2::text = '' OR conversation_id = $2)
  AND (state, -priority, due_time, ticket_id) > ($4::int, -$5::int, $6::timestamptz, $7::text)
ORDER BY state, -priority, due_time, ticket_id LIMIT $3;
