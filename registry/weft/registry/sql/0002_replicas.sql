-- Several registries on one database. Triggers number every change, so that an earlier version, which knows nothing of
-- revisions, can go on writing while the later one starts beside it.

-- The latest revision. Whoever changes anything takes the next one and keeps this row locked until it commits: so
-- revisions become visible in their order, and who has read up to one has missed none.
-- Begun at the time in milliseconds: greater than what a run before, or a database before it was restored, gave out.
CREATE TABLE revision (
  last bigint NOT NULL,
  floor bigint NOT NULL,   -- where this epoch began: at the start of a registry that was the only one
  horizon bigint NOT NULL  -- departures up to here are forgotten
);

CREATE UNIQUE INDEX revision_is_one ON revision ((true));

INSERT INTO revision (last, floor, horizon)
SELECT now_ms, now_ms, now_ms FROM (SELECT (extract(epoch FROM now()) * 1000)::bigint) AS clock (now_ms);

-- Registries that run. One whose beat_time is old and that does not answer is dead: its leases go to another.
CREATE TABLE replicas (
  replica text PRIMARY KEY,
  address text NOT NULL,
  start_time timestamptz NOT NULL DEFAULT now(),
  beat_time timestamptz NOT NULL DEFAULT now(),
  warm_time timestamptz NOT NULL,  -- until when clients keep what they know of agents that are unknown here
  position bigint NOT NULL DEFAULT 0,
  leases integer NOT NULL DEFAULT 0
);

-- What instances report of themselves, by replica: each overwrites its own row. Lost with the server, and soon there again.
CREATE UNLOGGED TABLE loads (
  replica text PRIMARY KEY,
  number bigint NOT NULL,
  document bytea NOT NULL  -- weft.v1.LoadReport
);

-- revision of an agent: of the last change that others see, of itself or an instance. In all other tables: of the row.
ALTER TABLE agents ADD COLUMN revision bigint NOT NULL DEFAULT 0;
ALTER TABLE descriptors ADD COLUMN revision bigint NOT NULL DEFAULT 0;
ALTER TABLE names ADD COLUMN revision bigint NOT NULL DEFAULT 0;
ALTER TABLE instances
  ADD COLUMN revision bigint NOT NULL DEFAULT 0,
  ADD COLUMN registered bigint NOT NULL DEFAULT 0,  -- revision of its registration: the last one decides about services
  ADD COLUMN replica text,                          -- who holds the lease; null: a registry of an earlier version
  ADD COLUMN fault text NOT NULL DEFAULT '';        -- what health probes say; empty: healthy

CREATE TABLE departures (
  instance_id text PRIMARY KEY,
  revision bigint NOT NULL,
  depart_time timestamptz NOT NULL DEFAULT now()
);

UPDATE agents SET revision = (SELECT last FROM revision);
UPDATE descriptors SET revision = (SELECT last FROM revision);
UPDATE names SET revision = (SELECT last FROM revision);
UPDATE instances SET revision = (SELECT last FROM revision);

CREATE INDEX agents_revision ON agents (revision);
CREATE INDEX descriptors_revision ON descriptors (revision);
CREATE INDEX names_revision ON names (revision);
CREATE INDEX instances_revision ON instances (revision);
CREATE INDEX departures_revision ON departures (revision);

-- The revision of this transaction, and the lock that orders it.
CREATE FUNCTION take_revision(at_least bigint DEFAULT 0) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  taken bigint := nullif(current_setting('weft.registry_revision', true), '')::bigint;
BEGIN
  IF taken IS NULL THEN
    UPDATE revision SET last = greatest(last + 1, at_least) RETURNING last INTO taken;
    PERFORM set_config('weft.registry_revision', taken::text, true);
    PERFORM pg_notify('weft_registry', taken::text);
  END IF;
  RETURN taken;
END $$;

-- Before any row is locked: two that lock rows first and the revision after could wait for each other.
CREATE FUNCTION number_statement() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM take_revision();
  RETURN NULL;
END $$;

CREATE FUNCTION number_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.revision := current_setting('weft.registry_revision')::bigint;
  RETURN NEW;
END $$;

-- Earlier versions say nothing of replicas; their connections have another name.
CREATE FUNCTION number_instance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.revision := current_setting('weft.registry_revision')::bigint;
  IF current_setting('application_name') = 'weft-registry' THEN
    NEW.replica := NULL;
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION instances_came() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  DELETE FROM departures WHERE instance_id IN (SELECT instance_id FROM after);
  UPDATE agents SET revision = take_revision() WHERE name IN (SELECT agent FROM after);
  RETURN NULL;
END $$;

CREATE FUNCTION instances_changed() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  UPDATE agents SET revision = take_revision() WHERE name IN (
    SELECT unnest(ARRAY[was.agent, now.agent])
    FROM before AS was JOIN after AS now USING (instance_id)
    WHERE (was.agent, was.document, was.fault) IS DISTINCT FROM (now.agent, now.document, now.fault)
  );
  RETURN NULL;
END $$;

CREATE FUNCTION instances_went() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  INSERT INTO departures (instance_id, revision) SELECT instance_id, take_revision() FROM before
  ON CONFLICT (instance_id) DO UPDATE SET revision = excluded.revision, depart_time = now();
  UPDATE agents SET revision = take_revision() WHERE name IN (SELECT agent FROM before);
  RETURN NULL;
END $$;

CREATE TRIGGER number_statement BEFORE INSERT OR UPDATE ON agents
  FOR EACH STATEMENT EXECUTE FUNCTION number_statement();
CREATE TRIGGER number_statement BEFORE INSERT OR UPDATE ON descriptors
  FOR EACH STATEMENT EXECUTE FUNCTION number_statement();
CREATE TRIGGER number_statement BEFORE INSERT OR UPDATE ON names
  FOR EACH STATEMENT EXECUTE FUNCTION number_statement();
CREATE TRIGGER number_statement BEFORE INSERT OR UPDATE OR DELETE ON instances
  FOR EACH STATEMENT EXECUTE FUNCTION number_statement();

CREATE TRIGGER number_row BEFORE INSERT OR UPDATE ON agents FOR EACH ROW EXECUTE FUNCTION number_row();
CREATE TRIGGER number_row BEFORE INSERT OR UPDATE ON descriptors FOR EACH ROW EXECUTE FUNCTION number_row();
CREATE TRIGGER number_row BEFORE INSERT OR UPDATE ON names FOR EACH ROW EXECUTE FUNCTION number_row();
CREATE TRIGGER number_row BEFORE INSERT OR UPDATE ON instances FOR EACH ROW EXECUTE FUNCTION number_instance();

CREATE TRIGGER came AFTER INSERT ON instances
  REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION instances_came();
CREATE TRIGGER changed AFTER UPDATE ON instances
  REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION instances_changed();
CREATE TRIGGER went AFTER DELETE ON instances
  REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION instances_went();
