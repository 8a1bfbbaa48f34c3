-- Calls that were made with an idempotency key, each once. Neither response nor status: it is being made until lock_until.
CREATE TABLE idempotent_calls (
    caller      text        NOT NULL,
    key         text        NOT NULL,
    -- SHA-256 of the method and the request.
    digest      bytea       NOT NULL CHECK (octet_length(digest) = 32),
    lock_until  timestamptz NOT NULL,
    expire_time timestamptz NOT NULL,
    -- The response message.
    response    bytea,
    -- google.rpc.Status.
    status      bytea,
    PRIMARY KEY (caller, key)
);
CREATE INDEX idempotent_calls_expire ON idempotent_calls (expire_time);
