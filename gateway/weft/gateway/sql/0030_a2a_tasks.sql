-- Tasks of A2A callers. JSON stands in bytea: PostgreSQL's own json types refuse U+0000 and change numbers.
CREATE TABLE a2a_tasks (
    id          uuid        PRIMARY KEY,
    tenant      text        NOT NULL,
    subject     text        NOT NULL,
    -- Agent it was asked of; '-': the mesh.
    agent       text        NOT NULL,
    context_id  text        NOT NULL,
    -- "package.Service/Method".
    skill       text        NOT NULL,
    -- Name in lf.a2a.v1.TaskState.
    state       text        NOT NULL,
    status_time timestamptz NOT NULL,
    -- Message that goes with the state. Empty: none.
    told        bytea       NOT NULL,
    -- JSON values, separated by commas.
    artifacts   bytea       NOT NULL,
    -- A JSON array.
    history     bytea       NOT NULL,
    revision    bigint      NOT NULL DEFAULT 1,
    -- Gateway process that works on it, and until when that is believed.
    gateway     text        NOT NULL,
    lease_until timestamptz NOT NULL,
    expire_time timestamptz NOT NULL
);
CREATE INDEX a2a_tasks_list ON a2a_tasks (tenant, subject, status_time DESC, id DESC);
CREATE INDEX a2a_tasks_lease ON a2a_tasks (lease_until) WHERE state = 'TASK_STATE_WORKING';
CREATE INDEX a2a_tasks_expire ON a2a_tasks (expire_time);

-- Where callers want to be told of a task, and what is still to be told there.
CREATE TABLE a2a_push_configs (
    task_id     uuid        NOT NULL REFERENCES a2a_tasks ON DELETE CASCADE,
    id          text        NOT NULL,
    url         text        NOT NULL,
    token       text        NOT NULL,
    scheme      text        NOT NULL,
    credentials text        NOT NULL,
    -- When to try next. NULL: nothing is to be told.
    due_time    timestamptz,
    attempts    integer     NOT NULL DEFAULT 0,
    PRIMARY KEY (task_id, id)
);
CREATE INDEX a2a_push_configs_due ON a2a_push_configs (due_time) WHERE due_time IS NOT NULL;
