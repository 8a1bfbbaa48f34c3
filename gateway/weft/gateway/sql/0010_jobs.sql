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
    -- Conversation its call belongs to. Empty: none.
    conversation   text        NOT NULL DEFAULT '',
    -- Whether its method answers with a stream; whether it may be called twice; whether its door can ask its caller for
    -- more.
    streams        boolean     NOT NULL,
    repeatable     boolean     NOT NULL,
    resumable      boolean     NOT NULL DEFAULT false,
    state          text        NOT NULL DEFAULT 'QUEUED'
                   CHECK (state IN ('QUEUED', 'RUNNING', 'WAITING', 'SUCCEEDED', 'FAILED', 'CANCELLED')),
    state_time     timestamptz NOT NULL DEFAULT now(),
    -- Reason of the error with which its agent asked for more. Empty: it did not.
    waits_for      text        NOT NULL DEFAULT '',
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
    -- The response message; google.rpc.Status where there is none, or where it waits for its caller.
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
CREATE INDEX jobs_waiting ON jobs (deadline) WHERE state = 'WAITING';
CREATE INDEX jobs_of_kind ON jobs (tenant, subject, kind, state_time, number);
CREATE INDEX jobs_expire ON jobs (expire_time) WHERE expire_time IS NOT NULL;

-- The newest messages of streams.
CREATE TABLE job_messages (
    job     text   NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    number  bigint NOT NULL,
    content bytea  NOT NULL,
    PRIMARY KEY (job, number)
);

-- Who is told beside the webhook of a job, in the form of the door that made it, when it ends and when it waits.
CREATE TABLE job_subscribers (
    job      text  NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    id       text  NOT NULL,
    url      text  NOT NULL,
    -- For that door alone.
    settings bytea NOT NULL,
    PRIMARY KEY (job, id)
);

-- What callers are to be told of jobs. A row outlives its job.
CREATE TABLE job_webhooks (
    id          text        PRIMARY KEY,
    number      bigint      GENERATED ALWAYS AS IDENTITY UNIQUE,
    tenant      text        NOT NULL,
    subject     text        NOT NULL,
    job         text        NOT NULL,
    method      text        NOT NULL,
    job_state   text        NOT NULL,
    url         text        NOT NULL,
    -- What it is signed with. Empty: it is told in the form of a door (the kind of its job) to a subscriber.
    secret      bytea       NOT NULL,
    kind        text        NOT NULL DEFAULT '',
    subscriber  text        NOT NULL DEFAULT '',
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

-- Tells the subscribers of a job; NULL: all of them.
CREATE FUNCTION tell_subscribers(told jobs, one text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO job_webhooks (id, tenant, subject, job, method, job_state, url, secret, kind, subscriber)
    SELECT 'msg_' || replace(gen_random_uuid()::text, '-', ''), told.tenant, told.subject, told.id, told.method,
           told.state, each.url, '', told.kind, each.id
    FROM job_subscribers AS each
    WHERE each.job = told.id AND (one IS NULL OR each.id = one);
    IF FOUND THEN
        PERFORM pg_notify(current_schema() || '_jobs', 'webhook');
    END IF;
END $$;

-- A job that has ended never changes its state; the end is told once.
CREATE FUNCTION job_turns() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF old.state IN ('SUCCEEDED', 'FAILED', 'CANCELLED') THEN
        RAISE EXCEPTION 'job % has ended', old.id;
    END IF;
    new.state_time := now();
    new.update_time := now();
    IF new.state IN ('QUEUED', 'RUNNING') THEN
        RETURN new;
    END IF;
    new.lease_until := NULL;
    IF new.state = 'WAITING' THEN
        -- As long as the result of one that has ended.
        new.deadline := now() + new.keep;
    ELSE
        new.end_time := now();
        new.expire_time := now() + new.keep;
        IF new.webhook_url <> '' THEN
            INSERT INTO job_webhooks (id, tenant, subject, job, method, job_state, url, secret)
            VALUES ('msg_' || new.id, new.tenant, new.subject, new.id, new.method, new.state, new.webhook_url,
                    new.webhook_secret);
            PERFORM pg_notify(TG_TABLE_SCHEMA || '_jobs', 'webhook');
        END IF;
    END IF;
    PERFORM tell_subscribers(new, NULL);
    RETURN new;
END $$;
CREATE TRIGGER job_turns BEFORE UPDATE OF state ON jobs FOR EACH ROW
    WHEN (old.state <> new.state) EXECUTE FUNCTION job_turns();

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
CREATE TRIGGER job_made AFTER INSERT ON jobs FOR EACH ROW WHEN (new.state = 'QUEUED') EXECUTE FUNCTION job_told();
CREATE TRIGGER job_changed AFTER UPDATE ON jobs FOR EACH ROW
    WHEN (old.state <> new.state OR old.messages <> new.messages OR old.cancelling <> new.cancelling
          OR old.note <> new.note)
    EXECUTE FUNCTION job_told();
