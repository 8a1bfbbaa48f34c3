-- What operators did, and who: written with the act itself.
CREATE TABLE operator_acts (
    id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT now(),
    -- Subject of a caller, or "os:user@host" of whoever used the command line.
    actor   text        NOT NULL,
    -- "key created", "key revoked", "breaker held", "breaker let go".
    act     text        NOT NULL,
    -- Id of the key; agent and method of the breaker.
    object  text        NOT NULL,
    details jsonb       NOT NULL DEFAULT '{}',
    -- Whether the audit log of a gateway has it.
    told    boolean     NOT NULL DEFAULT false
);

CREATE INDEX operator_acts_untold ON operator_acts (id) WHERE NOT told;
