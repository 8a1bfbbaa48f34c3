-- One row for each start of the registry; its number begins that run's revisions.
CREATE TABLE runs (
  run bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  start_time timestamptz NOT NULL DEFAULT now()
);

-- Agents that were ever registered. document: weft.v1.Agent without instances.
CREATE TABLE agents (
  name text PRIMARY KEY,
  document bytea NOT NULL,
  create_time timestamptz NOT NULL DEFAULT now(),
  update_time timestamptz NOT NULL DEFAULT now()
);

-- Instances that hold a lease. document: weft.v1.Instance as announced, without load.
CREATE TABLE instances (
  instance_id text PRIMARY KEY,
  agent text NOT NULL REFERENCES agents (name),
  lease_id text NOT NULL,
  document bytea NOT NULL,
  update_time timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX instances_agent ON instances (agent);

-- google.protobuf.FileDescriptorSet by SHA-256.
CREATE TABLE descriptors (
  digest text PRIMARY KEY CHECK (digest ~ '^[0-9a-f]{64}$'),
  content bytea NOT NULL,
  create_time timestamptz NOT NULL DEFAULT now()
);

-- Services and capabilities that were ever registered: for them "nobody is there" is not "unknown".
CREATE TABLE names (
  kind text NOT NULL CHECK (kind IN ('service', 'capability')),
  name text NOT NULL,
  PRIMARY KEY (kind, name)
);
