-- A row for each use of a tool; also of those that were refused.
create table uses (
  id uuid primary key,
  began timestamptz not null,
  tool text not null,
  subject text not null,
  tenant text not null,
  skill text not null,
  conversation text not null,
  cause text not null,
  trace_id text not null,
  arguments jsonb,
  outcome text not null,
  reason text not null,
  duration interval not null,
  kept boolean not null
);

create index uses_of_conversations on uses (tenant, conversation, began);
create index uses_by_time on uses (began);
