-- name: lock_schema
-- Lets one process at a time migrate a schema, until the transaction ends.
SELECT pg_advisory_xact_lock(hashtext('weft.migrations'), hashtext($1));

-- name: create_schema
-- Makes the schema this connection looks into.
DO $$ BEGIN EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I', current_setting('search_path')); END $$;

-- name: create_migrations
-- Makes the list of the migrations that were run. digest: SHA-256 of the text.
CREATE TABLE IF NOT EXISTS weft_migrations (
  name text PRIMARY KEY,
  digest text NOT NULL,
  create_time timestamptz NOT NULL DEFAULT now()
);

-- name: has_migrations
-- Whether a schema has that list.
SELECT EXISTS (
  SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = $1 AND c.relname = 'weft_migrations'
);

-- name: migrates
-- Whether this session is told to run no migrations: "off".
SELECT current_setting('weft.migrate', true);

-- name: bound_locks
-- How long a migration waits for a table that somebody uses: whoever comes after it waits as well. Until the transaction ends.
SET LOCAL lock_timeout = '5s';

-- name: all_migrations
-- Every migration that was run.
SELECT name, digest FROM weft_migrations ORDER BY name;

-- name: put_migration
-- Notes that a migration was run.
INSERT INTO weft_migrations (name, digest) VALUES ($1, $2);
