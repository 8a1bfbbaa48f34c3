-- name: role_of_connection
-- Who asks, and what it may do that no reader needs: with it, no transaction that only reads would keep it from anything.
select current_user as name, array_remove(array[
  case when bool_or(r.rolsuper) then 'a superuser' end,
  case when bool_or(r.rolcreaterole) then 'allowed to make roles' end,
  case when bool_or(r.rolcreatedb) then 'allowed to make databases' end,
  case when bool_or(r.rolreplication) then 'allowed to replicate' end,
  case when bool_or(r.rolbypassrls) then 'above row-level security' end,
  case when exists (
    select from pg_roles p where p.rolname in (
      'pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program', 'pg_signal_backend',
      'pg_read_all_settings', 'pg_read_all_stats', 'pg_monitor', 'pg_checkpoint', 'pg_maintain',
      'pg_write_all_data', 'pg_create_subscription', 'pg_use_reserved_connections', 'pg_stat_scan_tables',
      'pg_signal_autovacuum_worker'
    ) and pg_has_role(current_user, p.oid, 'member')
  ) then 'a member of a role of the server''s own' end
], null) as powers,
  has_database_privilege(current_database(), 'temporary') and not pg_is_in_recovery() as may_ask
from pg_roles r
where pg_has_role(current_user, r.oid, 'member') or pg_has_role(session_user, r.oid, 'member');

-- name: used_by_question
-- Tables, functions and operators (by their functions) in the tree of the view $1, as pg_rewrite keeps it. Names in the
-- tree have their spaces escaped, so none can hide or pretend to be a field.
with tree as (
  select ev_action::text as text from pg_rewrite where ev_class = $1::oid
), fields as (
  select field[1] as name, field[2]::oid as id
  from tree, regexp_matches(
    text, ' :(relid|funcid|opfuncid|aggfnoid|winfnoid|tsmhandler|startInRangeFunc|endInRangeFunc|opno|eqop|sortop) (\d+)', 'g'
  ) as field
  union
  select 'opno', op::oid
  from tree, regexp_matches(text, ' :opnos \(o ([0-9 ]+)\)', 'g') as list,
    regexp_split_to_table(trim(list[1]), '\s+') as op
), functions as (
  select 'function' as kind, id from fields
  where name not in ('relid', 'opfuncid', 'opno', 'eqop', 'sortop') and id <> 0
  union
  select 'operator', id from fields where name = 'opfuncid' and id <> 0
  union
  select 'operator', coalesce(o.oprcode::oid, fields.id)
  from fields left join pg_operator o on o.oid = fields.id
  where fields.name in ('opno', 'eqop', 'sortop') and fields.id <> 0
)
select 'table' as kind, coalesce(n.nspname, '?') as schema, coalesce(c.relname, fields.id::text) as name,
  null as volatility, false as builtin
from fields left join pg_class c on c.oid = fields.id left join pg_namespace n on n.oid = c.relnamespace
where fields.name = 'relid' and fields.id <> 0 and fields.id <> $1::oid
union all
select functions.kind, coalesce(n.nspname, '?'), coalesce(p.proname, functions.id::text), p.provolatile::text,
  coalesce(p.oid < 16384, false)
from functions left join pg_proc p on p.oid = functions.id left join pg_namespace n on n.oid = p.pronamespace;
