-- Checkpoints of threads. body: the checkpoint, serialized, without the values that lie in `blobs`, which `channels` and
-- `versions` name. Texts compare by bytes: ids of checkpoints sort by time.
CREATE TABLE checkpoints (
  thread text COLLATE "C" NOT NULL,
  ns text COLLATE "C" NOT NULL,
  id text COLLATE "C" NOT NULL,
  parent text COLLATE "C",
  type text NOT NULL,
  body bytea NOT NULL,
  metadata jsonb NOT NULL,
  channels text[] NOT NULL,
  versions text[] NOT NULL,
  PRIMARY KEY (thread, ns, id)
);
CREATE INDEX checkpoints_run ON checkpoints ((metadata ->> 'run_id')) WHERE metadata ? 'run_id';

-- Values of channels, each stored once for the checkpoints that have it.
CREATE TABLE blobs (
  thread text COLLATE "C" NOT NULL,
  ns text COLLATE "C" NOT NULL,
  channel text COLLATE "C" NOT NULL,
  version text COLLATE "C" NOT NULL,
  type text NOT NULL,
  blob bytea NOT NULL,
  PRIMARY KEY (thread, ns, channel, version)
);

-- What tasks wrote after a checkpoint. They may be here before it.
CREATE TABLE writes (
  thread text COLLATE "C" NOT NULL,
  ns text COLLATE "C" NOT NULL,
  id text COLLATE "C" NOT NULL,
  task text COLLATE "C" NOT NULL,
  number integer NOT NULL,
  path text COLLATE "C" NOT NULL,
  channel text NOT NULL,
  type text NOT NULL,
  blob bytea NOT NULL,
  PRIMARY KEY (thread, ns, id, task, number)
);

-- Who may write to a thread. No fence is given out twice.
CREATE SEQUENCE fences;
CREATE TABLE leases (
  thread text COLLATE "C" PRIMARY KEY,
  fence bigint NOT NULL,
  until timestamptz NOT NULL
);
