-- Workflows by version. What is compiled from them is found again by `number` alone.
CREATE TABLE workflows (
    number      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant      text        NOT NULL,
    name        text        NOT NULL,
    -- From 1. 0: it was begun once without being stored under its name.
    version     bigint      NOT NULL,
    -- SHA-256 of the spec.
    digest      bytea       NOT NULL,
    -- weft.v1.WorkflowSpec.
    spec        bytea       NOT NULL,
    -- What the compiler has to know of the world to compile it again: a run stays with the types that it began with.
    world       bytea       NOT NULL,
    output_type text        NOT NULL,
    subject     text        NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX workflows_version ON workflows (tenant, name, version) WHERE version > 0;
CREATE UNIQUE INDEX workflows_unnamed ON workflows (tenant, digest) WHERE version = 0;

-- Descriptor sets of agents (google.protobuf.FileDescriptorSet), by SHA-256, that workflows were compiled with.
CREATE TABLE descriptor_sets (
    digest  text  PRIMARY KEY,
    content bytea NOT NULL
);

CREATE TABLE runs (
    number      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant      text        NOT NULL,
    id          text        NOT NULL,
    workflow    bigint      NOT NULL REFERENCES workflows (number),
    -- Name and version of the workflow, for lists.
    name        text        NOT NULL,
    version     bigint      NOT NULL,
    subject     text        NOT NULL,
    -- weft.v1.Identity; empty: nobody said who began it.
    identity    bytea       NOT NULL,
    traceparent text        NOT NULL,
    -- The step of a run that it is. NULL and empty: it is none.
    parent      bigint      REFERENCES runs (number),
    parent_id   text        NOT NULL DEFAULT '',
    parent_step text        NOT NULL DEFAULT '',
    retry_of    text        NOT NULL DEFAULT '',
    -- Id of the run that the first of those was that it goes on from, else its own: what chance settled there stays.
    origin      text        NOT NULL,
    -- Digest of what it was asked for with: a second call with its id has to be the same.
    asked       bytea       NOT NULL,
    input       bytea       NOT NULL,
    state       text        NOT NULL DEFAULT 'QUEUED'
                CHECK (state IN ('QUEUED', 'RUNNING', 'WAITING', 'SUCCEEDED', 'FAILED', 'CANCELLED')),
    cancelling  boolean     NOT NULL DEFAULT false,
    -- Fencing token: whoever has it shows the number it was given with its lease.
    fence       bigint      NOT NULL DEFAULT 0,
    -- When some worker has to look at it: at once, at the earliest time that it waits for, when the lease of its worker
    -- runs out. NULL: it has ended.
    due         timestamptz DEFAULT now(),
    -- How often something happened to it from outside: whoever suspends it shows what it has seen.
    wakes       bigint      NOT NULL DEFAULT 0,
    -- Leases that ran out since it was last suspended.
    losses      integer     NOT NULL DEFAULT 0,
    -- Until when somebody in another process watches.
    watched     timestamptz NOT NULL DEFAULT '-infinity',
    create_time timestamptz NOT NULL DEFAULT now(),
    end_time    timestamptz,
    deadline    timestamptz NOT NULL,
    -- How it ended: with a message, or a weft.v1.StepFailure.
    output_type text        NOT NULL DEFAULT '',
    output      bytea,
    failure     bytea
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX runs_id ON runs (tenant, id);
CREATE UNIQUE INDEX runs_step ON runs (parent, parent_step) WHERE parent IS NOT NULL;
CREATE INDEX runs_of_tenant ON runs (tenant, number);
CREATE INDEX runs_open ON runs (tenant, subject) WHERE end_time IS NULL;
CREATE INDEX runs_due ON runs (due) WHERE due IS NOT NULL;

-- What happened, each a weft.v1.RunEvent: the state of a run is what its events say, one after the other. That the run is
-- there is checked by whatever adds one, with its fence: a foreign key would look for it once more at each event.
CREATE TABLE run_events (
    run    bigint NOT NULL,
    number bigint NOT NULL,
    event  bytea  NOT NULL,
    PRIMARY KEY (run, number)
);

-- Messages from outside, whether a step waits for them yet or not.
CREATE TABLE signals (
    number  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run     bigint NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    name    text   NOT NULL,
    -- The sender's own key. Empty: each is one.
    key     text   NOT NULL,
    type    text   NOT NULL,
    message bytea  NOT NULL,
    -- The step that took it; empty: none so far.
    step    text   NOT NULL DEFAULT ''
);
CREATE INDEX signals_of_run ON signals (run, name, number);
CREATE UNIQUE INDEX signals_key ON signals (run, name, key) WHERE key <> '';

CREATE TABLE approvals (
    id          text        PRIMARY KEY,
    number      bigint      GENERATED ALWAYS AS IDENTITY UNIQUE,
    tenant      text        NOT NULL,
    run         bigint      NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    run_id      text        NOT NULL,
    workflow    text        NOT NULL,
    step        text        NOT NULL,
    title       text        NOT NULL,
    -- What is to be decided now, and its SHA-256: approving it with changes shows the changed message to who is next.
    shown_type  text        NOT NULL,
    shown       bytea       NOT NULL,
    digest      text        NOT NULL,
    edited      boolean     NOT NULL DEFAULT false,
    scope       text        NOT NULL,
    own         boolean     NOT NULL,
    -- Who began the run.
    beginner    text        NOT NULL,
    quorum      integer     NOT NULL,
    editable    boolean     NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    expire_time timestamptz,
    -- The end of its run at the latest.
    until       timestamptz NOT NULL,
    -- Who approved `digest`, and the identities (weft.v1.Identity) that they did so with.
    approvers   text[]      NOT NULL DEFAULT '{}',
    identities  bytea[]     NOT NULL DEFAULT '{}',
    verdict     text        CHECK (verdict IN ('APPROVED', 'REJECTED', 'EXPIRED')),
    subject     text        NOT NULL DEFAULT '',
    comment     text        NOT NULL DEFAULT '',
    decide_time timestamptz,
    webhook_url text        NOT NULL,
    UNIQUE (run, step)
);
CREATE INDEX approvals_open ON approvals (tenant, until, number) WHERE verdict IS NULL;
CREATE INDEX approvals_all ON approvals (tenant, until, number);

-- What is to be told of approvals.
CREATE TABLE webhooks (
    id          text        PRIMARY KEY,
    tenant      text        NOT NULL,
    url         text        NOT NULL,
    body        bytea       NOT NULL,
    state       text        NOT NULL DEFAULT 'PENDING' CHECK (state IN ('PENDING', 'DELIVERED', 'DEAD')),
    attempts    integer     NOT NULL DEFAULT 0,
    due         timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    problem     text        NOT NULL DEFAULT ''
);
CREATE INDEX webhooks_due ON webhooks (due) WHERE state = 'PENDING';
CREATE INDEX webhooks_over ON webhooks (update_time) WHERE state <> 'PENDING';

-- What webhooks of a tenant are signed with.
CREATE TABLE webhook_secrets (
    tenant text  PRIMARY KEY,
    secret bytea NOT NULL
);

-- A run that has ended never changes.
CREATE FUNCTION run_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'run % has ended', old.number;
END $$;
CREATE TRIGGER run_stays BEFORE UPDATE OF state ON runs FOR EACH ROW
    WHEN (old.end_time IS NOT NULL AND old.state <> new.state) EXECUTE FUNCTION run_stays();

-- Wakes workers ("due"), the worker of a run ("wake:NUMBER") and its watchers ("ended:NUMBER").
CREATE FUNCTION run_told() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF new.end_time IS NOT NULL THEN
        PERFORM pg_notify(TG_TABLE_SCHEMA || '_runs', 'ended:' || new.number);
    ELSIF new.state = 'RUNNING' THEN
        PERFORM pg_notify(TG_TABLE_SCHEMA || '_runs', 'wake:' || new.number);
    ELSIF new.due <= now() THEN
        PERFORM pg_notify(TG_TABLE_SCHEMA || '_runs', 'due');
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER run_made AFTER INSERT ON runs FOR EACH ROW EXECUTE FUNCTION run_told();
CREATE TRIGGER run_changed AFTER UPDATE OF state, wakes ON runs FOR EACH ROW
    WHEN (old.wakes <> new.wakes OR old.state = 'RUNNING' AND new.state <> 'RUNNING') EXECUTE FUNCTION run_told();

-- Wakes watchers of approvals ("approval:ID"), and tells the webhook that a decision is asked for or was made.
CREATE FUNCTION approval_told() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify(TG_TABLE_SCHEMA || '_runs', 'approval:' || new.id);
    RETURN NULL;
END $$;
CREATE TRIGGER approval_told AFTER INSERT OR UPDATE ON approvals FOR EACH ROW EXECUTE FUNCTION approval_told();

CREATE FUNCTION webhook_told() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify(TG_TABLE_SCHEMA || '_runs', 'webhook');
    RETURN NULL;
END $$;
CREATE TRIGGER webhook_told AFTER INSERT ON webhooks FOR EACH ROW EXECUTE FUNCTION webhook_told();

-- Ends a run that is held by a fence, with its last events; whether it was. Locks go from a run down to those that are its
-- steps, and up to the one whose step it is at last: no two that end lock each other out.
CREATE FUNCTION end_run(
    held bigint, held_fence bigint, numbers bigint[], events bytea[], ended_as text, result_type text, result bytea,
    result_failure bytea
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    above bigint;
BEGIN
    UPDATE runs
    SET state = ended_as, output_type = result_type, output = result, failure = result_failure, end_time = now(), due = NULL
    WHERE number = held AND fence = held_fence AND state = 'RUNNING'
    RETURNING parent INTO above;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO run_events (run, number, event)
    SELECT held, one.number, one.event FROM unnest(numbers, events) AS one (number, event)
    ON CONFLICT DO NOTHING;
    UPDATE approvals SET verdict = 'EXPIRED', decide_time = now(), comment = 'The run has ended.'
    WHERE run = held AND verdict IS NULL;
    UPDATE runs
    SET cancelling = true, wakes = wakes + 1, due = CASE WHEN state = 'RUNNING' THEN due ELSE now() END
    WHERE parent = held AND end_time IS NULL AND NOT cancelling;
    IF above IS NOT NULL THEN
        UPDATE runs SET wakes = wakes + 1, due = CASE WHEN state = 'RUNNING' THEN due ELSE now() END
        WHERE number = above AND end_time IS NULL;
    END IF;
    RETURN true;
END $$;
