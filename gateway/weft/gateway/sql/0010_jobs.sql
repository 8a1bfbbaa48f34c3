-- Calls that nobody waits for on a connection. A job is stored before it is accepted, and ends once.
CREATE TABLE jobs (
    id             text        PRIMARY KEY,
    -- Order of lists.
    number         bigint      GENERATED ALWAYS AS IDENTITY UNIQUE,
    tenant         text        NOT NULL,
    subject        text        NOT NULL,
    -- Which door made it, such as "call" or "a2a", and what it made of it: for that door alone.
    kind           text        NOT NULL,
    context        text        NOT NULL,
    note           bytea       NOT NULL,
    -- The caller's idempotency key. NULL: none.
    key            text,
    agent          text        NOT NULL,
    method         text        NOT NULL,
    request        bytea       NOT NULL,
    -- weft.v1.Identity.
    identity       bytea       NOT NULL,
    traceparent    text        NOT NULL,
    -- Whether its method answers with a stream; whether it may be called twice.
    streams        boolean     NOT NULL,
    repeatable     boolean     NOT NULL,
    state          text        NOT NULL DEFAULT 'QUEUED'
                   CHECK (state IN ('QUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED')),
    cancelling     boolean     NOT NULL DEFAULT false,
    -- Fencing token: whoever runs it shows the number it was given with its lease.
    fence          bigint      NOT NULL DEFAULT 0,
    -- Leases that ran out.
    losses         integer     NOT NULL DEFAULT 0,
    lease_until    timestamptz,
    -- Not to be run before.
    due            timestamptz NOT NULL DEFAULT now(),
    create_time    timestamptz NOT NULL DEFAULT now(),
    start_time     timestamptz,
    update_time    timestamptz NOT NULL DEFAULT now(),
    end_time       timestamptz,
    deadline       timestamptz NOT NULL,
    -- For how long it is kept when it has ended, and until when.
    keep           interval    NOT NULL,
    expire_time    timestamptz,
    -- The response message; google.rpc.Status where there is none.
    response       bytea,
    status         bytea,
    -- Messages of its stream so far.
    messages       bigint      NOT NULL DEFAULT 0,
    webhook_url    text        NOT NULL,
    webhook_secret bytea       NOT NULL
);
CREATE INDEX jobs_of_caller ON jobs (tenant, subject, number);
CREATE UNIQUE INDEX jobs_key ON jobs (tenant, subject, key) WHERE key IS NOT NULL;
CREATE INDEX jobs_open_of_caller ON jobs (tenant, subject) WHERE state IN ('QUEUED', 'RUNNING');
CREATE INDEX jobs_queued ON jobs (due) WHERE state = 'QUEUED';
CREATE INDEX jobs_running ON jobs (lease_until) WHERE state = 'RUNNING';
CREATE INDEX jobs_expire ON jobs (expire_time) WHERE expire_time IS NOT NULL;

-- The newest messages of streams.
CREATE TABLE job_messages (
    job     text   NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    number  bigint NOT NULL,
    content bytea  NOT NULL,
    PRIMARY KEY (job, number)
);

-- What callers are to be told of jobs that ended. A row outlives its job.
CREATE TABLE job_webhooks (
    id          text        PRIMARY KEY,
    number      bigint      GENERATED ALWAYS AS IDENTITY UNIQUE,
    tenant      text        NOT NULL,
    subject     text        NOT NULL,
    job         text        NOT NULL,
    method      text        NOT NULL,
    job_state   text        NOT NULL,
    url         text        NOT NULL,
    secret      bytea       NOT NULL,
    state       text        NOT NULL DEFAULT 'PENDING' CHECK (state IN ('PENDING', 'DELIVERED', 'DEAD')),
    attempts    integer     NOT NULL DEFAULT 0,
    due         timestamptz NOT NULL DEFAULT now(),
    event_time  timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    -- What the last attempt came to.
    problem     text        NOT NULL DEFAULT ''
);
CREATE INDEX job_webhooks_of_caller ON job_webhooks (tenant, subject, number);
CREATE INDEX job_webhooks_due ON job_webhooks (due) WHERE state = 'PENDING';
CREATE INDEX job_webhooks_over ON job_webhooks (update_time) WHERE state <> 'PENDING';

-- A job that has ended never changes its state; the end is told once.
CREATE FUNCTION job_ends() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF old.state IN ('SUCCEEDED', 'FAILED', 'CANCELLED') THEN
        RAISE EXCEPTION 'job % has ended', old.id;
    END IF;
    new.end_time := now();
    new.update_time := now();
    new.expire_time := now() + new.keep;
    new.lease_until := NULL;
    IF new.webhook_url <> '' THEN
        INSERT INTO job_webhooks (id, tenant, subject, job, method, job_state, url, secret)
        VALUES ('msg_' || new.id, new.tenant, new.subject, new.id, new.method, new.state, new.webhook_url,
                new.webhook_secret);
        PERFORM pg_notify(TG_TABLE_SCHEMA || '_jobs', 'webhook');
    END IF;
    RETURN new;
END $$;
CREATE TRIGGER job_ends BEFORE UPDATE OF state ON jobs FOR EACH ROW
    WHEN (old.state <> new.state AND (old.state NOT IN ('QUEUED', 'RUNNING') OR new.state NOT IN ('QUEUED', 'RUNNING')))
    EXECUTE FUNCTION job_ends();

-- Wakes runners ("queued", "cancel:ID") and watchers ("changed:ID").
CREATE FUNCTION job_told() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF new.state = 'QUEUED' THEN
        PERFORM pg_notify(TG_TABLE_SCHEMA || '_jobs', 'queued');
    END IF;
    IF TG_OP = 'UPDATE' THEN
        IF new.cancelling AND NOT old.cancelling THEN
            PERFORM pg_notify(TG_TABLE_SCHEMA || '_jobs', 'cancel:' || new.id);
        END IF;
        PERFORM pg_notify(TG_TABLE_SCHEMA || '_jobs', 'changed:' || new.id);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER job_made AFTER INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION job_told();
CREATE TRIGGER job_changed AFTER UPDATE ON jobs FOR EACH ROW
    WHEN (old.state <> new.state OR old.messages <> new.messages OR old.cancelling <> new.cancelling
          OR old.note <> new.note)
    EXECUTE FUNCTION job_told();
