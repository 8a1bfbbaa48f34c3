-- What operators want of agents. document: weft.v1.Control without instances.
CREATE TABLE controls (
  agent text PRIMARY KEY REFERENCES agents (name),
  document bytea NOT NULL,
  revision bigint NOT NULL DEFAULT 0,
  update_time timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX controls_revision ON controls (revision);

-- What operators did: one row for each change of a control. document: weft.v1.ControlEvent.
CREATE TABLE control_events (
  event bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  agent text NOT NULL REFERENCES agents (name),
  document bytea NOT NULL,
  create_time timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX control_events_agent ON control_events (agent, event);

CREATE FUNCTION controls_changed() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  UPDATE agents SET revision = take_revision() WHERE name IN (SELECT agent FROM after);
  RETURN NULL;
END $$;

CREATE TRIGGER number_statement BEFORE INSERT OR UPDATE ON controls
  FOR EACH STATEMENT EXECUTE FUNCTION number_statement();
CREATE TRIGGER number_row BEFORE INSERT OR UPDATE ON controls FOR EACH ROW EXECUTE FUNCTION number_row();
CREATE TRIGGER came AFTER INSERT ON controls
  REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION controls_changed();
CREATE TRIGGER changed AFTER UPDATE ON controls
  REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION controls_changed();
