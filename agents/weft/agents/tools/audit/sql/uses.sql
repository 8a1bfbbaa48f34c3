-- name: put_use
-- Records a use; of one that is recorded already, what came of it.
insert into uses (
  id, began, tool, subject, tenant, skill, conversation, cause, trace_id, arguments,
  outcome, reason, duration, kept
) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
on conflict (id) do update set outcome = excluded.outcome, reason = excluded.reason, duration = excluded.duration
where uses.outcome = 'RUNNING';

-- name: end_use
-- Records what came of a use; what came first stays.
update uses set outcome = $2, reason = $3, duration = $4
where id = $1 and outcome = 'RUNNING';

-- name: find_uses
-- The last uses of a tenant's conversation.
select id, began, tool, subject, tenant, skill, conversation, cause, trace_id, arguments,
  outcome, reason, duration, kept
from uses where tenant = $1 and conversation = $2
order by began desc, id limit $3;

-- name: latest_uses
-- The latest uses of all; what is empty is any.
select id, began, tool, subject, tenant, skill, conversation, cause, trace_id, arguments,
  outcome, reason, duration, kept
from uses
where ($1 = '' or tool = $1) and ($2 = '' or subject = $2) and ($3 = '' or tenant = $3)
  and ($4 = '' or conversation = $4) and ($5 = '' or outcome = $5)
order by began desc, id limit $6;

-- name: forget_uses
-- Forgets uses that began long ago.
delete from uses where began < now() - $1::interval;
